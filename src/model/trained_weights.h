#pragma once
// The weights of a model that is trained: their gradients, and the device's matrices made anew when
// they changed.

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/binder.h"

namespace kogia {

/// Given to Model::load() in LoadOptions. The checkpoint and the model must outlive it, but for its
/// destruction. Every matrix is packed twice: for the forward pass, and transposed for the backward
/// one.
/// Threads  one
class TrainedWeights {
 public:
  /// `uses`: how often a model uses its embedding and head, each with a gradient of its own.
  explicit TrainedWeights(Index uses) : uses_(uses) {}

  /// After the bytes of the checkpoint changed.
  void refresh();
  void clear_gradients();
  /// Gradients of shared tensors from all of their uses into the first, in the order of the uses.
  void add_uses();

  struct Gradient {
    Index n = 0;                // values of the tensor
    std::vector<float> values;  // [uses, n]
    Index uses() const { return static_cast<Index>(values.size()) / n; }
  };
  /// By the name of the tensor. Vectors that are not trained by gradient are not among them.
  std::map<std::string, Gradient, std::less<>>& gradients() { return gradients_; }

 private:
  friend class Binder;
  friend class Model;

  float* gradient(const std::string& tensor, Index n, Index uses = 1);
  /// Packs the jobs; they and the checkpoint are kept for refresh().
  void pack(std::vector<PackJob> jobs, const Checkpoint& checkpoint, Device& device);

  struct Vector {
    const TensorEntry* entry;
    std::vector<float>* out;
  };

  Index uses_;
  std::map<std::string, Gradient, std::less<>> gradients_;
  std::vector<Vector> vectors_;
  std::vector<PackJob> jobs_;
  const Checkpoint* checkpoint_ = nullptr;
  Device* device_ = nullptr;
  PackPlan plan_;
  std::shared_ptr<std::byte> packed_;
};

}  // namespace kogia
