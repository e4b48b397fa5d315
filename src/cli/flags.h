#pragma once
// Flags that several commands share: how the engine computes, and how tokens are drawn.

#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "infer/engine.h"
#include "infer/generate.h"

namespace kogia::cli {

struct EngineFlags {
  Index threads = 0, chunk = 512, ctx = 0;
  Index cache_tokens = 0;  // EngineOptions; no flag of its own
  bool need_mtp = false;   // nor has this
  std::string isa, mla = "absorbed", compute, cache_type;
  bool no_pack = false, keep_packed = false, verify = false, quiet = false, verbose = false;

  std::vector<OptionRow> rows();
  EngineOptions options() const;
};

/// ~/.cache/kogia, or where the environment says; empty where it says nothing.
std::filesystem::path cache_folder();

/// The same flags for commands that compute nothing, so that scripts can pass one set everywhere.
OptionGroup accepted_without_effect(EngineFlags& flags, std::uint64_t& seed);
/// The flags of a command that heeds some of them, named as in their rows ("--threads").
struct PartlyUsed {
  OptionGroup used, unused;
};
PartlyUsed partly_used(EngineFlags& flags, std::uint64_t& seed, std::string title,
                       std::initializer_list<std::string_view> used);

/// Opens MODEL; says so on standard error where that takes long.
std::unique_ptr<Engine> open_engine(const std::string& model, const EngineFlags& flags);

struct SamplingFlags {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<Index> top_k;
  double frequency_penalty = 0, presence_penalty = 0;
  std::uint64_t seed = 0;
  std::vector<std::string> logit_bias;  // "ID=BIAS"

  std::vector<OptionRow> rows();
  /// What a flag does not say comes from generation_config.json. Where a checkpoint has none of
  /// that: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, as llama.cpp chooses.
  SamplingParams params(const GenerationDefaults& defaults) const;
};

struct StopFlags {
  Index max_tokens = -1;
  std::vector<std::string> stop;
  bool ignore_eos = false;

  std::vector<OptionRow> rows();
  void apply(GenerateOptions& options) const;
};

}  // namespace kogia::cli
