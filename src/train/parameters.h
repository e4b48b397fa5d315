#pragma once
// A model and what training changes of it: f32 masters, the copy that is computed with, gradients.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "formats/memory_checkpoint.h"
#include "model/model.h"
#include "model/trained_weights.h"
#include "train/recipe.h"

namespace kogia {

/// A tensor of the model. Names are those of the official checkpoints.
struct Parameter {
  std::string name;
  std::vector<Index> shape;
  float* master = nullptr;
  float* grad = nullptr;  // null: no gradient trains it (the selection bias of a router)
  Index n = 0;
  bool decays = false;  // matrices do, vectors do not
};

/// Ownership  of everything; `device` must outlive it
/// Threads    one
class Parameters {
 public:
  /// Random weights: normal of deviation `initializer_range`, norms 1, biases 0.
  /// Errors  a configuration that makes no sense throws Error naming the field
  Parameters(Device& device, const std::string& config_json, double initializer_range,
             std::uint64_t seed, Recipe recipe, MlaForm form);
  /// The weights of a checkpoint, which must hold all of them.
  Parameters(Device& device, const Checkpoint& from, Recipe recipe, MlaForm form);
  ~Parameters();

  const Model& model() const { return *model_; }
  /// In the order of official checkpoints.
  std::vector<Parameter>& all() { return parameters_; }
  const std::string& config_json() const { return config_json_; }
  /// What an official checkpoint of it holds, in that order: layers of multi-token prediction
  /// repeat the embedding and the head.
  struct Exported {
    std::string name;
    const Parameter* parameter;
  };
  std::vector<Exported> exported() const;
  /// The selection bias of a layer's router, [n_routed_experts]; null where there is none.
  float* router_bias(Index layer);

  /// After masters changed: the copy that is computed with follows.
  void refresh();
  TrainedWeights& weights() { return weights_; }
  void clear_gradients() { weights_.clear_gradients(); }
  /// Before gradients are used: those of tensors that several parts of the model share.
  void finish_gradients() { weights_.add_uses(); }
  Index n_values() const;

 private:
  void plan(double initializer_range, std::uint64_t seed);
  void build(Device& device, MlaForm form);
  DType computed_dtype(std::string_view name, std::span<const Index> shape) const;
  void copy_masters();

  Recipe recipe_;
  std::string config_json_;
  MemoryCheckpoint masters_;
  std::unique_ptr<MemoryCheckpoint> computed_;  // null: the masters themselves
  TrainedWeights weights_;
  std::unique_ptr<const Model> model_;
  std::vector<Parameter> parameters_;
};

}  // namespace kogia
