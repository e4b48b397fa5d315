// kogia perplexity: how well a model predicts a text.

#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "cli/prompt.h"

namespace kogia::cli {
namespace {

struct PerplexityFlags {
  std::string model, text_file, ids_file;
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
      .positionals = {{"MODEL", "a folder as Hugging Face lays it out, or a .gguf file", &f.model}},
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
                  "perplexity, input_tokens, ctx",
              .target = &f.json}}},
           {"Engine", f.engine.rows()},
           {"Accepted, without effect here",
            {{.flags = "--seed", .value = "N", .help = {}, .target = &f.unused_seed}}}},
      .examples = {"kogia perplexity model.gguf --text book.txt --max-tokens 1024 --ctx 1024"}};
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

}  // namespace

int perplexity_command(Arguments arguments) {
  PerplexityFlags f;
  if (!parse(describe(f), arguments)) return 0;
  if (f.text_file.empty() == f.ids_file.empty()) {
    throw Error(ErrorCode::kUsage, f.text_file.empty()
                                       ? "kogia perplexity needs a text: --text FILE or --ids FILE"
                                       : "--text and --ids are two inputs, expected one");
  }
  const auto engine = open_engine(f.model, f.engine);
  const std::vector<TokenId> ids = input_ids(f, *engine);
  const auto n_tokens = static_cast<Index>(ids.size());

  const InterruptGuard ctrl_c;
  Progress progress("scoring", n_tokens, ProgressUnit::kCount,
                    f.engine.quiet ? Progress::Mode::kSilent : Progress::Mode::kAuto);
  const auto scored = score(*engine, ids, std::min(engine->ctx(), n_tokens),
                            [&](Index done, Index) { progress.add(done - progress.done()); });
  progress.finish();

  double nll = 0;
  for (const ScoredToken& t : scored) nll -= static_cast<double>(t.logprob);
  const double perplexity = std::exp(nll / static_cast<double>(scored.size()));
  if (f.per_token) write_out(per_token_lines(scored));
  if (f.json) {
    nlohmann::ordered_json object;
    object["tokens"] = scored.size();
    object["nll"] = nll;
    object["perplexity"] = perplexity;
    object["input_tokens"] = n_tokens;
    object["ctx"] = std::min(engine->ctx(), n_tokens);
    write_json(object);
  } else {
    write_out(fmt::format("perplexity {:.4f} over {} of {} tokens, nll {:.4f} per token\n",
                          perplexity, scored.size(), n_tokens,
                          nll / static_cast<double>(scored.size())));
  }
  return 0;
}

}  // namespace kogia::cli
