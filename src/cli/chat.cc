// kogia chat: a conversation.

#include <filesystem>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cli/batch_flags.h"
#include "cli/chat_loop.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_flags.h"
#include "cli/output.h"
#include "cli/prompt.h"

namespace kogia::cli {
namespace {

struct ChatFlags {
  std::string model, system, session;
  bool json = false, no_history = false;
  StopFlags stop;
  SamplingFlags sampling;
  BatchFlags batch;
  EngineFlags engine;
};

CommandLine describe(ChatFlags& f) {
  return {
      .name = "chat",
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
                   {.flags = "--session",
                    .value = "FILE",
                    .help = "go on with the conversation in FILE where there is one, and write it "
                            "there at the end; what is computed of it goes to FILE.cache, so that "
                            "it need not be computed again, here or on another machine",
                    .target = &f.session},
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
                 {"Speed", f.batch.rows()},
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

/// The conversation of --session: messages in FILE, and what the model makes of them in FILE.cache.
/// Without the second it is only slower, so trouble with it is a warning.
class SavedChat {
 public:
  SavedChat(Conversation& chat, const std::string& file) : chat_(chat), file_(file) {
    if (file.empty() || !std::filesystem::exists(file_)) return;
    chat.load(file_);
    if (std::filesystem::exists(cache())) try_cache([&] { chat.load_cache(cache()); });
  }
  void write() const {
    if (file_.empty()) return;
    chat_.save(file_);
    try_cache([&] { chat_.save_cache(cache()); });
  }

 private:
  std::filesystem::path cache() const { return file_.string() + ".cache"; }
  template <class Action>
  static void try_cache(const Action& action) {
    try {
      action();
    } catch (const Error& e) {
      log_warning("{}; the conversation is computed again", e.what());
    }
  }

  Conversation& chat_;
  std::filesystem::path file_;
};

}  // namespace

int chat_command(Arguments arguments) {
  ChatFlags f;
  if (!parse(describe(f), arguments)) return 0;
  f.engine.need_mtp = f.batch.needs_mtp();
  f.batch.check();
  GenerateOptions options;
  f.stop.apply(options);
  (void)f.sampling.params({});  // refuses bad values before the model is loaded

  if (!f.system.empty() && !f.session.empty() && std::filesystem::exists(f.session)) {
    throw Error(ErrorCode::kUsage, f.session + " has a system message of its own",
                "leave out --system; /system in the chat begins anew with another one");
  }

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
  const DiskCache disk = f.batch.open_cache(*engine);
  Conversation conversation(*engine, f.batch.options(disk), options, f.system);
  const SavedChat saved(conversation, f.session);
  ChatLoop loop(conversation,
                {.json = f.json, .quiet = f.engine.quiet, .keep_history = !f.no_history});
  try {
    loop.run();
  } catch (const Error&) {  // what was said before it is kept
    saved.write();
    throw;
  }
  saved.write();
  return 0;
}

}  // namespace kogia::cli
