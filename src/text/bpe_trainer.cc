#include "text/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <queue>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/interrupt.h"
#include "text/byte_level.h"
#include "text/unicode.h"

namespace kogia {
namespace {

constexpr std::size_t kControlTokens = 3;
constexpr std::int64_t kNormal = 1, kControl = 3, kUserDefined = 4;

using Pair = std::pair<TokenId, TokenId>;

struct PairHash {
  std::size_t operator()(const Pair& p) const {
    const auto x = static_cast<std::uint64_t>(static_cast<std::uint32_t>(p.first)) << 32 |
                   static_cast<std::uint32_t>(p.second);
    return static_cast<std::size_t>((x ^ x >> 31) * 0x9E3779B97F4A7C15u);
  }
};

/// A distinct piece of the corpus as tokens so far.
struct Word {
  std::vector<TokenId> tokens;
  std::int64_t count = 0;
};

struct PairState {
  std::int64_t count = 0;            // in the whole corpus
  std::vector<std::uint32_t> words;  // where it may stand
};

/// A pair with the count that it had when it was put into the queue.
struct Candidate {
  std::int64_t count;
  Pair pair;
  // The largest is taken first: most frequent, then lowest ids.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.count != b.count ? a.count < b.count : a.pair > b.pair;
  }
};

std::string spelt(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) append_utf8(text, byte_to_char(static_cast<unsigned char>(byte)));
  return text;
}

/// The merging itself.
class Merger {
 public:
  Merger(std::vector<Word> words, std::vector<std::string>& tokens)
      : words_(std::move(words)), tokens_(tokens) {
    for (TokenId id = 0; id < static_cast<TokenId>(tokens.size()); ++id) {
      by_text_.emplace(tokens[static_cast<std::size_t>(id)], id);
    }
    for (std::uint32_t w = 0; w < words_.size(); ++w) {
      const Word& word = words_[w];
      for (std::size_t i = 0; i + 1 < word.tokens.size(); ++i) {
        note({word.tokens[i], word.tokens[i + 1]}, word.count, w);
      }
    }
    for (const auto& [pair, state] : pairs_) queue_.push({state.count, pair});
  }

  /// The most frequent pair; empty: none is as frequent as that.
  std::optional<Pair> next(std::int64_t min_count) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const std::int64_t count = pairs_[top.pair].count;
      if (count == top.count && count >= min_count) return top.pair;
      if (count == top.count) return {};
      if (count > 0) queue_.push({count, top.pair});
    }
    return {};
  }

  /// Joins it wherever it stands. Its text may be a token already, made of other parts.
  void merge(const Pair& pair) {
    const std::string text = tokens_[static_cast<std::size_t>(pair.first)] +
                             tokens_[static_cast<std::size_t>(pair.second)];
    const auto [known, is_new] = by_text_.emplace(text, static_cast<TokenId>(tokens_.size()));
    if (is_new) tokens_.push_back(text);
    const std::vector<std::uint32_t> where = std::move(pairs_[pair].words);
    pairs_[pair] = {};
    changed_.clear();
    for (const std::uint32_t w : where) merge_in(w, pair, known->second);
    std::ranges::sort(changed_);
    const auto rest = std::ranges::unique(changed_);
    changed_.erase(rest.begin(), rest.end());
    for (const Pair& p : changed_) {
      if (const std::int64_t count = pairs_[p].count; count > 0) queue_.push({count, p});
    }
  }

 private:
  void note(const Pair& pair, std::int64_t count, std::uint32_t word) {
    PairState& state = pairs_[pair];
    state.count += count;
    if (state.words.empty() || state.words.back() != word) state.words.push_back(word);
  }

  // From left to right; what stood beside the pair stands beside the new token now.
  void merge_in(std::uint32_t w, const Pair& pair, TokenId made) {
    Word& word = words_[w];
    auto& t = word.tokens;
    std::size_t to = 0;
    for (std::size_t i = 0; i < t.size(); ++i) {
      if (i + 1 == t.size() || t[i] != pair.first || t[i + 1] != pair.second) {
        t[to++] = t[i];
        continue;
      }
      if (to > 0) replace({t[to - 1], pair.first}, {t[to - 1], made}, w);
      if (i + 2 < t.size()) replace({pair.second, t[i + 2]}, {made, t[i + 2]}, w);
      t[to++] = made;
      ++i;
    }
    t.resize(to);
  }

  void replace(const Pair& old_pair, const Pair& new_pair, std::uint32_t w) {
    pairs_[old_pair].count -= words_[w].count;
    note(new_pair, words_[w].count, w);
    changed_.push_back(new_pair);
  }

  std::vector<Word> words_;
  std::vector<std::string>& tokens_;
  std::unordered_map<std::string, TokenId> by_text_;
  std::unordered_map<Pair, PairState, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<Pair> changed_;
};

// Bytes get ids in the order of the characters that stand for them.
std::array<TokenId, 256> add_bytes(std::vector<std::string>& tokens) {
  std::array<int, 256> order{};
  for (int b = 0; b < 256; ++b) order[static_cast<std::size_t>(b)] = b;
  std::ranges::sort(order, {}, [](int b) { return byte_to_char(static_cast<unsigned char>(b)); });
  std::array<TokenId, 256> ids{};
  for (const int b : order) {
    ids[static_cast<std::size_t>(b)] = static_cast<TokenId>(tokens.size());
    const char byte = static_cast<char>(b);
    tokens.push_back(spelt({&byte, 1}));
  }
  return ids;
}

}  // namespace

const std::vector<std::string>& trained_special_tokens() {
  static const std::vector<std::string> tokens{"<｜begin▁of▁sentence｜>",
                                               "<｜end▁of▁sentence｜>",
                                               "<｜▁pad▁｜>",
                                               "<｜User｜>",
                                               "<｜Assistant｜>",
                                               "<think>",
                                               "</think>"};
  return tokens;
}

BpeTrainer::BpeTrainer(BpeTrainerOptions options)
    : options_(std::move(options)), pretokenizer_(gguf_pretokenizer(options_.pre).pretokenizer) {
  const auto least = static_cast<Index>(trained_special_tokens().size()) + 256;
  constexpr Index kMost = 1 << 24;
  if (options_.vocab_size < least || options_.vocab_size > kMost) {
    throw_error(ErrorCode::kUsage,
                "a vocabulary of {} tokens, expected {} (bytes and special "
                "tokens) to {}",
                options_.vocab_size, least, kMost);
  }
}

void BpeTrainer::add(std::string_view text) {
  n_bytes_ += static_cast<Index>(text.size());
  pretokenizer_.split(text, [&](std::string_view piece) { ++pieces_[std::string(piece)]; });
}

GgufVocab BpeTrainer::train(const std::function<void(Index done, Index total)>& on_merge) const {
  GgufVocab vocab;
  vocab.model = "gpt2";
  vocab.pre = options_.pre;
  vocab.bos = 0;
  vocab.eos = 1;
  vocab.pad = 2;
  vocab.add_bos = true;
  vocab.add_eos = false;
  vocab.tokens = trained_special_tokens();
  for (std::size_t i = 0; i < vocab.tokens.size(); ++i) {
    vocab.token_types.push_back(i < kControlTokens ? kControl : kUserDefined);
  }
  const std::array<TokenId, 256> byte_ids = add_bytes(vocab.tokens);

  // In the order of their text, so that nothing depends on how the map keeps them.
  std::vector<std::pair<std::string_view, std::int64_t>> pieces(pieces_.begin(), pieces_.end());
  std::ranges::sort(pieces);
  std::vector<Word> words;
  words.reserve(pieces.size());
  for (const auto& [piece, count] : pieces) {
    Word word{.tokens = {}, .count = count};
    for (const char byte : piece) {
      word.tokens.push_back(byte_ids[static_cast<unsigned char>(byte)]);
    }
    words.push_back(std::move(word));
  }

  Merger merger(std::move(words), vocab.tokens);
  const auto target = static_cast<std::size_t>(options_.vocab_size);
  const auto begin = static_cast<Index>(vocab.tokens.size());
  while (vocab.tokens.size() < target) {
    throw_if_interrupted();
    const auto pair = merger.next(std::max<std::int64_t>(options_.min_frequency, 1));
    if (!pair) break;
    vocab.merges.push_back(vocab.tokens[static_cast<std::size_t>(pair->first)] + " " +
                           vocab.tokens[static_cast<std::size_t>(pair->second)]);
    merger.merge(*pair);
    if (on_merge) {
      on_merge(static_cast<Index>(vocab.tokens.size()) - begin, options_.vocab_size - begin);
    }
  }
  vocab.token_types.resize(vocab.tokens.size(), kNormal);
  return vocab;
}

}  // namespace kogia
