#pragma once
// A language model: a ragged batch of tokens in, logits out. Training, rollouts and serving call
// this.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "model/config.h"
#include "model/expert_load.h"
#include "tensor/arena.h"

namespace kogia {

class Checkpoint;
class Tape;
class Watch;
class TrainedWeights;
struct ActiveWeights;

/// Which of two equal-in-theory sums latent attention computes (docs/design, determinism). Bits
/// hold within one form. kAuto: expanded for prefill (more than one row of a sequence), absorbed
/// for decode.
enum class MlaForm { kAbsorbed, kExpanded, kAuto };
std::string_view name(MlaForm form);  // "absorbed", "expanded", "auto"

/// Memory of a paged cache for the layers of a model from first_layer on: page p of layer l lies at
/// base + p * page_stride + (l - first_layer) * layer_stride.
struct CacheMemory {
  CacheSpec spec;
  std::byte* base = nullptr;
  Index page_stride = 0, layer_stride = 0;
  Index first_layer = 0;

  CacheView layer(Index l) const {
    return {spec, base + (l - first_layer) * layer_stride, page_stride};
  }
};

/// Tokens of several sequences laid end to end. Nothing else tells prefill, decode, verification
/// and scoring apart.
struct Batch {
  std::span<const std::int32_t> ids;         // [T], each in [0, vocab_size): CHECKed
  std::span<const SequenceRows> sequences;   // cover [0, T) in order
  std::span<const std::int32_t> logit_rows;  // rows whose logits are wanted, ascending
  CacheMemory cache;
};

/// Texts to learn from. Row r of the batch predicts targets[r] (−1: nothing), which is the token
/// that follows it. Sequences begin at position 0 and lie in packed rows whole.
struct TrainBatch {
  std::span<const std::int32_t> ids, targets;  // [T]
  std::span<const SequenceRows> sequences;     // with pages of the cache
  std::span<const Index> packed_rows;          // where each packed row begins, ascending from 0
  CacheMemory cache;
  /// ∂L/∂(sum of −log p) of the main model, then of each depth of multi-token prediction; depths
  /// that are not there are not computed.
  std::span<const float> loss_weights;
  /// 1 / the rows of the whole step, of each of these: what a row counts in balance losses.
  std::span<const float> row_weights;
};

/// Σ −log p over the targets of the main model (depth 0) and of each depth, and how many there are.
struct TrainLoss {
  double sum = 0;
  Index n = 0;
  /// Of a depth, where no tape records: what decoding at temperature 0 would say of its guesses if
  /// it came by this very text. At n_drafted positions all depths before guessed as the main model
  /// chooses, and at n_accepted of these this one does too.
  Index n_drafted = 0, n_accepted = 0;
};

/// What a forward pass gives back; memory belongs to the workspace and lives until its next use.
struct ForwardResult {
  ConstMat logits;  // [logit_rows.size(), vocab_size]
  ConstMat hidden;  // [T, hidden_size], after the final norm
};

/// Scratch of one thread of control; reused from step to step.
struct Workspace {
  Arena arena;
  // Of forward_train():
  Tape* tape = nullptr;
  Watch* watch = nullptr;
  std::vector<ExpertLoad> loads = {};  // of the last pass

  Index expert_bytes = 0;  // of the routed experts that the last forward() touched, each once
};

struct LoadProgress {
  std::string_view what;  // "packing weights", "checking weights"
  Index done_bytes = 0, total_bytes = 0;
};

/// How weights come into the layout of the device. Where they are kept packed in a file that fits
/// (model/kept_weights.h), it is mapped; else they are packed.
struct PackingOptions {
  bool borrow = false;  // they do not: products read the checkpoint, with the same bits and slowly
  bool keep = false;    // what has to be packed is kept in a file
  bool verify = false;  // a kept file is used only if all of it and of the checkpoint is unchanged
  std::filesystem::path cache_folder = {};  // for files of read-only models; empty: there is none
};

struct LoadOptions {
  std::optional<Compute> compute = {};  // unset: the device's default for each weight's format
  MlaForm mla = MlaForm::kAbsorbed;
  bool load_mtp = true;  // where the checkpoint has it
  /// Layers of multi-token prediction are there for guesses alone, which what they guess about
  /// checks: their plain weights, and the head before them, are rounded to Q8_0 and multiplied in
  /// int8. Not together with `training`.
  bool guess_in_int8 = false;
  PackingOptions packing = {};
  TrainedWeights* training = nullptr;  // the model is trained: from a folder's names, not GGUF's
  std::function<void(const LoadProgress&)> on_progress = {};  // from several threads, one at a time
};

/// Immutable after loading. The checkpoint must outlive it: an untied embedding is read in place,
/// and so are borrowed weights.
/// Errors   load() names missing, extra, mis-shaped and mis-typed tensors, with what was expected
/// and why Threads  forward() uses the device, which is used from one thread at a time
class Model {
 public:
  static std::unique_ptr<const Model> load(const Checkpoint& checkpoint, Device& device,
                                           const LoadOptions& options);
  ~Model();

  const ModelConfig& config() const;
  Device& device() const;
  /// What a layer caches, and how many layers do: main layers, then MTP layers where loaded.
  CacheSpec cache_spec(DType cache_dtype) const;
  Index n_cache_layers() const;
  Index n_mtp_layers() const;  // that were loaded: the depth of multi-token prediction
  bool has_mtp() const { return n_mtp_layers() > 0; }
  Index n_weight_bytes() const;  // memory of the packed matrices
  /// What of it a token passes.
  ActiveWeights active_weights() const;
  /// Formats of the matrices with their share of values, largest first: "q4_1 (compute bf16)".
  std::string weights_summary() const;
  /// f32 when every product is computed in f32, else bf16.
  DType default_cache_dtype() const;

  ForwardResult forward(const Batch& batch, Workspace& workspace) const;

  /// The multi-token prediction layer k (arXiv:2412.19437 §2.2). Row i pairs hidden[i] (post final
  /// norm) with the next token next_ids[i] and predicts the one after. `sequences` and `cache` as
  /// in forward() (ids are not read): the layer has its own cache layer. `hidden` must not lie in
  /// `workspace`.
  ForwardResult forward_mtp(Index k, std::span<const std::int32_t> next_ids, ConstMat hidden,
                            const Batch& batch, Workspace& workspace) const;

  /// Forward pass over whole texts, with the operations of forward(), and the losses of the main
  /// model and of multi-token prediction. With a tape in the workspace, tape.backward() then adds
  /// ∂L/∂w to the gradients. Weights must be trained where there is one.
  std::vector<TrainLoss> forward_train(const TrainBatch& batch, Workspace& workspace) const;

 private:
  struct Parts;
  explicit Model(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace kogia
