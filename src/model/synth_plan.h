#pragma once
// What a synthetic checkpoint consists of: its shape by name, and its tensors for each container.

#include <string>
#include <vector>

#include "base/index.h"
#include "model/config.h"
#include "tensor/dtype.h"

namespace kogia {

class GgufWriter;
struct SynthOptions;

/// synthesize() of any configuration; options.name is only written down.
void synthesize(const SynthOptions& options, const ModelConfig& config);

/// A tensor to be made up.
struct SynthTensor {
  enum class Fill { kNormal, kOnes, kBlockScales };
  std::string name;
  DType dtype = DType::f32;
  std::vector<Index> shape;
  Fill fill = Fill::kNormal;
  double deviation = 0;  // kNormal
  std::string stream;    // names the random numbers: copies share one
};

/// The configuration of one of synth_names(); throws kUsage naming them.
ModelConfig synth_config(const std::string& name);

/// Official names, one matrix an expert. `fp8`: E4M3 with f32 block scales right behind each
/// matrix.
std::vector<SynthTensor> plan_folder(const ModelConfig& config, bool fp8);
/// llama.cpp's names, experts stacked, kv_b split; rows that `matrix` cannot hold fall back as
/// there.
std::vector<SynthTensor> plan_gguf(const ModelConfig& config, DType matrix);

/// config.json as the official files spell it.
std::string synth_config_json(const ModelConfig& config, bool fp8);
/// Metadata of the architecture, and a tokenizer of 256 bytes and filler.
void set_gguf_keys(GgufWriter& writer, const ModelConfig& config, const std::string& name);

}  // namespace kogia
