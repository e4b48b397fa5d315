#include "infer/score.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/interrupt.h"

namespace kogia {
namespace {

void check_ids(const Engine& engine, std::span<const TokenId> ids) {
  const Index vocab = engine.model().config().vocab_size;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab) {
      throw_error(ErrorCode::kUsage, "token {} of the input has id {}, expected 0 to {}", i, ids[i],
                  vocab - 1);
    }
  }
  if (static_cast<Index>(ids.size()) > engine.ctx()) {
    throw Error(ErrorCode::kUsage,
                fmt::format("{} tokens do not fit the context of {}", ids.size(), engine.ctx()),
                "shorten the text, or ask for more with --ctx");
  }
}

/// The pages of one text, given back when it ends.
class Pages {
 public:
  explicit Pages(PagePool& pool) : pool_(pool) {}
  ~Pages() {
    for (const std::int32_t page : pages_) pool_.release(page);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  void reserve(Index n_tokens) {
    while (static_cast<Index>(pages_.size()) * kPageTokens < n_tokens) {
      const std::int32_t page = pool_.take();
      if (page < 0) {
        throw Error(ErrorCode::kUsage,
                    fmt::format("the cache's {} pages are all in use", pool_.n_pages()),
                    "ask for a longer context with --ctx");
      }
      pages_.push_back(page);
    }
  }
  const std::int32_t* data() const { return pages_.data(); }

 private:
  PagePool& pool_;
  std::vector<std::int32_t> pages_;
};

}  // namespace

void for_each_logits(Engine& engine, std::span<const TokenId> ids,
                     const std::function<void(Index pos, std::span<const float> logits)>& visit) {
  check_ids(engine, ids);
  Pages pages(engine.pages());
  const Index total = static_cast<Index>(ids.size()),
              chunk = std::max<Index>(engine.options().chunk, 1);
  std::vector<std::int32_t> every(static_cast<std::size_t>(std::min(chunk, total)));
  std::iota(every.begin(), every.end(), 0);
  for (Index begin = 0; begin < total; begin += chunk) {
    throw_if_interrupted();
    const Index n = std::min(chunk, total - begin);
    pages.reserve(begin + n);
    const SequenceRows rows{.row_begin = 0, .n_rows = n, .first_pos = begin, .pages = pages.data()};
    const ForwardResult result = engine.model().forward(
        {.ids = ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)),
         .sequences = {&rows, 1},
         .logit_rows = std::span(every).first(static_cast<std::size_t>(n)),
         .cache = engine.cache().memory()},
        engine.workspace());
    for (Index r = 0; r < n; ++r) {
      visit(begin + r, {result.logits.row(r), static_cast<std::size_t>(result.logits.cols)});
    }
  }
}

std::vector<ScoredToken> score(Engine& engine, std::span<const TokenId> ids, Index ctx,
                               const std::function<void(Index done, Index total)>& on_chunk) {
  const Index total = static_cast<Index>(ids.size());
  if (ctx < 2)
    throw_error(ErrorCode::kUsage, "a window of {} tokens scores nothing, expected at least 2",
                ctx);
  check_ids(engine, ids.first(static_cast<std::size_t>(std::min(total, ctx))));
  std::vector<ScoredToken> scored;
  for (Index window = 0; window < total; window += ctx) {
    const Index n = std::min(ctx, total - window);
    const auto part = ids.subspan(static_cast<std::size_t>(window), static_cast<std::size_t>(n));
    for_each_logits(engine, part, [&](Index pos, std::span<const float> logits) {
      if (pos + 1 < n) {
        const TokenId next = part[static_cast<std::size_t>(pos) + 1];
        ScoredToken token{.pos = window + pos + 1, .id = next};
        engine.device().log_prob({.logits = logits.data(),
                                  .stride = static_cast<Index>(logits.size()),
                                  .n = static_cast<Index>(logits.size()),
                                  .ids = {&next, 1},
                                  .log_prob = &token.logprob});
        scored.push_back(token);
      }
      if (on_chunk) on_chunk(window + pos + 1, total);
    });
  }
  return scored;
}

}  // namespace kogia
