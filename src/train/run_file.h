#pragma once
// Run files: what to train and how, in TOML.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "train/run_config.h"

namespace kogia {

struct RunFileOptions {
  /// "trainer.steps=60": put over the file, the last one counting (TomlTree::set).
  std::vector<std::string> overrides = {};
  std::filesystem::path home = {};  // what a leading ~ stands for
  std::filesystem::path cache =
      {};  // what a leading $KOGIA_CACHE stands for; its tokens/ is data.cache
  /// The file is one that to_toml() wrote: what it says is taken as it stands, and what it names
  /// need not be there any more.
  bool resolved = false;
};

/// Reads a run file and fills in everything that it leaves open. Paths in it are relative to its
/// folder, those of overrides to the working folder.
///
/// Errors  a key that nothing knows, a value of the wrong type or an impossible one, a file that is
///         not there: a usage Error "FILE:LINE: NAME is …, expected …", or with the override in
///         place of FILE:LINE
RunConfig read_run_file(const std::filesystem::path& path, const RunFileOptions& options);
/// The same of its text; `path` is for messages and for paths relative to it.
RunConfig parse_run_file(std::string_view text, const std::filesystem::path& path,
                         const RunFileOptions& options);

/// The whole configuration as a run file: the same text for the same configuration.
std::string to_toml(const RunConfig& config);

/// [model] as the engine understands it.
ModelConfig model_config(const RunConfig& config);

/// A field of which two configurations have different values.
struct RunDifference {
  std::string field, first, second;  // values as TOML; "unset" where there is none
};

/// The first field that makes two runs different runs; nullopt where one may go on with the other's
/// checkpoint. Steps, threads, what is logged, evaluated and kept and where the tokens are cached
/// do not count.
std::optional<RunDifference> first_difference(const RunConfig& a, const RunConfig& b);

}  // namespace kogia
