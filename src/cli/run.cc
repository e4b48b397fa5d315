// kogia run: one prompt, one answer.

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/answer_printer.h"
#include "cli/commands.h"
#include "cli/draft_report.h"
#include "cli/hub_flags.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "cli/run_flags.h"
#include "infer/batcher.h"

namespace kogia::cli {
namespace {

std::vector<OptionRow> many_rows(RunFlags& f) {
  std::vector<OptionRow> rows = {
      {.flags = "--prompts",
       .value = "FILE",
       .help = "instead of TEXT: a JSON object a line, {\"messages\": [...]} or {\"prompt\": "
               "\"text\"}, with an id and settings if wanted (max_tokens, temperature, n, ...)",
       .target = &f.prompts},
      {.flags = "--out",
       .value = "FILE",
       .help = "the answers, a JSON object a line, in the order of the prompts (standard output); "
               "after a stop the same command goes on where it was",
       .target = &f.out}};
  for (OptionRow& row : f.batch.many_rows()) rows.push_back(std::move(row));
  return rows;
}

CommandLine describe(RunFlags& f) {
  return {
      .name = "run",
      .summary =
          "Answers one prompt. Where the checkpoint has a chat template, TEXT is the user's "
          "turn in it; --raw lets the model continue TEXT as it stands. --prompts answers a file "
          "of them, many at once.",
      .positionals = {{"MODEL", kModelHelp, &f.model},
                      {"TEXT", "the prompt; left out: standard input", &f.text}},
      .groups =
          {{"Prompt",
            {{.flags = "--system",
              .value = "TEXT",
              .help = "a system message before it",
              .target = &f.system},
             {.flags = "--raw",
              .value = {},
              .help = "no template: the model continues TEXT; added tokens such as <think> inside "
                      "it are read as tokens",
              .target = &f.raw},
             {.flags = "--ids",
              .value = "FILE",
              .help = "token ids instead of TEXT: decimal numbers separated by white space; needs "
                      "no tokenizer (-: standard input)",
              .target = &f.ids_file}}},
           {"Many prompts", many_rows(f)},
           {"Answer", f.stop.rows()},
           {"Output",
            {{.flags = "--json",
              .value = {},
              .help = "one object: ids, text, reasoning, finish_reason, counts and times",
              .target = &f.json},
             {.flags = "--logprobs",
              .value = {},
              .help = "with --json: the model's log-probability of each id",
              .target = &f.logprobs}}},
           {"Sampling", f.sampling.rows()},
           {"Speed", f.batch.rows()},
           {"Engine", f.engine.rows()}},
      .examples = {"kogia run DeepSeek-R1-Distill-Qwen-1.5B \"What is the capital of France?\" "
                   "--temperature 0",
                   "kogia run model.gguf --ids prompt.ids --max-tokens 24 --ignore-eos --json",
                   "kogia run MODEL --prompts questions.jsonl --out answers.jsonl --max-tokens "
                   "512"}};
}

// What contradicts itself is refused before a model is loaded.
void check(const RunFlags& f) {
  const auto refuse = [](const std::string& message, const std::string& help = {}) {
    throw Error(ErrorCode::kUsage, message, help);
  };
  f.batch.check();
  if (!f.prompts.empty()) return check_many(f);
  if (!f.out.empty()) refuse("--out needs --prompts");
  if (!f.ids_file.empty() && f.text) refuse("--ids and TEXT are two prompts, expected one");
  if (!f.system.empty() && (f.raw || !f.ids_file.empty())) {
    refuse("--system needs the chat template, which --raw and --ids leave out");
  }
  if (f.ids_file.empty() && !f.text && in_is_terminal()) {
    refuse("kogia run needs a prompt", "for example: kogia run MODEL \"Why is the sky blue?\"");
  }
  if (f.logprobs && !f.json) refuse("--logprobs needs --json");
  if (f.text && f.text->empty()) refuse("TEXT is empty, expected a prompt");
}

std::vector<TokenId> prompt_ids(const RunFlags& f, const Engine& engine) {
  if (!f.ids_file.empty()) return read_ids(f.ids_file, engine.model().config().vocab_size);
  require_tokenizer(engine, "give token ids instead: --ids FILE");
  const std::string text = f.text ? *f.text : read_text("-");
  if (text.empty()) throw Error(ErrorCode::kUsage, "standard input is empty, expected a prompt");
  if (f.raw) return raw_prompt(engine, text);
  const bool has_template = engine.chat() != nullptr || !engine.chat_problem().empty();
  if (!has_template && f.system.empty()) return raw_prompt(engine, text);
  require_chat_template(engine, "--raw does without it");
  std::vector<ChatMessage> messages;
  if (!f.system.empty()) messages.push_back({"system", f.system, {}});
  messages.push_back({"user", text, {}});
  return chat_prompt(engine, messages);
}

void print_json(const RunFlags& f, const Engine& engine, const Generation& g) {
  nlohmann::ordered_json object;
  object["ids"] = g.ids;
  if (engine.tokenizer() != nullptr) {
    object["text"] = g.content;
    if (!g.reasoning.empty()) object["reasoning"] = g.reasoning;
  }
  if (f.logprobs) object["logprobs"] = g.logprobs;
  object["finish_reason"] = name(g.finish_reason);
  object["prompt_tokens"] = g.n_prompt;
  object["completion_tokens"] = g.ids.size();
  object["prefill_s"] = g.prefill_s;
  object["decode_s"] = g.decode_s;
  if (f.batch.speculate != "none") add_drafts(object, g.drafts);
  write_json(object);
}

void print_ids(const Generation& g) {
  std::string line;
  for (const TokenId id : g.ids) line += fmt::format("{}{}", line.empty() ? "" : " ", id);
  write_out(line + "\n");
}

void say_how_it_went(const Engine& engine, const Generation& g) {
  if (g.finish_reason == FinishReason::kLength &&
      g.n_prompt + static_cast<Index>(g.ids.size()) >= engine.ctx()) {
    log_warning("the context of {} tokens is full; --ctx N gives more", engine.ctx());
  }
  if (!out_is_terminal() && g.content.empty() && !g.reasoning.empty()) {
    log_warning(
        "{} tokens of thought and no answer yet; --max-tokens N gives more, --json shows "
        "the thought",
        g.ids.size());
  }
  if (err_is_terminal()) write_note(speed_line(g));
}

}  // namespace

int run_command(Arguments arguments) {
  RunFlags f;
  if (!parse(describe(f), arguments)) return 0;
  f.engine.need_mtp = f.batch.needs_mtp();
  check(f);
  GenerateOptions options;
  f.stop.apply(options);
  (void)f.sampling.params({});  // refuses bad values before the model is loaded
  if (!f.prompts.empty()) return run_many(f);

  const auto engine = open_engine(f.model, f.engine);
  options.sampling = f.sampling.params(engine->defaults());
  options.split_reasoning = !f.raw;
  const std::vector<TokenId> prompt = prompt_ids(f, *engine);

  const InterruptGuard ctrl_c;
  const DiskCache cache = f.batch.open_cache(*engine);
  Batcher batcher(*engine, f.batch.options(cache));
  AnswerPrinter printer(out_is_terminal());
  PrefillProgress progress(f.engine.quiet);
  GenerateEvents events;
  events.on_prefill = [&](Index done, Index total) { progress(done, total); };
  if (!f.json && engine->tokenizer() != nullptr) {
    events.on_piece = [&](const GeneratedPiece& piece) { printer.print(piece); };
  }
  const Generation g = generate(batcher, prompt, options, events);
  if (f.json) {
    print_json(f, *engine, g);
  } else if (engine->tokenizer() == nullptr) {
    print_ids(g);
  } else {
    printer.finish();
  }
  if (!f.engine.quiet) say_how_it_went(*engine, g);
  return g.finish_reason == FinishReason::kInterrupted ? 1 : 0;
}

}  // namespace kogia::cli
