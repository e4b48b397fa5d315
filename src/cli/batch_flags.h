#pragma once
// Flags of commands that answer many requests at once, or keep what they computed.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command_line.h"
#include "infer/batcher.h"
#include "infer/disk_tier.h"
#include "infer/page_store.h"

namespace kogia::cli {

/// Pages on disk under the tree in memory. Outlives the batcher.
struct DiskCache {
  std::unique_ptr<PageStore> store;
  std::unique_ptr<DiskTier> tier;  // null: none was asked for
};

struct BatchFlags {
  std::string speculate = "none", cache_dir, cache_size = "8GiB";
  Index max_sequences = 256, step_tokens = 0;

  /// --speculate, --cache-dir, --cache-size
  std::vector<OptionRow> rows();
  /// --max-sequences, --step-tokens
  std::vector<OptionRow> many_rows();
  /// Refuses what cannot be, before a model is loaded.
  void check() const;

  /// Whether the model is to be opened with its layers of multi-token prediction.
  bool needs_mtp() const { return speculate == "mtp"; }

  DiskCache open_cache(Engine& engine) const;
  BatcherOptions options(const DiskCache& cache) const;
};

/// "20GiB", "20G", "500 MB" (all by 1024), "123456". Empty: it is none of these.
std::optional<Index> parse_bytes(std::string_view text);

}  // namespace kogia::cli
