#pragma once
// The fields of a run file as one table: read, written, compared and documented from it.

#include <functional>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "train/run_config.h"

namespace kogia {

/// Of steps and rows: far above any run, far below what overflows.
constexpr double kMostSteps = 1e12;

/// One of some words; its target is an enum.
struct Choice {
  std::vector<std::string> words;
  std::function<std::size_t()> get;  // index into words
  std::function<void(std::size_t)> set;
};

struct Field {
  using Target = std::variant<bool*, Index*, double*, std::string*, std::filesystem::path*, Choice,
                              std::vector<RunConfig::Source>*, std::vector<RunConfig::StepValue>*,
                              std::vector<RunConfig::RampStep>*, RunConfig::Recompute*>;

  std::string section, key;
  Target target;
  // Limits of a number; `above` excludes `low` itself.
  double low = 0, high = std::numeric_limits<double>::infinity();
  bool above = false;
  bool below = false;    // excludes `high` itself
  bool compared = true;  // a run with another value is another run
  std::string name() const { return section + "." + key; }
};

/// All fields but those that [model] hands on to config.json, in the order in which they are
/// written. They point into `config`.
std::vector<Field> run_fields(RunConfig& config);

/// The value of a field as JSON; null where it is unset.
nlohmann::ordered_json field_value(const Field& field);

/// What a run file may say of the model beyond Kogia's own keys: names of config.json.
const std::vector<std::string>& model_config_keys();

}  // namespace kogia
