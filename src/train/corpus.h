#pragma once
// Rows of a run from its sources: a pure function of the seed and the number of the row.
//
// Each source is an endless stream of tokens: its documents in an order drawn anew for each epoch,
// end to end. Row r of the run comes from the source that is furthest behind its weight, and takes
// the next sequence_length tokens of that stream. What of a document does not fit begins the
// source's next row as a text of its own: its first token is not predicted, its context is lost.

#include <cstdint>
#include <memory>
#include <vector>

#include "train/row_source.h"
#include "train/token_file.h"

namespace kogia {

class Corpus final : public RowSource {
 public:
  struct Source {
    std::unique_ptr<TokenFile> train, held_out;
    double weight = 1;
  };
  /// Throws Error (usage) where a source has nothing to learn from.
  Corpus(std::vector<Source> sources, Index sequence_length, std::uint64_t seed,
         std::vector<Index> token_bytes = {});

  /// Cost: where `first` is not where the last call ended, which source each row before it came
  /// from is counted again (10 million rows a second).
  std::vector<PackedRow> rows(Index first, Index n) override;
  std::vector<PackedRow> validation_rows(Index n) override;
  std::span<const Index> token_bytes() const override { return token_bytes_; }

  Index n_train_tokens() const;
  Index n_held_out_tokens() const;

 private:
  /// Documents of an epoch in their order, and where each begins in it.
  struct Order {
    Index epoch = -1;
    std::vector<std::int32_t> documents;
    std::vector<Index> begins;
  };
  std::size_t next_source();
  PackedRow row_of(std::size_t source, Index number);
  const Order& order_of(std::size_t source, Index epoch);

  std::vector<Source> sources_;
  Index sequence_length_;
  std::uint64_t seed_;
  std::vector<Index> token_bytes_;
  std::vector<Order> orders_;  // of sources_
  std::vector<Index> taken_;   // rows of each source before position_
  Index position_ = 0;
};

}  // namespace kogia
