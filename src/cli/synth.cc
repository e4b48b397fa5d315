// kogia synth: a checkpoint with random weights, for tests and measurements.

#include "model/synth.h"

#include <algorithm>
#include <cctype>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

struct SynthFlags {
  SynthOptions options;
  std::string weights = "BF16", output;
  bool json = false;
  EngineFlags engine;
};

CommandLine describe(SynthFlags& f) {
  OptionGroup writing{"Writing", {}}, unused{"Accepted, without effect here", {}};
  for (OptionRow& row : f.engine.rows()) {
    const bool used = row.flags == "--threads" || row.flags == "--quiet,-q";
    if (!used) row.help.clear();
    (used ? writing : unused).rows.push_back(row);
  }
  return {
      .name = "synth",
      .summary =
          "Writes a checkpoint with random weights of sane scales, which llama.cpp and "
          "transformers load too: for tests and measurements where no real one is at hand. It "
          "says nothing sensible.",
      .positionals = {{"NAME", fmt::format("{}", fmt::join(synth_names(), ", ")), &f.options.name}},
      .groups = {{"Checkpoint",
                  {{.flags = "--output,-o",
                    .value = "PATH",
                    .help = "a .gguf file, or a folder to make",
                    .target = &f.output},
                   {.flags = "--weights",
                    .value = "TYPE",
                    .help = fmt::format("{} (BF16)", fmt::join(synth_weights(), ", ")),
                    .target = &f.weights},
                   {.flags = "--seed",
                    .value = "N",
                    .help = "the same seed, the same bytes (0)",
                    .target = &f.options.seed}}},
                 {"Output",
                  {{.flags = "--json",
                    .value = {},
                    .help = "one object: path, bytes",
                    .target = &f.json}}},
                 writing,
                 unused},
      .examples = {"kogia synth mini --weights Q4_K -o mini.gguf",
                   "kogia synth v3-tiny --weights FP8 -o v3-tiny"}};
}

// Checked here, so that a slip is named before anything is written.
const std::string& one_of(const std::string& word, std::string_view what,
                          const std::vector<std::string>& known) {
  if (std::ranges::find(known, word) != known.end()) return word;
  const auto meant = did_you_mean(word, known);
  throw Error(ErrorCode::kUsage,
              fmt::format("{} is '{}', expected one of {}", what, word, fmt::join(known, ", ")),
              meant ? fmt::format("did you mean {}?", *meant) : std::string());
}

Index bytes_of(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path))
    return static_cast<Index>(std::filesystem::file_size(path));
  Index bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) bytes += static_cast<Index>(entry.file_size());
  }
  return bytes;
}

}  // namespace

int synth_command(Arguments arguments) {
  SynthFlags f;
  if (!parse(describe(f), arguments)) return 0;
  std::ranges::transform(f.weights, f.weights.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  one_of(f.options.name, "NAME", synth_names());
  f.options.weights = one_of(f.weights, "--weights", synth_weights());
  if (f.output.empty()) {
    throw Error(ErrorCode::kUsage, "kogia synth needs -o PATH: a .gguf file, or a folder to make");
  }
  f.options.output = f.output;
  f.options.n_threads = static_cast<int>(f.engine.threads);

  const InterruptGuard ctrl_c;
  std::optional<Progress> progress;
  if (!f.engine.quiet) {
    f.options.on_progress = shown_bytes(progress, "writing");
  }
  synthesize(f.options);
  progress.reset();
  const Index bytes = bytes_of(f.output);
  if (f.json) {
    write_json({{"path", f.output}, {"bytes", bytes}});
  } else {
    write_out(fmt::format("{}: {}\n", f.output, format_bytes(bytes)));
  }
  return 0;
}

}  // namespace kogia::cli
