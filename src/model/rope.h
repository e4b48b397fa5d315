#pragma once
// Rotary position embedding: frequencies of the four scalings, tables, and the softmax scale.

#include <span>
#include <vector>

#include "device/device.h"
#include "model/config.h"
#include "tensor/arena.h"

namespace kogia {

/// Radians per position of each rotated pair, [dims / 2], scaled as YaRN (arXiv:2309.00071) or
/// Llama 3 asks.
std::vector<double> rope_frequencies(const RopeConfig& rope);

/// What the cosines and sines are multiplied by: ms(s, mscale) / ms(s, mscale_all_dim) for YaRN,
/// else 1.
double rope_table_factor(const RopeConfig& rope);

/// qk_head_dim^(−1/2), times ms(s, mscale_all_dim)² where latent attention uses YaRN.
double softmax_scale(const ModelConfig& config);

/// Cosines and sines of the rows of one batch, [T, dims / 2] each; angles in f64, tables in f32.
struct RopeTables {
  const float* cos = nullptr;
  const float* sin = nullptr;
};

class Rope {
 public:
  /// `divisors`: GGUF's rope_freqs.weight ([dims / 2]), empty where there is none.
  Rope(const RopeConfig& config, std::span<const float> divisors);
  RopeTables tables(std::span<const SequenceRows> sequences, Index n_rows, Arena& arena) const;
  RopeLayout layout() const { return layout_; }
  Index dims() const { return 2 * static_cast<Index>(frequency_.size()); }

 private:
  std::vector<double> frequency_;
  double factor_;
  RopeLayout layout_;
};

}  // namespace kogia
