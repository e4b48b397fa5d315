// kogia perplexity: how well a model predicts a text.

#include <cmath>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_flags.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "infer/divergence.h"
#include "infer/score.h"

namespace kogia::cli {
namespace {

struct PerplexityFlags {
  std::string model, text_file, ids_file, save_logits, kl_base;
  Index max_tokens = -1;
  bool per_token = false, json = false;
  std::uint64_t unused_seed = 0;
  EngineFlags engine;
};

CommandLine describe(PerplexityFlags& f) {
  return {
      .name = "perplexity",
      .summary =
          "How well a model predicts a text: exp of the mean of -log p over its tokens, each "
          "given those before it in its window. The windows are --ctx tokens long, do not "
          "overlap, and begin anew; the first token of each is not scored.",
      .positionals = {{"MODEL", kModelHelp, &f.model}},
      .groups =
          {{"Text",
            {{.flags = "--text",
              .value = "FILE",
              .help = "the text (-: standard input)",
              .target = &f.text_file},
             {.flags = "--ids",
              .value = "FILE",
              .help = "token ids instead: decimal numbers separated by white space",
              .target = &f.ids_file},
             {.flags = "--max-tokens,-n",
              .value = "N",
              .help = "only the first N tokens, BOS included where the tokenizer adds one",
              .target = &f.max_tokens,
              .low = 2}}},
           {"Comparing",
            {{.flags = "--save-logits",
              .value = "FILE",
              .help = "keep what the model expects after each token of the second half of each "
                      "window (2 bytes a word of the vocabulary), in llama-perplexity's format, "
                      "and score that half alone",
              .target = &f.save_logits},
             {.flags = "--kl-base",
              .value = "FILE",
              .help = "instead of a text: how far the model is from what such a file says, on the "
                      "text that is in it (llama-perplexity's --kl-divergence)",
              .target = &f.kl_base}}},
           {"Output",
            {{.flags = "--per-token",
              .value = {},
              .help =
                  "before the result, a line {\"pos\",\"id\",\"logprob\"} for each scored token",
              .target = &f.per_token},
             {.flags = "--json",
              .value = {},
              .help =
                  "the result as one object: tokens (scored), nll (the sum of -log p over them), "
                  "perplexity, input_tokens, ctx; with --kl-base also kl_mean, kl_error, ...",
              .target = &f.json}}},
           {"Engine", f.engine.rows()},
           {"Accepted, without effect here",
            {{.flags = "--seed", .value = "N", .help = {}, .target = &f.unused_seed}}}},
      .examples = {"kogia perplexity model.gguf --text book.txt --max-tokens 1024 --ctx 1024",
                   "kogia perplexity model.gguf --text book.txt --ctx 512 --compute f32 "
                   "--save-logits f32.logits",
                   "kogia perplexity model.gguf --kl-base f32.logits"}};
}

std::vector<TokenId> input_ids(const PerplexityFlags& f, const Engine& engine) {
  std::vector<TokenId> ids = f.ids_file.empty()
                                 ? raw_prompt(engine, read_text(f.text_file))
                                 : read_ids(f.ids_file, engine.model().config().vocab_size);
  if (f.max_tokens > 0 && static_cast<Index>(ids.size()) > f.max_tokens) {
    ids.resize(static_cast<std::size_t>(f.max_tokens));
  }
  if (ids.size() < 2) {
    throw_error(ErrorCode::kInvalid,
                "{}: {}, expected two or more: the first has nothing before it",
                f.ids_file.empty() ? f.text_file : f.ids_file,
                counted(static_cast<Index>(ids.size()), "token"));
  }
  return ids;
}

// 9 significant digits give a float back exactly; JSON has no infinities.
std::string per_token_lines(const std::vector<ScoredToken>& tokens) {
  std::string out;
  for (const ScoredToken& t : tokens) {
    const std::string logprob =
        std::isfinite(t.logprob) ? fmt::format("{:.9g}", t.logprob) : std::string("null");
    out += fmt::format("{{\"pos\":{},\"id\":{},\"logprob\":{}}}\n", t.pos, t.id, logprob);
  }
  return out;
}

void check_usage(const PerplexityFlags& f) {
  const int inputs = (f.text_file.empty() ? 0 : 1) + (f.ids_file.empty() ? 0 : 1);
  if (!f.kl_base.empty()) {
    if (inputs > 0 || f.max_tokens > 0 || !f.save_logits.empty()) {
      throw Error(ErrorCode::kUsage,
                  "--kl-base brings its own text: expected no --text, --ids, --max-tokens or "
                  "--save-logits beside it");
    }
  } else if (inputs == 0) {
    throw Error(ErrorCode::kUsage, "kogia perplexity needs a text: --text FILE or --ids FILE");
  } else if (inputs == 2) {
    throw Error(ErrorCode::kUsage, "--text and --ids are two inputs, expected one");
  }
  if (f.per_token && !(f.kl_base.empty() && f.save_logits.empty())) {
    throw Error(ErrorCode::kUsage, "--per-token goes with neither --kl-base nor --save-logits");
  }
}

/// Shows how far scoring is.
OnScored shown(std::optional<Progress>& progress, Index total, const PerplexityFlags& f) {
  progress.emplace("scoring", total, ProgressUnit::kCount,
                   f.engine.quiet ? Progress::Mode::kSilent : Progress::Mode::kAuto);
  return [&](Index done, Index) { progress->add(done - progress->done()); };
}

void print_score(const PerplexityFlags& f, Index tokens, double nll, Index input_tokens,
                 Index ctx) {
  const double mean = nll / static_cast<double>(tokens), perplexity = std::exp(mean);
  if (f.json) {
    write_json({{"tokens", tokens},
                {"nll", nll},
                {"perplexity", perplexity},
                {"input_tokens", input_tokens},
                {"ctx", ctx}});
  } else {
    write_out(fmt::format("perplexity {:.4f} over {} of {} tokens, nll {:.4f} per token\n",
                          perplexity, tokens, input_tokens, mean));
  }
}

void compare_with_base(PerplexityFlags& f) {
  const LogitsFile base = LogitsFile::open(f.kl_base);
  const LogitsShape& shape = base.shape();
  if (f.engine.ctx == 0) f.engine.ctx = shape.ctx;
  if (f.engine.ctx < shape.ctx) {
    throw_error(ErrorCode::kUsage, "--ctx is {}, but the windows of {} have {} tokens",
                f.engine.ctx, f.kl_base, shape.ctx);
  }
  const auto engine = open_engine(f.model, f.engine);
  std::optional<Progress> progress;
  const DivergenceReport r =
      measure_divergence(*engine, base, shown(progress, shape.windows * shape.ctx, f));
  progress->finish();
  const auto n = static_cast<double>(r.tokens);
  const double perplexity = std::exp(r.nll / n), base_perplexity = std::exp(r.nll_kept / n);
  if (f.json) {
    write_json({{"tokens", r.tokens},
                {"nll", r.nll},
                {"perplexity", perplexity},
                {"input_tokens", shape.windows * shape.ctx},
                {"ctx", shape.ctx},
                {"base_perplexity", base_perplexity},
                {"kl_mean", r.kl},
                {"kl_error", r.kl_error},
                {"kl_median", r.kl_median},
                {"kl_99", r.kl_99},
                {"kl_max", r.kl_most},
                {"same_top", r.same_top}});
    return;
  }
  write_out(fmt::format(
      "kl {:.3g} ± {:.2g} nats per token; median {:.3g}, 99 % {:.3g}, most {:.3g}\n"
      "same first token {:.2f} %; perplexity {:.4f}, of the base {:.4f}, over {} of {} tokens\n",
      r.kl, r.kl_error, r.kl_median, r.kl_99, r.kl_most, 100 * r.same_top, perplexity,
      base_perplexity, r.tokens, shape.windows * shape.ctx));
}

}  // namespace

int perplexity_command(Arguments arguments) {
  PerplexityFlags f;
  if (!parse(describe(f), arguments)) return 0;
  check_usage(f);
  const InterruptGuard ctrl_c;
  if (!f.kl_base.empty()) {
    compare_with_base(f);
    return 0;
  }
  const auto engine = open_engine(f.model, f.engine);
  const std::vector<TokenId> ids = input_ids(f, *engine);
  const auto n_tokens = static_cast<Index>(ids.size());
  const Index ctx = std::min(engine->ctx(), n_tokens);

  std::optional<Progress> progress;
  if (!f.save_logits.empty()) {
    const HalfScore half =
        save_logits(*engine, ids, ctx, f.save_logits, shown(progress, n_tokens / ctx * ctx, f));
    progress->finish();
    print_score(f, half.tokens, half.nll, n_tokens, ctx);
    return 0;
  }
  const auto scored = score(*engine, ids, ctx, shown(progress, n_tokens, f));
  progress->finish();
  double nll = 0;
  for (const ScoredToken& t : scored) nll -= static_cast<double>(t.logprob);
  if (f.per_token) write_out(per_token_lines(scored));
  print_score(f, static_cast<Index>(scored.size()), nll, n_tokens, ctx);
  return 0;
}

}  // namespace kogia::cli
