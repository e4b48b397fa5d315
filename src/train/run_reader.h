#pragma once
// From the tree of a run file to the fields of a RunConfig.

#include <filesystem>
#include <string>
#include <string_view>

#include "train/run_fields.h"
#include "train/run_file.h"
#include "train/toml_tree.h"

namespace kogia {

/// Reads values into fields and refuses the others, each with its place.
class RunReader {
 public:
  RunReader(const TomlTree& tree, const std::filesystem::path& folder,
            const RunFileOptions& options)
      : tree_(tree), folder_(folder), options_(options) {}

  /// All sections; what is in [model] and no field goes into model.config.
  void read(RunConfig& config) const;

  /// "PLACE: NAME WHAT".
  [[noreturn]] void refuse(std::string_view name, std::string_view what,
                           std::string help = {}) const;

 private:
  using Json = nlohmann::ordered_json;
  struct Fill;  // one for each type of target

  void read_section(const std::string& section, const Json& values, RunConfig& config,
                    const std::vector<Field>& fields) const;
  [[noreturn]] void refuse_unknown(const std::string& section, const std::string& key,
                                   const std::vector<Field>& fields) const;
  [[noreturn]] void refuse_value(std::string_view name, const Json& value,
                                 std::string_view expected) const;
  Index to_index(const std::string& name, const Json& value, const Field& field) const;
  double to_double(const std::string& name, const Json& value, const Field& field) const;
  std::string to_text(const std::string& name, const Json& value) const;
  std::filesystem::path to_path(const std::string& name, const Json& value) const;
  void require_keys(const std::string& name, const Json& table,
                    const std::vector<std::string>& keys, std::size_t n_required) const;

  const TomlTree& tree_;
  const std::filesystem::path& folder_;
  const RunFileOptions& options_;
};

}  // namespace kogia
