// kogia inspect: what a checkpoint holds and what it needs, without loading it.

#include <algorithm>
#include <filesystem>
#include <map>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_flags.h"
#include "cli/output.h"
#include "device/cpu_device.h"
#include "formats/checkpoint.h"
#include "model/config.h"

namespace kogia::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr Index kDefaultContext = 4096;

struct InspectFlags {
  std::string model;
  bool tensors = false, json = false;
  std::uint64_t unused_seed = 0;
  EngineFlags engine;
};

CommandLine describe(InspectFlags& f) {
  std::vector<OptionRow> memory, weights, unused;
  for (OptionRow& row : f.engine.rows()) {
    if (row.flags == "--ctx" || row.flags == "--cache-type") {
      memory.push_back(row);
    } else if (row.flags == "--isa" || row.flags == "--compute") {
      weights.push_back(row);
    } else {
      row.help.clear();
      unused.push_back(row);
    }
  }
  memory[0].help = "tokens of context for the memory needed (4096, or the model's maximum if less)";
  memory[1].help = "numbers in the cache: f32 or bf16 (bf16)";
  unused.push_back({.flags = "--seed", .value = "N", .help = {}, .target = &f.unused_seed});
  return {
      .name = "inspect",
      .summary =
          "Tells what a checkpoint holds and what it needs, without loading it: shape of the "
          "model, parameters, number formats, bytes, cache per token, memory.",
      .positionals = {{"MODEL", std::string(kModelHelp) + "; a config.json alone will do",
                       &f.model}},
      .groups =
          {{"Output",
            {{.flags = "--tensors", .value = {}, .help = "list every tensor", .target = &f.tensors},
             {.flags = "--json", .value = {}, .help = "one object", .target = &f.json}}},
           {"Memory", memory},
           {"Weights that are kept in a wider form than the file's", weights},
           {"Accepted, without effect here", unused}},
      .examples = {"kogia inspect DeepSeek-V3/config.json", "kogia inspect model.gguf --tensors"}};
}

bool holds_weights(const std::filesystem::path& folder) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const auto extension = entry.path().extension();
    if (extension == ".safetensors" || extension == ".gguf") return true;
  }
  return static_cast<bool>(error);  // unreadable: opening it will say why
}

std::unique_ptr<Checkpoint> open(const std::filesystem::path& path) {
  std::error_code ignored;
  const bool alone = std::filesystem::is_directory(path, ignored) ? !holds_weights(path)
                                                                  : path.extension() == ".json";
  return alone ? Checkpoint::open_config_only(path) : Checkpoint::open(path);
}

struct Facts {
  ModelConfig config;
  ParameterCount parameters;
  CacheCost cache;
  Index cache_value_bytes = 2;
  Index ctx = 0;
  bool has_weights = false;
  Index weight_bytes = 0;  // of the files, or estimated from the configuration
  Index wider_bytes = 0;   // that a wider form takes besides
  struct PerType {
    Index tensors = 0, values = 0, bytes = 0;
    std::string repacked = {};  // "8-bit codes"; empty: run in its own form
  };
  std::map<DType, PerType> types;

  Index cache_bytes() const { return cache.values_per_token * cache_value_bytes; }
  Index weight_memory() const { return weight_bytes + wider_bytes; }
  Index memory_bytes() const { return weight_memory() + cache_bytes() * ctx; }
  double mha_factor() const {
    return static_cast<double>(cache.mha_values_per_token) /
           static_cast<double>(std::max<Index>(cache.values_per_token, 1));
  }
};

/// What this processor's kernels make of a matrix, of which nothing is read.
PackedForm packed_form(const TensorView& view, const Device& device, Compute compute) {
  const Index cols = view.shape.back();
  const MatrixSource source = {
      .dtype = view.dtype, .rows = view.n_values() / cols, .cols = cols, .data = view.data};
  return device.packed_form(source, {.compute = compute}, /*variant=*/0);
}

/// Of GGUF blocks, since nothing else is repacked for what its type alone is.
void note_wider_forms(const Checkpoint& checkpoint, const EngineOptions& options, Facts& facts) {
  const auto device = make_cpu_device({.n_threads = 1, .isa = options.cpu.isa});
  const bool by_type = !options.compute || *options.compute == Compute::fp8;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    const TensorView& view = tensor.view;
    if (!is_block(view.dtype) || view.n_values() == 0) continue;
    const Compute compute = by_type ? device->default_compute(view.dtype) : *options.compute;
    const PackedForm form = packed_form(view, *device, compute);
    if (form.repacked.empty()) continue;
    facts.types[view.dtype].repacked = form.repacked;
    facts.wider_bytes += std::max<Index>(0, form.n_bytes - view.n_bytes);
  }
}

Facts gather(const Checkpoint& checkpoint, const EngineFlags& flags) {
  Facts facts;
  facts.config = ModelConfig::from_checkpoint(checkpoint);
  facts.parameters = count_parameters(facts.config);
  facts.cache = cache_cost(facts.config);
  facts.cache_value_bytes = flags.cache_type == "f32" ? 4 : 2;
  const Index most = facts.config.max_position_embeddings;
  facts.ctx = flags.ctx > 0 ? flags.ctx
              : most > 0    ? std::min(most, kDefaultContext)
                            : kDefaultContext;
  facts.has_weights = !checkpoint.tensors().empty();
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    auto& type = facts.types[tensor.view.dtype];
    ++type.tensors;
    type.values += tensor.view.n_values();
    type.bytes += tensor.view.n_bytes;
    facts.weight_bytes += tensor.view.n_bytes;
  }
  note_wider_forms(checkpoint, flags.options(), facts);
  if (!facts.has_weights) {
    facts.weight_bytes =
        (facts.parameters.total + facts.parameters.mtp) * (facts.config.fp8 ? 1 : 2);
  }
  return facts;
}

std::string_view rope_name(RopeConfig::Kind kind) {
  switch (kind) {
    case RopeConfig::Kind::kDefault:
      return "default";
    case RopeConfig::Kind::kLinear:
      return "linear";
    case RopeConfig::Kind::kYarn:
      return "yarn";
    case RopeConfig::Kind::kLlama3:
      return "llama3";
  }
  return "";
}

// --- for people ---------------------------------------------------------------------------------

std::string layers_line(const ModelConfig& c) {
  std::string line = fmt::format("{}", c.num_hidden_layers);
  if (c.n_routed_experts > 0) {
    Index moe = 0;
    for (Index l = 0; l < c.num_hidden_layers; ++l) moe += c.is_moe_layer(l) ? 1 : 0;
    line += fmt::format(": {} dense, {} with {} experts ({} a token, {} shared)",
                        c.num_hidden_layers - moe, moe, c.n_routed_experts, c.num_experts_per_tok,
                        c.n_shared_experts);
  }
  if (c.num_nextn_predict_layers > 0) {
    line += fmt::format("; {} for multi-token prediction", c.num_nextn_predict_layers);
  }
  return line;
}

std::string attention_line(const ModelConfig& c) {
  if (c.is_mla()) {
    const std::string q = c.q_lora_rank > 0 ? fmt::format("q_lora_rank {}, ", c.q_lora_rank) : "";
    return fmt::format("latent, {} heads, {}kv_lora_rank {}, {}+{} / {} per head",
                       c.num_attention_heads, q, c.kv_lora_rank, c.qk_nope_head_dim,
                       c.qk_rope_head_dim, c.v_head_dim);
  }
  return fmt::format("{} heads of {}, {} for keys and values", c.num_attention_heads, c.head_dim,
                     c.num_key_value_heads);
}

std::string widths_line(const ModelConfig& c) {
  std::string line = fmt::format("hidden {}, feed-forward {}", c.hidden_size, c.intermediate_size);
  if (c.n_routed_experts > 0) line += fmt::format(", expert {}", c.moe_intermediate_size);
  return line;
}

std::string context_line(const ModelConfig& c) {
  std::string line = with_commas(c.max_position_embeddings);
  if (c.rope.kind != RopeConfig::Kind::kDefault) {
    line += fmt::format(" ({}, factor {}", rope_name(c.rope.kind), c.rope.factor);
    if (c.rope.original_max_position_embeddings > 0) {
      line += " from " + with_commas(static_cast<Index>(c.rope.original_max_position_embeddings));
    }
    line += ")";
  }
  return line;
}

std::string parameters_line(const ParameterCount& p) {
  std::string line = short_count(p.total);
  if (p.mtp > 0) line += fmt::format(" + {} for multi-token prediction", short_count(p.mtp));
  return line + fmt::format("; {} active a token", short_count(p.active));
}

std::string weights_line(const Facts& f) {
  if (!f.has_weights) {
    return fmt::format("no files; about {} in {}", format_bytes(f.weight_bytes),
                       f.config.fp8 ? "FP8" : "bf16");
  }
  std::vector<std::pair<DType, Facts::PerType>> types(f.types.begin(), f.types.end());
  std::ranges::sort(types, std::greater(),
                    [](const auto& t) { return std::pair(t.second.bytes, t.first); });
  std::string line = format_bytes(f.weight_bytes) + ":";
  for (const auto& [dtype, type] : types) {
    line += fmt::format("\n             {:<8} {:>10}  {} tensor{}", name(dtype),
                        format_bytes(type.bytes), with_commas(type.tensors),
                        type.tensors == 1 ? "" : "s");
    if (!type.repacked.empty()) line += fmt::format(", run as {}", type.repacked);
  }
  return line;
}

std::string cache_line(const Facts& f) {
  return fmt::format("{} bytes a token in {}; multi-head attention would take {} ({:.1f}x)",
                     with_commas(f.cache_bytes()), f.cache_value_bytes == 4 ? "f32" : "bf16",
                     with_commas(f.cache.mha_values_per_token * f.cache_value_bytes),
                     f.mha_factor());
}

std::string summary(const Facts& f, const std::string& path) {
  std::string out;
  const auto row = [&](std::string_view label, const std::string& text) {
    out += fmt::format("{:<13}{}\n", label, text);
  };
  row("model", fmt::format("{}, {}", name(f.config.family), printable(path)));
  row("layers", layers_line(f.config));
  row("attention", attention_line(f.config));
  row("widths", widths_line(f.config));
  row("vocabulary", with_commas(f.config.vocab_size) +
                        (f.config.tie_word_embeddings ? ", head tied to the embedding" : ""));
  row("context", context_line(f.config));
  row("parameters", parameters_line(f.parameters));
  row("weights", weights_line(f));
  row("cache", cache_line(f));
  row("memory", fmt::format("{}: weights {}, cache of {} tokens {}", format_bytes(f.memory_bytes()),
                            format_bytes(f.weight_memory()), with_commas(f.ctx),
                            format_bytes(f.cache_bytes() * f.ctx)));
  return out;
}

std::string tensor_lines(const Checkpoint& checkpoint) {
  std::string out;
  for (const TensorEntry& t : checkpoint.tensors()) {
    out += fmt::format("{:<8} {:>11}  [{}]  {}\n", name(t.view.dtype), format_bytes(t.view.n_bytes),
                       fmt::join(t.view.shape, ", "), printable(t.name));
  }
  return out;
}

// --- for programs -------------------------------------------------------------------------------

Json config_json(const ModelConfig& c) {
  Json j;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["hidden_size"] = c.hidden_size;
  j["intermediate_size"] = c.intermediate_size;
  j["num_attention_heads"] = c.num_attention_heads;
  if (c.is_mla()) {
    j["q_lora_rank"] = c.q_lora_rank;
    j["kv_lora_rank"] = c.kv_lora_rank;
    j["qk_nope_head_dim"] = c.qk_nope_head_dim;
    j["qk_rope_head_dim"] = c.qk_rope_head_dim;
    j["v_head_dim"] = c.v_head_dim;
  } else {
    j["num_key_value_heads"] = c.num_key_value_heads;
    j["head_dim"] = c.head_dim;
  }
  if (c.n_routed_experts > 0) {
    j["n_routed_experts"] = c.n_routed_experts;
    j["num_experts_per_tok"] = c.num_experts_per_tok;
    j["n_shared_experts"] = c.n_shared_experts;
    j["moe_intermediate_size"] = c.moe_intermediate_size;
    j["first_k_dense_replace"] = c.first_k_dense_replace;
    j["n_group"] = c.n_group;
    j["topk_group"] = c.topk_group;
  }
  j["vocab_size"] = c.vocab_size;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["rope_type"] = rope_name(c.rope.kind);
  j["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
  return j;
}

Json facts_json(const Facts& f, const Checkpoint& checkpoint, bool list_tensors) {
  Json j;
  j["path"] = checkpoint.path();
  j["model_type"] = name(f.config.family);
  j["config"] = config_json(f.config);
  j["parameters"] = {
      {"total", f.parameters.total}, {"active", f.parameters.active}, {"mtp", f.parameters.mtp}};
  j["weights"] = {{"bytes", f.weight_bytes},
                  {"estimated", !f.has_weights},
                  {"tensors", checkpoint.tensors().size()}};
  Json types = Json::object();
  for (const auto& [dtype, type] : f.types) {
    Json& entry = types[std::string(name(dtype))];
    entry = {{"tensors", type.tensors}, {"values", type.values}, {"bytes", type.bytes}};
    if (!type.repacked.empty()) entry["run_as"] = type.repacked;
  }
  j["weights"]["dtypes"] = types;
  j["cache"] = {{"dtype", f.cache_value_bytes == 4 ? "f32" : "bf16"},
                {"bytes_per_token", f.cache_bytes()},
                {"mha_bytes_per_token", f.cache.mha_values_per_token * f.cache_value_bytes},
                {"mha_factor", f.mha_factor()}};
  j["memory"] = {{"ctx", f.ctx},
                 {"weight_bytes", f.weight_memory()},
                 {"cache_bytes", f.cache_bytes() * f.ctx},
                 {"total_bytes", f.memory_bytes()}};
  if (list_tensors) {
    Json tensors = Json::array();
    for (const TensorEntry& t : checkpoint.tensors()) {
      tensors.push_back({{"name", t.name},
                         {"dtype", name(t.view.dtype)},
                         {"shape", t.view.shape},
                         {"bytes", t.view.n_bytes},
                         {"file", t.file}});
    }
    j["tensors"] = tensors;
  }
  return j;
}

}  // namespace

int inspect_command(Arguments arguments) {
  InspectFlags f;
  if (!parse(describe(f), arguments)) return 0;
  const auto checkpoint = open(find_model(f.model));
  const Facts facts = gather(*checkpoint, f.engine);
  if (f.json) {
    write_json(facts_json(facts, *checkpoint, f.tensors));
    return 0;
  }
  write_out(summary(facts, checkpoint->path()) +
            (f.tensors ? "\n" + tensor_lines(*checkpoint) : std::string()));
  return 0;
}

}  // namespace kogia::cli
