#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace kogia {
namespace {

// ms(s, m) = 1 if s <= 1 else 0.1 m ln s + 1 arXiv:2309.00071
double yarn_mscale(double factor, double m) {
  return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1;
}

// The dimension whose wave turns `rotations` times within the original context.
double yarn_dimension(const RopeConfig& rope, double rotations) {
  return static_cast<double>(rope.dims) *
         std::log(rope.original_max_position_embeddings / (2 * std::numbers::pi * rotations)) /
         (2 * std::log(rope.theta));
}

// f′ = f/s · ramp + f · (1 − ramp); the ramp runs over the index of the pair, its upper end may
// reach dims − 1 although pairs end at dims / 2.
void scale_yarn(const RopeConfig& rope, std::vector<double>& f) {
  double low = yarn_dimension(rope, rope.beta_fast), high = yarn_dimension(rope, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.dims - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < f.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    f[i] = f[i] / rope.factor * ramp + f[i] * (1 - ramp);
  }
}

void scale_llama3(const RopeConfig& rope, std::vector<double>& f) {
  const double length = rope.original_max_position_embeddings;
  const double low = rope.low_freq_factor, high = rope.high_freq_factor;
  for (double& fi : f) {
    const double wavelength = 2 * std::numbers::pi / fi;
    if (wavelength > length / low) {
      fi /= rope.factor;
    } else if (wavelength >= length / high) {
      const double t = (length / wavelength - low) / (high - low);
      fi = (1 - t) * fi / rope.factor + t * fi;
    }
  }
}

}  // namespace

std::vector<double> rope_frequencies(const RopeConfig& rope) {
  std::vector<double> f(static_cast<std::size_t>(rope.dims / 2));
  for (std::size_t i = 0; i < f.size(); ++i) {
    f[i] = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope.dims));
  }
  switch (rope.kind) {
    case RopeConfig::Kind::kDefault:
      break;
    case RopeConfig::Kind::kLinear:
      for (double& fi : f) fi /= rope.factor;
      break;
    case RopeConfig::Kind::kYarn:
      scale_yarn(rope, f);
      break;
    case RopeConfig::Kind::kLlama3:
      scale_llama3(rope, f);
      break;
  }
  return f;
}

double rope_table_factor(const RopeConfig& rope) {
  if (rope.kind != RopeConfig::Kind::kYarn) return 1;
  if (rope.attention_factor) return *rope.attention_factor;
  return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
}

double softmax_scale(const ModelConfig& c) {
  const double plain = 1 / std::sqrt(static_cast<double>(c.qk_head_dim()));
  if (!c.is_mla() || c.rope.kind != RopeConfig::Kind::kYarn) return plain;
  const double m = yarn_mscale(c.rope.factor, c.rope.mscale_all_dim);
  return plain * m * m;
}

Rope::Rope(const RopeConfig& config, std::span<const float> divisors)
    : frequency_(rope_frequencies(config)),
      factor_(rope_table_factor(config)),
      layout_(config.layout) {
  KOGIA_CHECK(divisors.empty() || divisors.size() == frequency_.size());
  for (std::size_t i = 0; i < divisors.size(); ++i)
    frequency_[i] /= static_cast<double>(divisors[i]);
  const auto usable = [](double x) { return std::isfinite(x) && x > 0; };
  if (!usable(factor_) || !std::all_of(frequency_.begin(), frequency_.end(), usable)) {
    throw Error(ErrorCode::kInvalid, "the rope parameters of the model give no usable frequencies",
                "look at rope_theta, rope_scaling and, in a GGUF, rope_freqs.weight");
  }
}

RopeTables Rope::tables(std::span<const SequenceRows> sequences, Index n_rows, Arena& arena) const {
  const Index half = static_cast<Index>(frequency_.size());
  float* const cos = arena.allocate<float>(n_rows * half);
  float* const sin = arena.allocate<float>(n_rows * half);
  for (const SequenceRows& s : sequences) {
    for (Index r = 0; r < s.n_rows; ++r) {
      const double position = static_cast<double>(s.first_pos + r);
      const Index row = (s.row_begin + r) * half;
      for (Index i = 0; i < half; ++i) {
        const double angle = position * frequency_[static_cast<std::size_t>(i)];
        cos[row + i] = static_cast<float>(std::cos(angle) * factor_);
        sin[row + i] = static_cast<float>(std::sin(angle) * factor_);
      }
    }
  }
  return {cos, sin};
}

}  // namespace kogia
