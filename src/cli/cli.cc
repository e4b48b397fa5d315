#include "cli/cli.h"

#include <array>
#include <csignal>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

constexpr std::string_view kVersion = KOGIA_VERSION;

struct Command {
  std::string_view name, summary;
  int (*run)(Arguments);
};
constexpr std::array kCommands{
    Command{"run", "answers one prompt", run_command},
    Command{"chat", "a conversation", chat_command},
    Command{"pull", "fetches a model from the Hugging Face hub", pull_command},
    Command{"inspect", "what a checkpoint holds and what it needs", inspect_command},
    Command{"tokenize", "standard input to token ids", tokenize_command},
    Command{"tokenizer", "learns a vocabulary from text", tokenizer_command},
    Command{"perplexity", "how well a model predicts a text", perplexity_command},
    Command{"quantize", "a checkpoint again with smaller weights", quantize_command},
    Command{"bench", "prefill and decode speed", bench_command},
    Command{"devices", "what this machine can compute with", devices_command},
    Command{"convert", "a checkpoint in another container", convert_command},
    Command{"train", "from text to a model", train_command},
    Command{"report", "what a training run has done", report_command},
    Command{"synth", "a checkpoint with random weights", synth_command},
};

std::string overview() {
  std::string out = "kogia " + std::string(kVersion) +
                    ": runs DeepSeek-class language models, right to the bit\n\n"
                    "usage: kogia COMMAND [MODEL] [FLAG...]\n\nCommands\n";
  for (const Command& command : kCommands) {
    out += fmt::format("  {:<12}{}\n", command.name, command.summary);
  }
  return out +
         "  help        this text, or `kogia help COMMAND`\n\n"
         "MODEL is a folder as Hugging Face lays it out, a .gguf file, or a pulled repository's "
         "name.\n"
         "Answers go to standard output, everything else to standard error; --json gives one JSON\n"
         "object. Exit codes: 0, 1 failed, 2 wrong use.\n\n"
         "Example\n  kogia chat path/to/DeepSeek-R1-Distill-Qwen-1.5B\n";
}

const Command& find_command(const std::string& name) {
  std::vector<std::string> names{"help"};
  for (const Command& command : kCommands) {
    if (command.name == name) return command;
    names.emplace_back(command.name);
  }
  const auto meant = did_you_mean(name, names);
  throw Error(ErrorCode::kUsage, fmt::format("kogia has no command '{}'", name),
              meant ? fmt::format("did you mean `kogia {}`?", *meant)
                    : std::string("`kogia help` lists them"));
}

int dispatch(Arguments words) {
  if (words.empty()) {
    throw Error(ErrorCode::kUsage, "kogia needs a command",
                "`kogia help` lists them; for example: kogia chat MODEL");
  }
  const std::string& first = words[0];
  const Arguments rest = words.subspan(1);
  if (first == "--version" || first == "version") {
    write_out(fmt::format("kogia {}\n", kVersion));
    return 0;
  }
  if (first == "help" || first == "--help" || first == "-h") {
    if (!rest.empty() && first == "help") {
      const std::vector<std::string> help{"--help"};
      return find_command(rest[0]).run(help);
    }
    write_out(overview());
    return 0;
  }
  return find_command(first).run(rest);
}

}  // namespace

int run(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may grow no further is an error like a full disk
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  try {
    return dispatch(words);
  } catch (const std::exception& error) {
    const bool known = !words.empty() && words[0][0] != '-';
    return report(error, known ? fmt::format("`kogia {} --help` explains its use", words[0])
                               : std::string("`kogia help` lists the commands"));
  }
}

}  // namespace kogia::cli
