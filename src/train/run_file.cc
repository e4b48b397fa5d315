#include "train/run_file.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/hf_config.h"
#include "train/run_reader.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;
constexpr Index kUnset = RunConfig::kUnset;

bool unset(double x) { return x == static_cast<double>(kUnset); }

// --- [model] ----------------------------------------------------------------------------------

/// Without null, which TOML has not and which says no more than a missing key.
Json without_null(const Json& value) {
  if (!value.is_structured()) return value;
  Json out = value.is_object() ? Json::object() : Json::array();
  for (const auto& [key, member] : value.items()) {
    if (member.is_null()) continue;
    if (value.is_object()) {
      out[key] = without_null(member);
    } else {
      out.push_back(without_null(member));
    }
  }
  return out;
}

/// config.json of `from`, under what the run file says itself.
void take_config_from(const RunReader& reader, RunConfig::Model& model) {
  const bool folder = fs::is_directory(model.from);
  const fs::path file = folder ? model.from / "config.json" : model.from;
  if (!folder && file.extension() != ".json") {
    reader.refuse("model.from",
                  fmt::format("is {}, expected a folder with config.json, or such a "
                              "file",
                              file.string()),
                  "`kogia convert` makes a folder of a GGUF");
  }
  if (!fs::is_regular_file(file)) {
    reader.refuse("model.from", fmt::format("needs {}, which is not there", file.string()));
  }
  if (model.weights && !folder) {
    reader.refuse("model.weights", "is true, but model.from is no folder with weights");
  }
  const MappedFile mapped = MappedFile::open(file);
  (void)HfConfig::parse(mapped.text(), file.string());  // refuses what is no bounded object
  Json config = without_null(Json::parse(mapped.text()));
  for (const auto& [key, value] : model.config.items()) config[key] = value;
  model.config = std::move(config);
}

/// Makes "FILE: hidden_size is …" of the engine's check into "FILE:LINE: model.hidden_size is …".
std::string with_line(const std::string& message, const TomlTree& tree) {
  const std::string begin = tree.file + ": ";
  if (!message.starts_with(begin)) return message;
  const std::string rest = message.substr(begin.size());
  const std::size_t end = rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.");
  return fmt::format("{}: model.{}", tree.place("model." + rest.substr(0, end)), rest);
}

ModelConfig parse_model(const RunConfig::Model& model, const std::string& file) {
  return ModelConfig::from_hf(HfConfig::parse(model.config.dump(), file));
}

void resolve_model(const RunReader& reader, const TomlTree& tree, RunConfig& c) {
  if (c.model.weights && c.model.from.empty()) {
    reader.refuse("model.weights", "is true, but there is no model.from to take them from");
  }
  Json& config = c.model.config;
  if (!config.contains("model_type")) {
    reader.refuse("model", "has no model_type",
                  "for example: model_type = \"deepseek_v3\", or from = \"CHECKPOINT\"");
  }
  if (!config.contains("max_position_embeddings")) {
    config["max_position_embeddings"] = c.data.sequence_length;
  }
  if (!config.contains("initializer_range")) config["initializer_range"] = 0.02;
  try {
    const ModelConfig model = parse_model(c.model, tree.file);
    if (model.max_position_embeddings < c.data.sequence_length) {
      reader.refuse("data.sequence_length",
                    fmt::format("is {}, more than the max_position_embeddings of the model, {}",
                                c.data.sequence_length, model.max_position_embeddings));
    }
  } catch (const Error& error) {
    throw Error(ErrorCode::kUsage, with_line(error.what(), tree), error.help());
  }
  if (const Json& range = config["initializer_range"];
      !range.is_number() || !(range.get<double>() > 0) || range.get<double>() > 1e3) {
    reader.refuse("model.initializer_range",
                  fmt::format("is {}, expected a number above 0", toml_value(range)));
  }
}

// --- [data] -----------------------------------------------------------------------------------

bool is_text_file(const fs::path& path) {
  const std::string ending = path.extension().string();
  const bool packed = ending == ".gz" || ending == ".zst";
  const std::string inner = packed ? path.stem().extension().string() : ending;
  return inner == ".txt" || inner == ".jsonl";
}

void check_files(const RunReader& reader, const RunConfig::Data& data) {
  for (std::size_t i = 0; i < data.sources.size(); ++i) {
    const fs::path& path = data.sources[i].path;
    const std::string name = fmt::format("data.sources.{}", i);
    if (!is_text_file(path)) {
      reader.refuse(name, fmt::format("is {}, a file of another kind", path.string()),
                    "expected .txt or .jsonl, or one of them with .gz or .zst behind it");
    }
    if (!fs::is_regular_file(path)) {
      reader.refuse(name, fmt::format("is {}, which is not there", path.string()));
    }
  }
  if (!fs::is_regular_file(data.tokenizer)) {
    reader.refuse("data.tokenizer",
                  fmt::format("is {}, which is not there", data.tokenizer.string()),
                  "`kogia tokenizer train` makes a tokenizer.json");
  }
}

void resolve_data(const RunReader& reader, RunConfig& c, const RunFileOptions& options) {
  if (c.data.sources.empty()) {
    reader.refuse("data.sources", "is missing",
                  "for example: sources = [{ path = \"corpus.jsonl\" }]");
  }
  if (c.data.sequence_length == kUnset) {
    reader.refuse("data.sequence_length", "is missing", "for example: sequence_length = 512");
  }
  if (c.data.tokenizer.empty() && !c.model.from.empty()) {
    c.data.tokenizer = c.model.from;  // its folder's
    if (c.data.tokenizer.extension() == ".json") c.data.tokenizer.remove_filename();
  }
  if (c.data.tokenizer.empty()) {
    reader.refuse("data.tokenizer", "is missing", "for example: tokenizer = \"tokenizer.json\"");
  }
  if (!options.resolved) {
    if (fs::is_directory(c.data.tokenizer)) c.data.tokenizer /= "tokenizer.json";
    check_files(reader, c.data);
  }
  if (c.data.cache.empty()) {
    if (options.cache.empty()) {
      reader.refuse("data.cache", "is missing, and there is no cache folder to use");
    }
    c.data.cache = fs::absolute(options.cache / "tokens").lexically_normal();
  }
}

// --- [trainer], [schedule] and what hangs on them ---------------------------------------------

void resolve_trainer(const RunReader& reader, RunConfig& c) {
  RunConfig::Trainer& t = c.trainer;
  if (t.steps == kUnset) reader.refuse("trainer.steps", "is missing", "for example: steps = 1000");
  if (unset(c.optimizer.lr)) reader.refuse("optimizer.lr", "is missing", "for example: lr = 1e-3");
  if (t.micro_batch_size == kUnset) t.micro_batch_size = t.batch_size;
  Index most = t.batch_size;
  for (const auto& [step, size] : c.schedule.batch_ramp) most = std::max(most, size);
  if (t.micro_batch_size > most) {
    reader.refuse("trainer.micro_batch_size",
                  fmt::format("is {}, more than the {} rows of a step", t.micro_batch_size, most));
  }
}

void refuse_if_given(const RunReader& reader, const RunConfig::Schedule& s, bool falls) {
  const auto no_use = [&](const char* name, bool given, const char* kinds) {
    if (!given) return;
    reader.refuse(name, "has no meaning for this schedule.kind",
                  fmt::format("it belongs to {}", kinds));
  };
  const char* falling = "cosine, linear, wsd and v3";
  no_use("schedule.min_lr", !falls && !unset(s.min_lr), falling);
  no_use("schedule.decay_start", !falls && s.decay_start != kUnset, falling);
  no_use("schedule.decay_steps", !falls && s.decay_steps != kUnset, falling);
  const bool v3 = s.kind == ScheduleKind::kV3;
  no_use("schedule.final_start", !v3 && s.final_start != kUnset, "v3");
  no_use("schedule.final_lr", !v3 && !unset(s.final_lr), "v3");
}

/// The step at which V3 had seen this many of its 14.8T tokens, in thousandths of T, in a run of so
/// many steps.
Index v3_step(Index steps, Index tokens) { return (steps * tokens + 7400) / 14800; }

template <class T>
void set_default(T& to, T value) {
  if (to == static_cast<T>(kUnset)) to = value;
}

/// DeepSeek-V3, arXiv:2412.19437 §4.2: constant to 10T tokens, cosine to a tenth over 4.3T, that
/// for 333B, then 7.3e-6 instead of 2.2e-4; λ 0.3 for 10T, then 0.1; γ 0.001 for 14.3T, then 0.
void resolve_v3(RunConfig& c) {
  RunConfig::Schedule& s = c.schedule;
  const Index steps = c.trainer.steps;
  set_default(s.warmup_steps, steps / 120);
  set_default(s.decay_start, std::max(s.warmup_steps, v3_step(steps, 10000)));
  set_default(s.decay_steps, std::max<Index>(v3_step(steps, 14300) - s.decay_start, 0));
  set_default(s.final_start, std::max(s.decay_start + s.decay_steps, v3_step(steps, 14633)));
  set_default(s.min_lr, c.optimizer.lr / 10);
  set_default(s.final_lr, std::min(s.min_lr, c.optimizer.lr * 7.3 / 220));
  set_default(c.experts.bias_update_until, v3_step(steps, 14300));
  if (c.mtp.loss_weight.empty()) {
    c.mtp.loss_weight = {{.step = 0, .value = 0.3}};
    if (const Index later = v3_step(steps, 10000); later > 0) {
      c.mtp.loss_weight.push_back({.step = later, .value = 0.1});
    }
  }
}

void resolve_schedule(const RunReader& reader, RunConfig& c) {
  RunConfig::Schedule& s = c.schedule;
  const Index steps = c.trainer.steps;
  const bool falls = s.kind != ScheduleKind::kConstant;
  refuse_if_given(reader, s, falls);
  if (s.kind == ScheduleKind::kV3) resolve_v3(c);
  set_default<Index>(s.warmup_steps, 0);
  if (c.mtp.loss_weight.empty()) c.mtp.loss_weight = {{.step = 0, .value = 0.3}};
  if (!falls) return;
  set_default<double>(s.min_lr, 0);
  if (s.kind == ScheduleKind::kWsd) {
    set_default(s.decay_steps, std::max<Index>(steps / 10, 1));
    set_default(s.decay_start, std::max(s.warmup_steps, steps - s.decay_steps));
  }
  set_default(s.decay_start, s.warmup_steps);
  set_default(s.decay_steps, std::max<Index>(steps - s.decay_start, 0));
  if (s.decay_start < s.warmup_steps) {
    reader.refuse("schedule.decay_start", fmt::format("is {}, before the {} steps of warm-up end",
                                                      s.decay_start, s.warmup_steps));
  }
  if (s.min_lr > c.optimizer.lr) {
    reader.refuse("schedule.min_lr",
                  fmt::format("is {}, above optimizer.lr, {}", s.min_lr, c.optimizer.lr));
  }
  if (s.kind == ScheduleKind::kV3 && s.final_start < s.decay_start + s.decay_steps) {
    reader.refuse("schedule.final_start",
                  fmt::format("is {}, before the decay ends at step {}", s.final_start,
                              s.decay_start + s.decay_steps));
  }
}

// --- writing and comparing --------------------------------------------------------------------

/// Sections in order, each an object of what is set.
Json to_tree(RunConfig config) {
  Json tree = Json::object();
  for (const Field& field : run_fields(config)) {
    Json& section = tree[field.section];
    if (section.is_null()) section = Json::object();
    if (Json value = field_value(field); !value.is_null()) section[field.key] = std::move(value);
  }
  for (const auto& [key, value] : config.model.config.items()) tree["model"][key] = value;
  return tree;
}

std::string shown(const Json* value) { return value == nullptr ? "unset" : toml_value(*value); }

const Json* member(const Json& object, const std::string& key) {
  const auto at = object.find(key);
  return at == object.end() ? nullptr : &*at;
}

/// The first difference below two values, or between them.
std::optional<RunDifference> compare(const std::string& name, const Json* a, const Json* b) {
  if (a != nullptr && b != nullptr) {
    if (*a == *b) return {};
    const bool lists = a->is_array() && b->is_array() && a->size() == b->size();
    for (std::size_t i = 0; lists && i < a->size(); ++i) {
      if (auto found = compare(fmt::format("{}.{}", name, i), &(*a)[i], &(*b)[i])) return found;
    }
    if (a->is_object() && b->is_object()) {
      for (const auto& [key, value] : a->items()) {
        if (auto found = compare(name + "." + key, &value, member(*b, key))) return found;
      }
      for (const auto& [key, value] : b->items()) {
        if (!a->contains(key)) return compare(name + "." + key, nullptr, &value);
      }
      return {};  // only the order differs
    }
  } else if (a == b) {
    return {};
  }
  return RunDifference{.field = name, .first = shown(a), .second = shown(b)};
}

}  // namespace

RunConfig parse_run_file(std::string_view text, const fs::path& path,
                         const RunFileOptions& options) {
  TomlTree tree = TomlTree::parse(text, path.string());
  for (const std::string& override : options.overrides) tree.set(override);
  const fs::path folder = fs::absolute(path).parent_path();
  const RunReader reader(tree, folder, options);
  RunConfig config;
  reader.read(config);
  if (!config.model.from.empty() && !options.resolved) take_config_from(reader, config.model);
  resolve_data(reader, config, options);
  resolve_model(reader, tree, config);
  resolve_trainer(reader, config);
  resolve_schedule(reader, config);
  return config;
}

RunConfig read_run_file(const fs::path& path, const RunFileOptions& options) {
  const MappedFile file = MappedFile::open(path);
  return parse_run_file(file.text(), path, options);
}

std::string to_toml(const RunConfig& config) {
  std::string text;
  const Json tree = to_tree(config);
  for (const auto& [section, values] : tree.items()) {
    text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    for (const auto& [key, value] : values.items()) {
      text += fmt::format("{} = {}\n", toml_key(key), toml_value(value));
    }
  }
  return text;
}

ModelConfig model_config(const RunConfig& config) { return parse_model(config.model, "[model]"); }

std::optional<RunDifference> first_difference(const RunConfig& a, const RunConfig& b) {
  Json first = to_tree(a), second = to_tree(b);
  RunConfig any;
  for (const Field& field : run_fields(any)) {
    if (field.compared) continue;
    first[field.section].erase(field.key);
    second[field.section].erase(field.key);
  }
  for (const auto& [section, values] : first.items()) {
    if (auto found = compare(section, &values, member(second, section))) return found;
  }
  return {};
}

}  // namespace kogia
