#pragma once
// What a model expects after each token of a text, kept in a file, and how far another model (or
// the same one in another arithmetic) is from it.
//
// The file is what llama-perplexity writes with --kl-divergence-base and reads with
// --kl-divergence, so that either program can be measured against the other:
//
//   "_logits_"  u32 ctx  i32 vocab  i32 windows  i32 ids[windows · ctx]
//   for each window, for each position of ctx/2 … ctx - 2:
//     f32 step  f32 least  u16 q[vocab, and a zero where that is odd]     log p = step q + least
//
// Whatever is more than 16 below the best is stored as 0.

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "base/atomic_file.h"
#include "base/mapped_file.h"
#include "text/tokenizer.h"

namespace kogia {

struct LogitsShape {
  Index ctx = 0, vocab = 0, windows = 0;

  Index first_pos() const { return ctx / 2; }  // of the rows that are kept of a window
  Index rows_per_window() const { return ctx - 1 - ctx / 2; }
  Index row_bytes() const { return 8 + (vocab + 1) / 2 * 4; }
  Index header_bytes() const { return 20 + windows * ctx * 4; }
  Index file_bytes() const { return header_bytes() + windows * rows_per_window() * row_bytes(); }
};

/// Writes as a stream; without commit() nothing appears at the target.
class LogitsWriter {
 public:
  /// ids: windows · ctx. Throws where the disk has no room.
  LogitsWriter(const std::filesystem::path& target, const LogitsShape& shape,
               std::span<const TokenId> ids);
  /// The next row, in the order of the file.
  void append(std::span<const float> logits);
  void commit();

 private:
  AtomicFile file_;
  LogitsShape shape_;
  Index rows_ = 0;
  std::vector<std::byte> row_;
};

/// A row as it is stored.
struct KeptRow {
  float step = 0, least = 0;
  const std::byte* codes = nullptr;  // u16 each, perhaps unaligned

  double log_prob(Index id) const;
};

/// How far logits are from a kept row. The sum runs over what the row holds as more likely than
/// e^-16; the rest is not known well enough.
struct Divergence {
  double kl = 0;        // Σ p_kept (log p_kept - log p), in nats
  double nll = 0;       // -log p of the token that follows
  double nll_kept = 0;  // the same, by the row
  bool same_top = false;
};
Divergence divergence(const KeptRow& kept, std::span<const float> logits, TokenId next);

/// Mapped; everything is checked on opening. Throws Error naming the file.
class LogitsFile {
 public:
  static LogitsFile open(const std::filesystem::path& path);
  const LogitsShape& shape() const { return shape_; }
  std::span<const TokenId> ids() const { return ids_; }
  /// `i` of rows_per_window().
  KeptRow row(Index window, Index i) const;

 private:
  MappedFile file_;
  LogitsShape shape_;
  std::vector<TokenId> ids_;
};

}  // namespace kogia
