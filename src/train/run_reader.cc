#include "train/run_reader.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "base/did_you_mean.h"
#include "base/error.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::string shown(const Json& value) {
  std::string text = toml_value(value);
  if (text.size() > 60) text = text.substr(0, 60) + "…";
  return text;
}

std::string range_words(const Field& field) {
  const std::string low = fmt::format("{} {}", field.above ? "above" : "from", field.low);
  if (std::isinf(field.high)) {
    return field.above ? low : fmt::format("of {} or more", field.low);
  }
  return fmt::format("{} {} {}", low, field.below ? "to below" : "to", field.high);
}

bool in_range(double x, const Field& field) {
  return (field.above ? x > field.low : x >= field.low) &&
         (field.below ? x < field.high : x <= field.high);
}

std::vector<std::string> keys_of(const std::string& section, const std::vector<Field>& fields) {
  std::vector<std::string> keys;
  for (const Field& field : fields) {
    if (field.section == section) keys.push_back(field.key);
  }
  if (section == "model") {
    keys.insert(keys.end(), model_config_keys().begin(), model_config_keys().end());
  }
  return keys;
}

std::vector<std::string> sections_of(const std::vector<Field>& fields) {
  std::vector<std::string> sections;
  for (const Field& field : fields) {
    if (sections.empty() || sections.back() != field.section) sections.push_back(field.section);
  }
  return sections;
}

}  // namespace

void RunReader::refuse(std::string_view name, std::string_view what, std::string help) const {
  throw Error(ErrorCode::kUsage, fmt::format("{}: {} {}", tree_.place(name), name, what),
              std::move(help));
}

void RunReader::refuse_value(std::string_view name, const Json& value,
                             std::string_view expected) const {
  refuse(name, fmt::format("is {}, expected {}", shown(value), expected));
}

Index RunReader::to_index(const std::string& name, const Json& value, const Field& field) const {
  if (!value.is_number_integer() || !in_range(value.get<double>(), field)) {
    refuse_value(name, value, "a whole number " + range_words(field));
  }
  return value.get<Index>();
}

double RunReader::to_double(const std::string& name, const Json& value, const Field& field) const {
  if (!value.is_number() || !in_range(value.get<double>(), field)) {
    refuse_value(name, value, "a number " + range_words(field));
  }
  return value.get<double>();
}

std::string RunReader::to_text(const std::string& name, const Json& value) const {
  if (!value.is_string()) refuse_value(name, value, "text in quotes");
  auto text = value.get<std::string>();
  if (text.empty() || text.find('\0') != std::string::npos) refuse_value(name, value, "some text");
  return text;
}

fs::path RunReader::to_path(const std::string& name, const Json& value) const {
  const std::string text = to_text(name, value);
  const auto below = [&](std::string_view root, const fs::path& folder) {
    if (folder.empty()) refuse(name, fmt::format("begins with {}, which is not known here", root));
    return folder / fs::path(text.substr(std::min(root.size() + 1, text.size())));
  };
  fs::path path;
  for (const auto& [root, folder] :
       {std::pair("~", options_.home), std::pair("$KOGIA_CACHE", options_.cache)}) {
    if (text == root || text.starts_with(std::string(root) + "/")) path = below(root, folder);
  }
  if (path.empty()) {
    const bool typed = tree_.place(name).starts_with("--set ");
    path = typed ? fs::path(text) : folder_ / text;
  }
  path = fs::absolute(path).lexically_normal();
  return path.has_filename() ? path : path.parent_path();  // "a/b/" is "a/b"
}

/// An object that has these keys and no others; the first n_required must be there.
void RunReader::require_keys(const std::string& name, const Json& table,
                             const std::vector<std::string>& keys, std::size_t n_required) const {
  if (!table.is_object()) {
    refuse_value(name, table, fmt::format("{{ {} = … }}", fmt::join(keys, " = …, ")));
  }
  for (const auto& [key, value] : table.items()) {
    if (std::ranges::find(keys, key) != keys.end()) continue;
    const auto meant = did_you_mean(key, keys);
    refuse(name + "." + key, "is a key that nothing knows",
           meant ? fmt::format("did you mean {}?", *meant)
                 : fmt::format("known here are {}", fmt::join(keys, ", ")));
  }
  for (std::size_t i = 0; i < n_required; ++i) {
    if (!table.contains(keys[i])) refuse(name, fmt::format("has no {}", keys[i]));
  }
}

struct RunReader::Fill {
  const RunReader& reader;
  const Field& field;
  const Json& value;
  const std::string name = field.name();

  void operator()(bool* to) const {
    if (!value.is_boolean()) reader.refuse_value(name, value, "true or false");
    *to = value.get<bool>();
  }
  void operator()(Index* to) const { *to = reader.to_index(name, value, field); }
  void operator()(double* to) const { *to = reader.to_double(name, value, field); }
  void operator()(std::string* to) const { *to = reader.to_text(name, value); }
  void operator()(fs::path* to) const { *to = reader.to_path(name, value); }
  void operator()(const Choice& choice) const {
    const auto at = value.is_string()
                        ? std::ranges::find(choice.words, value.get_ref<const std::string&>())
                        : choice.words.end();
    if (at == choice.words.end()) {
      reader.refuse_value(name, value,
                          fmt::format("one of \"{}\"", fmt::join(choice.words, "\", \"")));
    }
    choice.set(static_cast<std::size_t>(at - choice.words.begin()));
  }

  void operator()(RunConfig::Recompute* to) const {
    *to = {};
    if (value.is_boolean()) {
      if (value.get<bool>()) *to = {.norms = true, .swiglu = true, .up_projection = true};
      return;
    }
    constexpr std::string_view kExpected =
        "true, false or a list of \"norms\", \"swiglu\", \"up_projection\"";
    if (!value.is_array()) reader.refuse_value(name, value, kExpected);
    for (const Json& part : value) {
      if (part == "norms") {
        to->norms = true;
      } else if (part == "swiglu") {
        to->swiglu = true;
      } else if (part == "up_projection") {
        to->up_projection = true;
      } else {
        reader.refuse_value(name, value, kExpected);
      }
    }
  }

  void operator()(std::vector<RunConfig::Source>* to) const {
    to->clear();
    const Field weights{.section = {}, .key = {}, .target = {}, .above = true};
    for_each_entry("a list of { path = \"…\" }", [&](const std::string& at, const Json& entry) {
      RunConfig::Source& source = to->emplace_back();
      if (entry.is_string()) {
        source.path = reader.to_path(at, entry);
        return;
      }
      reader.require_keys(at, entry, {"path", "weight", "field"}, 1);
      source.path = reader.to_path(at + ".path", entry["path"]);
      if (entry.contains("weight")) {
        source.weight = reader.to_double(at + ".weight", entry["weight"], weights);
      }
      if (entry.contains("field")) source.field = reader.to_text(at + ".field", entry["field"]);
    });
    if (to->empty()) reader.refuse_value(name, value, "at least one source");
  }

  void operator()(std::vector<RunConfig::StepValue>* to) const {
    to->clear();
    if (value.is_number()) {
      to->push_back({.step = 0, .value = reader.to_double(name, value, field)});
      return;
    }
    for_each_entry("a number or a list of { step = …, value = … }", [&](const std::string& at,
                                                                        const Json& entry) {
      reader.require_keys(at, entry, {"step", "value"}, 2);
      to->push_back({.step = step(at, entry, to->empty() ? -1 : to->back().step),
                     .value = reader.to_double(at + ".value", entry["value"], field)});
    });
    if (to->empty() || to->front().step != 0) {
      reader.refuse_value(name, value, "a list whose first step is 0");
    }
  }

  void operator()(std::vector<RunConfig::RampStep>* to) const {
    to->clear();
    Field size = field;
    size.low = 1;
    size.high = kMostSteps;
    for_each_entry("a list of { step = …, batch_size = … }", [&](const std::string& at,
                                                                 const Json& entry) {
      reader.require_keys(at, entry, {"step", "batch_size"}, 2);
      to->push_back({.step = step(at, entry, to->empty() ? 0 : to->back().step),
                     .batch_size = reader.to_index(at + ".batch_size", entry["batch_size"], size)});
    });
  }

 private:
  template <class Visit>
  void for_each_entry(std::string_view expected, const Visit& visit) const {
    if (!value.is_array()) reader.refuse_value(name, value, expected);
    for (std::size_t i = 0; i < value.size(); ++i) visit(fmt::format("{}.{}", name, i), value[i]);
  }
  /// Steps of a list rise.
  Index step(const std::string& at, const Json& entry, Index before) const {
    Field steps = field;
    steps.low = static_cast<double>(before + 1);
    steps.high = kMostSteps;
    return reader.to_index(at + ".step", entry["step"], steps);
  }
};

void RunReader::refuse_unknown(const std::string& section, const std::string& key,
                               const std::vector<Field>& fields) const {
  const std::vector<std::string> keys = keys_of(section, fields);
  std::string help = fmt::format("[{}] has {}", section, fmt::join(keys, ", "));
  if (const auto meant = did_you_mean(key, keys)) help = fmt::format("did you mean {}?", *meant);
  for (const std::string& other : sections_of(fields)) {
    const std::vector<std::string> theirs = keys_of(other, fields);
    if (std::ranges::find(theirs, key) != theirs.end()) {
      help = fmt::format("it belongs in [{}]", other);
    }
  }
  refuse(section + "." + key, "is a key that nothing knows", help);
}

void RunReader::read_section(const std::string& section, const Json& values, RunConfig& config,
                             const std::vector<Field>& fields) const {
  if (!values.is_object()) refuse_value(section, values, fmt::format("a section, [{}]", section));
  for (const auto& [key, value] : values.items()) {
    const auto field = std::ranges::find_if(
        fields, [&](const Field& f) { return f.section == section && f.key == key; });
    if (field != fields.end()) {
      std::visit(Fill{*this, *field, value}, field->target);
    } else if (section == "model" &&
               (options_.resolved ||
                std::ranges::find(model_config_keys(), key) != model_config_keys().end())) {
      config.model.config[key] = value;
    } else {
      refuse_unknown(section, key, fields);
    }
  }
}

void RunReader::read(RunConfig& config) const {
  const std::vector<Field> fields = run_fields(config);
  const std::vector<std::string> sections = sections_of(fields);
  for (const auto& [section, values] : tree_.values.items()) {
    if (std::ranges::find(sections, section) != sections.end()) {
      read_section(section, values, config, fields);
      continue;
    }
    std::string help = fmt::format("a run file has [{}]", fmt::join(sections, "], ["));
    if (const auto meant = did_you_mean(section, sections)) {
      help = fmt::format("did you mean [{}]?", *meant);
    }
    for (const std::string& other : sections) {  // a key without its section
      const std::vector<std::string> theirs = keys_of(other, fields);
      if (std::ranges::find(theirs, section) != theirs.end()) {
        help = fmt::format("it belongs in [{}]", other);
      }
    }
    refuse(section, "is a key that nothing knows", help);
  }
}

}  // namespace kogia
