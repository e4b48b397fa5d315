#include "infer/divergence.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "infer/score.h"

namespace kogia {
namespace {

using VisitRow = std::function<void(Index window, Index i, std::span<const float>, TokenId next)>;

/// The rows of a logits file, in its order.
void visit_rows(Engine& engine, const LogitsShape& shape, std::span<const TokenId> ids,
                const OnScored& on_scored, const VisitRow& visit) {
  const Tokenizer* tokenizer = engine.tokenizer();
  const auto bos = tokenizer && tokenizer->adds_bos() ? tokenizer->bos() : std::nullopt;
  for (Index w = 0; w < shape.windows; ++w) {
    const auto window =
        ids.subspan(static_cast<std::size_t>(w * shape.ctx), static_cast<std::size_t>(shape.ctx));
    std::vector<TokenId> seen(window.begin(), window.end());
    if (bos) seen.front() = *bos;
    for_each_logits(engine, seen, [&](Index pos, std::span<const float> logits) {
      if (pos >= shape.first_pos() && pos + 1 < shape.ctx) {
        visit(w, pos - shape.first_pos(), logits, window[static_cast<std::size_t>(pos) + 1]);
      }
      if (on_scored) on_scored(w * shape.ctx + pos + 1, shape.windows * shape.ctx);
    });
  }
}

void summarize(std::vector<double>& kl, DivergenceReport& out) {
  const auto n = static_cast<double>(kl.size());
  std::ranges::sort(kl);
  double sum = 0, squares = 0;
  for (const double x : kl) sum += x;
  out.kl = sum / n;
  for (const double x : kl) squares += (x - out.kl) * (x - out.kl);
  out.kl_error = kl.size() > 1 ? std::sqrt(squares / (n - 1) / n) : 0;
  const auto quantile = [&](double share) {
    return kl[static_cast<std::size_t>(share * (n - 1) + 0.5)];
  };
  out.kl_median = quantile(0.5);
  out.kl_99 = quantile(0.99);
  out.kl_most = kl.back();
}

}  // namespace

HalfScore save_logits(Engine& engine, std::span<const TokenId> ids, Index ctx,
                      const std::filesystem::path& target, const OnScored& on_scored) {
  const LogitsShape shape{.ctx = ctx,
                          .vocab = engine.model().config().vocab_size,
                          .windows = static_cast<Index>(ids.size()) / std::max<Index>(ctx, 1)};
  if (ctx < 3 || shape.windows < 1) {
    throw Error(ErrorCode::kUsage,
                fmt::format("the text has {} tokens, a window {}: expected at least one whole "
                            "window of 3 or more",
                            ids.size(), ctx),
                "--ctx sets how long a window is");
  }
  ids = ids.first(static_cast<std::size_t>(shape.windows * ctx));
  LogitsWriter writer(target, shape, ids);
  HalfScore score;
  visit_rows(engine, shape, ids, on_scored,
             [&](Index, Index, std::span<const float> logits, TokenId next) {
               writer.append(logits);
               float log_prob = 0;
               const auto n = static_cast<Index>(logits.size());
               engine.device().log_prob({.logits = logits.data(),
                                         .stride = n,
                                         .n = n,
                                         .ids = {&next, 1},
                                         .log_prob = &log_prob});
               score.nll -= static_cast<double>(log_prob);
               ++score.tokens;
             });
  writer.commit();
  return score;
}

DivergenceReport measure_divergence(Engine& engine, const LogitsFile& file,
                                    const OnScored& on_scored) {
  const LogitsShape& shape = file.shape();
  const Index vocab = engine.model().config().vocab_size;
  if (shape.vocab != vocab) {
    throw_error(ErrorCode::kInvalid,
                "{}: the vocabulary has {} tokens, that of the file of logits {}: they are not of "
                "the same family",
                engine.checkpoint().path(), vocab, shape.vocab);
  }
  DivergenceReport out;
  std::vector<double> kl;
  Index same_top = 0;
  visit_rows(engine, shape, file.ids(), on_scored,
             [&](Index window, Index i, std::span<const float> logits, TokenId next) {
               const Divergence d = divergence(file.row(window, i), logits, next);
               kl.push_back(d.kl);
               out.nll += d.nll;
               out.nll_kept += d.nll_kept;
               same_top += d.same_top ? 1 : 0;
             });
  out.tokens = static_cast<Index>(kl.size());
  out.same_top = static_cast<double>(same_top) / static_cast<double>(out.tokens);
  summarize(kl, out);
  return out;
}

}  // namespace kogia
