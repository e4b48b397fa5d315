// kogia tokenizer train: a vocabulary learnt from text.

#include <optional>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "text/bpe_trainer.h"
#include "text/tokenizer_convert.h"
#include "train/text_files.h"

namespace kogia::cli {
namespace {

namespace fs = std::filesystem;

struct TrainFlags {
  std::vector<std::string> files;
  std::string out, pre = "deepseek-v3", field = "text";
  Index vocab_size = 32768, min_frequency = 2;
  bool json = false, quiet = false;
};

CommandLine describe(TrainFlags& f) {
  return {
      .name = "tokenizer train",
      .summary =
          "Learns a byte-level BPE vocabulary: text is cut as DeepSeek-V3's tokenizer cuts it, "
          "then "
          "the most frequent pair of tokens is joined again and again. Writes tokenizer.json and "
          "tokenizer_config.json, which Hugging Face loads to the same ids. The first tokens are "
          "those of DeepSeek's chat format.",
      .positionals = {{"FILE", "texts: .txt, or .jsonl with one object a line; also .gz and .zst",
                       &f.files}},
      .groups = {{"Vocabulary",
                  {{.flags = "--vocab-size",
                    .value = "N",
                    .help = "tokens, the bytes and special tokens included (32768)",
                    .target = &f.vocab_size,
                    .low = 1},
                   {.flags = "--min-frequency",
                    .value = "N",
                    .help = "pairs that are rarer are not joined (2)",
                    .target = &f.min_frequency,
                    .low = 1},
                   {.flags = "--pre",
                    .value = "NAME",
                    .help = "how text is cut first, by its name in a GGUF: deepseek-v3, "
                            "deepseek-llm, qwen2, llama-bpe, gpt-2 (deepseek-v3)",
                    .target = &f.pre},
                   {.flags = "--field",
                    .value = "NAME",
                    .help = "of a line of JSON: where its text is; a.b reaches inside (text)",
                    .target = &f.field}}},
                 {"Output",
                  {{.flags = "--out,-o",
                    .value = "DIR",
                    .help = "the folder to write into; made if it is not there",
                    .target = &f.out},
                   {.flags = "--json",
                    .value = {},
                    .help = "one object: tokens, merges, bytes and pieces counted",
                    .target = &f.json},
                   {.flags = "--quiet,-q",
                    .value = {},
                    .help = "no progress on standard error",
                    .target = &f.quiet}}}},
      .examples = {
          "kogia tokenizer train corpus.txt more.jsonl.zst --vocab-size 8192 -o my-model"}};
}

void count_pieces(const TrainFlags& f, BpeTrainer& trainer) {
  Index total = 0;
  for (const std::string& file : f.files) {
    std::error_code unknown;
    const auto size = fs::file_size(file, unknown);
    if (!unknown) total += static_cast<Index>(size);
  }
  Progress progress("reading", total, ProgressUnit::kBytes,
                    f.quiet ? Progress::Mode::kSilent : Progress::Mode::kAuto);
  for (const std::string& file : f.files) {
    for_each_document(
        file, {.field = f.field}, [&](std::string_view text) { trainer.add(text); },
        [&](Index n) { progress.add(n); });
  }
  progress.finish();
}

GgufVocab learn(const TrainFlags& f, const BpeTrainer& trainer) {
  std::optional<Progress> progress;
  Index told = 0;
  GgufVocab vocab = trainer.train([&](Index done, Index total) {
    if (!progress) {
      progress.emplace("merging", total, ProgressUnit::kCount,
                       f.quiet ? Progress::Mode::kSilent : Progress::Mode::kAuto);
    }
    progress->add(done - told);
    told = done;
  });
  return vocab;
}

int train(Arguments arguments) {
  TrainFlags f;
  if (!parse(describe(f), arguments)) return 0;
  if (f.out.empty()) {
    throw Error(ErrorCode::kUsage, "kogia tokenizer train needs --out DIR",
                "for example: kogia tokenizer train corpus.txt -o my-model");
  }
  BpeTrainer trainer({.vocab_size = f.vocab_size, .min_frequency = f.min_frequency, .pre = f.pre});
  const InterruptGuard ctrl_c;
  count_pieces(f, trainer);
  if (trainer.n_bytes() == 0) throw_error(ErrorCode::kInvalid, "the files hold no text");
  const GgufVocab vocab = learn(f, trainer);
  std::error_code error;
  fs::create_directories(f.out, error);
  if (error) throw_error(ErrorCode::kIo, "{}: {}", f.out, error.message());
  write_file_atomically(fs::path(f.out) / "tokenizer.json", tokenizer_json_of(vocab));
  write_file_atomically(fs::path(f.out) / "tokenizer_config.json", tokenizer_config_of(vocab, ""));
  if (static_cast<Index>(vocab.tokens.size()) < f.vocab_size && !f.quiet) {
    write_note(fmt::format("the text has pairs for {} tokens only", vocab.tokens.size()));
  }
  if (f.json) {
    write_json({{"tokens", vocab.tokens.size()},
                {"merges", vocab.merges.size()},
                {"bytes", trainer.n_bytes()},
                {"pieces", trainer.n_distinct_pieces()},
                {"out", f.out}});
  } else {
    write_out(fmt::format("{}: {} from {}\n", (fs::path(f.out) / "tokenizer.json").string(),
                          counted(static_cast<Index>(vocab.tokens.size()), "token"),
                          format_bytes(trainer.n_bytes())));
  }
  return 0;
}

}  // namespace

int tokenizer_command(Arguments arguments) {
  if (!arguments.empty() && arguments[0] == "train") return train(arguments.subspan(1));
  if (!arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h")) {
    return train(arguments);
  }
  throw Error(ErrorCode::kUsage,
              arguments.empty() ? std::string("kogia tokenizer needs to know what to do")
                                : fmt::format("kogia tokenizer cannot '{}'", arguments[0]),
              "expected: kogia tokenizer train FILE... --out DIR");
}

}  // namespace kogia::cli
