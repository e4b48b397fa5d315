// kogia convert: a checkpoint from one container into another.

#include "infer/convert.h"

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
#include "cli/hub_flags.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

struct ConvertFlags {
  std::string source, target, type = "auto";
  bool mtp = false, no_tokenizer = false, json = false;
  Index shard_mib = 4096;
  EngineFlags engine;
  std::uint64_t unused_seed = 0;
};

CommandLine describe(ConvertFlags& f) {
  auto [working, unused] =
      partly_used(f.engine, f.unused_seed, "Working", {"--threads", "--quiet,-q"});
  return {
      .name = "convert",
      .summary =
          "Writes a checkpoint in another container: a folder of safetensors as Hugging Face lays "
          "it out, or a GGUF as llama.cpp reads it; tokenizer and chat template go along. Streams: "
          "a model need not fit into memory.",
      .positionals = {{"SRC", kModelHelp, &f.source},
                      {"DST", "the .gguf file to write, or a folder to make", &f.target}},
      .groups = {{"Conversion",
                  {{.flags = "--type,--outtype,--weights",
                    .value = "TYPE",
                    .help = fmt::format("of the matrices: auto (as they are; FP8, and in a folder "
                                        "GGUF's blocks, become bf16), {} (auto)",
                                        fmt::join(convert_types(), ", ")),
                    .target = &f.type},
                   {.flags = "--mtp",
                    .value = {},
                    .help = "keep the multi-token prediction layers in a GGUF",
                    .target = &f.mtp},
                   {.flags = "--no-tokenizer",
                    .value = {},
                    .help = "weights and configuration alone",
                    .target = &f.no_tokenizer},
                   {.flags = "--shard-mib",
                    .value = "N",
                    .help = "size at which a folder's files end (4096)",
                    .target = &f.shard_mib,
                    .low = 1,
                    .high = 1 << 24}}},
                 {"Output",
                  {{.flags = "--json",
                    .value = {},
                    .help = "one object: path, bytes, tensors (how many of each type), tokenizer",
                    .target = &f.json}}},
                 working,
                 unused},
      .examples = {"kogia convert DeepSeek-V2-Lite-Chat v2-lite.gguf --type bf16",
                   "kogia convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2 --type f32"}};
}

std::optional<DType> wanted_type(std::string word) {
  std::ranges::transform(word, word.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (word == "auto") return {};
  const std::vector<std::string> known = convert_types();
  if (std::ranges::find(known, word) != known.end()) return parse_dtype(word);
  const auto meant = did_you_mean(word, known);
  throw Error(ErrorCode::kUsage,
              fmt::format("--type is '{}', expected auto, {}", word, fmt::join(known, ", ")),
              meant ? fmt::format("did you mean {}?", *meant) : std::string());
}

void say_what_was_done(const ConvertFlags& f, const ConvertReport& r) {
  if (!f.engine.quiet) {
    if (!r.has_tokenizer && !f.no_tokenizer)
      write_note("no tokenizer in the source: none in the target");
    if (r.left_out_mtp)
      write_note("the multi-token prediction layers are left out: --mtp keeps them");
  }
  if (f.json) {
    write_json({{"path", f.target},
                {"bytes", r.n_bytes},
                {"tensors", r.tensors},
                {"tokenizer", r.has_tokenizer}});
    return;
  }
  write_out(fmt::format("{}: {} of weights; tensors: {}\n", f.target, format_bytes(r.n_bytes),
                        counted_types(r.tensors)));
}

}  // namespace

int convert_command(Arguments arguments) {
  ConvertFlags f;
  if (!parse(describe(f), arguments)) return 0;
  ConvertOptions options{.type = wanted_type(f.type),
                         .mtp = f.mtp,
                         .tokenizer = !f.no_tokenizer,
                         .max_shard_bytes = f.shard_mib << 20,
                         .n_threads = static_cast<int>(f.engine.threads)};
  const InterruptGuard ctrl_c;
  const auto source = Checkpoint::open(find_model(f.source));
  std::optional<Progress> progress;
  if (!f.engine.quiet) {
    options.on_progress = shown_bytes(progress, "converting");
  }
  const ConvertReport report = convert_checkpoint(*source, f.target, options);
  progress.reset();
  say_what_was_done(f, report);
  return 0;
}

}  // namespace kogia::cli
