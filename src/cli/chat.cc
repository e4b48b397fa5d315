// kogia chat: a conversation.

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/chat_loop.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_flags.h"
#include "cli/output.h"
#include "cli/prompt.h"

namespace kogia::cli {
namespace {

struct ChatFlags {
  std::string model, system;
  bool json = false, no_history = false;
  StopFlags stop;
  SamplingFlags sampling;
  EngineFlags engine;
};

CommandLine describe(ChatFlags& f) {
  return {.name = "chat",
          .summary =
              "A conversation. /help lists its commands. Ctrl-C stops an answer and keeps the "
              "chat, Ctrl-D leaves. A line that ends in \\ goes on; a line of \"\"\" begins and "
              "ends a text of several lines. Without a terminal each line of standard input is a "
              "turn.",
          .positionals = {{"MODEL", kModelHelp, &f.model}},
          .groups = {{"Conversation",
                      {{.flags = "--system",
                        .value = "TEXT",
                        .help = "the system message",
                        .target = &f.system},
                       {.flags = "--no-history",
                        .value = {},
                        .help = "do not keep what is typed (~/.local/state/kogia/chat_history)",
                        .target = &f.no_history},
                       {.flags = "--json",
                        .value = {},
                        .help = "one object a line for each answer",
                        .target = &f.json}}},
                     {"Answer", f.stop.rows()},
                     {"Sampling", f.sampling.rows()},
                     {"Engine", f.engine.rows()}},
          .examples = {"kogia chat DeepSeek-R1-Distill-Qwen-1.5B --temperature 0.6 --top-p 0.95"}};
}

void greet(const Engine& engine) {
  if (!err_is_terminal() || !in_is_terminal()) return;
  const Device& device = engine.device();
  write_note(fmt::format(
      "{}, {}, {}; context {}\n/help lists commands; Ctrl-C stops an answer, Ctrl-D leaves\n",
      printable(engine.model().weights_summary()), device.name(),
      counted(device.n_threads(), "thread"), counted(engine.ctx(), "token")));
}

}  // namespace

int chat_command(Arguments arguments) {
  ChatFlags f;
  if (!parse(describe(f), arguments)) return 0;
  GenerateOptions options;
  f.stop.apply(options);
  (void)f.sampling.params({});  // refuses bad values before the model is loaded

  const auto engine = open_engine(f.model, f.engine);
  require_tokenizer(*engine, "a chat needs text");
  if (!engine->chat_problem().empty()) {
    throw Error(ErrorCode::kInvalid, f.model + ": chat template: " + engine->chat_problem());
  }
  if (engine->chat() == nullptr) {
    throw Error(ErrorCode::kUnsupported, f.model + ": no chat template, so this is no chat model",
                "let it continue a text: kogia run MODEL --raw \"Once upon a time\"");
  }
  options.sampling = f.sampling.params(engine->defaults());
  greet(*engine);
  Conversation conversation(*engine, options, f.system);
  ChatLoop(conversation, {.json = f.json, .quiet = f.engine.quiet, .keep_history = !f.no_history})
      .run();
  return 0;
}

}  // namespace kogia::cli
