#include "train/corpus.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace kogia {

Corpus::Corpus(std::vector<Source> sources, Index sequence_length, std::uint64_t seed,
               std::vector<Index> token_bytes)
    : sources_(std::move(sources)),
      sequence_length_(sequence_length),
      seed_(seed),
      token_bytes_(std::move(token_bytes)),
      orders_(sources_.size()),
      taken_(sources_.size(), 0) {
  double sum = 0;
  for (const Source& s : sources_) {
    if (s.train->n_tokens() == 0) {
      throw Error(ErrorCode::kUsage, "a source of [data] has no text to learn from",
                  "is it empty, or is all of it held out (data.holdout)?");
    }
    sum += s.weight;
  }
  for (Source& s : sources_) s.weight /= sum;
}

// The source whose share lacks most; of equals the first.
std::size_t Corpus::next_source() {
  std::size_t best = 0;
  double most = -1;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const double lacking =
        sources_[i].weight * static_cast<double>(position_ + 1) - static_cast<double>(taken_[i]);
    if (lacking > most) best = i, most = lacking;
  }
  ++position_;
  ++taken_[best];
  return best;
}

// Fisher and Yates.
const Corpus::Order& Corpus::order_of(std::size_t source, Index epoch) {
  Order& order = orders_[source];
  if (order.epoch == epoch) return order;
  const TokenFile& file = *sources_[source].train;
  const Philox random(seed_, source, static_cast<std::uint64_t>(epoch));
  order.documents.resize(static_cast<std::size_t>(file.n_documents()));
  std::iota(order.documents.begin(), order.documents.end(), 0);
  for (std::size_t i = order.documents.size(); i > 1; --i) {
    std::swap(order.documents[i - 1], order.documents[random.below(i, i)]);
  }
  order.begins.clear();
  Index at = 0;
  for (const std::int32_t document : order.documents) {
    order.begins.push_back(at);
    at += file.document_tokens(document);
  }
  order.epoch = epoch;
  return order;
}

PackedRow Corpus::row_of(std::size_t source, Index number) {
  const TokenFile& file = *sources_[source].train;
  const Index per_epoch = file.n_tokens();
  PackedRow row;
  Index at = number * sequence_length_;
  const Index end = at + sequence_length_;
  while (at < end) {
    const Order& order = order_of(source, at / per_epoch);
    const Index inside = at % per_epoch;
    const auto after = std::ranges::upper_bound(order.begins, inside);
    auto i = static_cast<std::size_t>(after - order.begins.begin()) - 1;
    Index first = inside - order.begins[i];
    for (; i < order.documents.size() && at < end; ++i, first = 0) {
      const Index n = std::min(file.document_tokens(order.documents[i]) - first, end - at);
      if (n == 0) continue;
      row.document_begin.push_back(static_cast<Index>(row.ids.size()));
      file.append(order.documents[i], first, n, row.ids);
      at += n;
    }
  }
  return row;
}

std::vector<PackedRow> Corpus::rows(Index first, Index n) {
  if (first < position_) {
    position_ = 0;
    std::ranges::fill(taken_, 0);
  }
  while (position_ < first) next_source();
  std::vector<PackedRow> rows;
  for (Index i = 0; i < n; ++i) {
    const std::size_t source = next_source();
    rows.push_back(row_of(source, taken_[source] - 1));
  }
  return rows;
}

std::vector<PackedRow> Corpus::validation_rows(Index n) {
  std::vector<PackedRow> rows;
  for (const Source& s : sources_) {
    for (Index document = 0; document < s.held_out->n_documents(); ++document) {
      const Index length = s.held_out->document_tokens(document);
      for (Index at = 0; at < length;) {
        if (rows.empty() || static_cast<Index>(rows.back().ids.size()) == sequence_length_) {
          if (n > 0 && static_cast<Index>(rows.size()) == n) return rows;
          rows.emplace_back();
        }
        PackedRow& row = rows.back();
        const Index room = sequence_length_ - static_cast<Index>(row.ids.size());
        const Index some = std::min(room, length - at);
        row.document_begin.push_back(static_cast<Index>(row.ids.size()));
        s.held_out->append(document, at, some, row.ids);
        at += some;
      }
    }
  }
  return rows;
}

Index Corpus::n_train_tokens() const {
  Index n = 0;
  for (const Source& s : sources_) n += s.train->n_tokens();
  return n;
}
Index Corpus::n_held_out_tokens() const {
  Index n = 0;
  for (const Source& s : sources_) n += s.held_out->n_tokens();
  return n;
}

}  // namespace kogia
