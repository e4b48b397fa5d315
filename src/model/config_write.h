#pragma once
// What a checkpoint says of its model, written: config.json as the official checkpoints spell it,
// and the keys of a GGUF as llama.cpp reads them.

#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "tensor/dtype.h"

namespace kogia {

class GgufWriter;

/// What config.json says beyond the model itself.
struct ConfigExtras {
  DType torch_dtype = DType::bf16;
  std::vector<Index> bos, eos, pad;  // ids; empty: left out
  /// Weights are E4M3 in blocks of 128 x 128, as DeepSeek's, but not those of some modules, by
  /// their full names.
  bool fp8 = false;
  std::vector<std::string> fp8_not = {};
  /// A config.json whose keys of no meaning here are kept, or empty.
  std::string source = {};
};

/// model_type, architectures, rope_theta and rope_scaling, torch_dtype, ...;
/// quantization_config for FP8 alone.
std::string official_config_json(const ModelConfig& config, const ConfigExtras& extras);

/// general.architecture and the keys of the architecture. `mtp`: its layers are in the file.
/// Errors  what the architecture has no key for throws Error naming the field
void set_gguf_architecture(GgufWriter& writer, const ModelConfig& config, bool mtp);

/// llama3's scaling as a GGUF holds it, rope_freqs.weight: what each frequency is divided by.
/// Empty for other kinds.
std::vector<float> rope_divisors(const RopeConfig& rope);
/// The scaling of llama3 that gives these divisors; throws Error where none of the usual ones does.
RopeConfig llama3_rope_of(const RopeConfig& rope, const std::vector<float>& divisors,
                          const std::string& file);

}  // namespace kogia
