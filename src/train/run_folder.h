#pragma once
// The folder of a run: its checkpoints, the newest of them under `latest`.
//
//   DIR/step-00000500/   config.json, model.safetensors, tokenizer files: a Hugging Face folder
//     kogia/             optimizer/model.safetensors, run.toml, state.json, checksums.json
//   DIR/latest           a link to the newest
//
// A checkpoint appears whole or not at all: it is made beside its place, brought to the disk and
// renamed. What holds it together is checksums.json, written last; loading verifies every file.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/optimizer.h"
#include "train/parameters.h"

namespace kogia {

/// A file that goes into every checkpoint beside the weights: tokenizer.json and the like.
struct ExtraFile {
  std::string name, text;
};

/// The tokenizer as a checkpoint has it: its files, and the ids that config.json names.
struct CheckpointTokenizer {
  std::vector<ExtraFile> files = {};
  std::vector<Index> bos = {}, eos = {};

  /// Of a file; empty where there is none.
  std::string_view text(std::string_view name) const;
};

/// What is saved beside weights and moments.
struct RunState {
  Index step = 0;        // steps done
  std::string run_toml;  // the resolved run file
  CheckpointTokenizer tokenizer = {};
};

class RunFolder {
 public:
  /// Makes the folder if need be. Throws Error naming it where that is not possible.
  explicit RunFolder(std::filesystem::path folder);

  /// Writes the checkpoint of state.step, points `latest` at it and removes all but the newest
  /// `keep` (0: none is removed).
  void save(const RunState& state, Parameters& parameters, Optimizer& optimizer, Index keep);

  struct Found {
    std::filesystem::path path;
    Index step = 0;
    std::string run_toml;
    std::vector<std::string> skipped;  // newer ones that are damaged, each with what is wrong
  };
  /// The newest checkpoint all of whose files are as they were written; nullopt: there is none.
  /// Throws Error if there are checkpoints and all are damaged.
  std::optional<Found> newest() const;
  /// Moments of the optimizer. (Weights: Parameters of Checkpoint::open(found.path).)
  static void load_optimizer(const std::filesystem::path& checkpoint,
                             const std::vector<Parameter>& parameters, Optimizer& optimizer);
  /// Removes every checkpoint.
  void clear();

  const std::filesystem::path& path() const { return folder_; }

 private:
  std::vector<std::filesystem::path> checkpoints() const;  // oldest first
  std::filesystem::path folder_;
};

}  // namespace kogia
