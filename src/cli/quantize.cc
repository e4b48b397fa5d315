// kogia quantize: a checkpoint again with smaller weights.

#include "infer/quantize.h"

#include <filesystem>
#include <optional>

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

struct QuantizeFlags {
  std::string source, type, target, imatrix, keep_bf16;
  bool mtp = false, json = false;
  EngineFlags engine;
  std::uint64_t unused_seed = 0;
};

CommandLine describe(QuantizeFlags& f) {
  auto [working, unused] =
      partly_used(f.engine, f.unused_seed, "Working", {"--threads", "--quiet,-q"});
  return {
      .name = "quantize",
      .summary =
          "Writes a checkpoint again with smaller weights, in llama.cpp's mixtures of types or as "
          "DeepSeek's FP8 files. Streams: a model need not fit into memory.",
      .positionals =
          {{"SRC",
            "a folder, a .safetensors or a .gguf file, of any type, or the name of a pulled "
            "repository that holds such a one",
            &f.source},
           {"TYPE", fmt::format("{}", fmt::join(quantization_names(), ", ")), &f.type},
           {"DST", "the .gguf file to write; for FP8 a folder to make", &f.target}},
      .groups = {{"Quantisation",
                  {{.flags = "--imatrix",
                    .value = "FILE",
                    .help = "an importance matrix of llama.cpp (.gguf or .dat): errors count as "
                            "much as the columns they are in",
                    .target = &f.imatrix},
                   {.flags = "--keep-bf16",
                    .value = "PARTS",
                    .help = "of FP8: weights whose names contain one of these, divided by commas, "
                            "stay in bf16 (q_proj,k_proj,layers.29.)",
                    .target = &f.keep_bf16},
                   {.flags = "--mtp",
                    .value = {},
                    .help = "keep a folder's multi-token prediction layers in a GGUF",
                    .target = &f.mtp}}},
                 {"Output",
                  {{.flags = "--json",
                    .value = {},
                    .help = "one object: path, bytes, tensors (how many of each type), ...",
                    .target = &f.json}}},
                 working,
                 unused},
      .examples = {"kogia quantize model-f16.gguf Q4_K model-q4_k.gguf",
                   "kogia quantize model-f16.gguf Q4_0 model-q4_0.gguf --imatrix imatrix.gguf",
                   "kogia quantize deepseek-fp8 Q4_K deepseek-q4_k.gguf",
                   "kogia quantize deepseek-bf16 FP8 deepseek-fp8",
                   "kogia quantize smollm2 FP8 smollm2-fp8 --keep-bf16 q_proj,k_proj,layers.29."}};
}

Quantization wanted(const std::string& type) {
  if (const auto q = parse_quantization(type)) return *q;
  const auto meant = did_you_mean(type, quantization_names());
  throw Error(
      ErrorCode::kUsage,
      fmt::format("TYPE is '{}', expected one of {}", type, fmt::join(quantization_names(), ", ")),
      meant ? fmt::format("did you mean {}?", *meant) : std::string());
}

std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts;
  if (list.empty()) return parts;
  std::size_t begin = 0;
  for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
    end = list.find(',', begin);
    parts.push_back(list.substr(begin, end == std::string::npos ? end : end - begin));
  }
  return parts;
}

void check_places(const QuantizeFlags& f, Quantization type) {
  if (type == Quantization::kFp8) {
    if (!f.imatrix.empty()) {
      throw Error(ErrorCode::kUsage,
                  "--imatrix is about blocks with scales that are searched for; FP8 has none");
    }
    if (f.target.ends_with(".gguf")) {
      throw_error(ErrorCode::kUsage, "DST is '{}', expected the name of a folder: FP8 is no GGUF",
                  f.target);
    }
  } else if (!f.keep_bf16.empty()) {
    throw_error(ErrorCode::kUsage, "--keep-bf16 is of FP8; {} is one of llama.cpp's mixtures",
                f.type);
  } else if (!f.target.ends_with(".gguf")) {
    throw_error(ErrorCode::kUsage,
                "DST is '{}', expected a name that ends in .gguf: {} is a type "
                "of GGUF files",
                f.target, f.type);
  }
  std::error_code error;
  if (std::filesystem::equivalent(f.source, f.target, error)) {
    throw_error(ErrorCode::kUsage, "DST is SRC: {}", f.target);
  }
}

void say_what_was_done(const QuantizeFlags& f, const QuantizeReport& r) {
  constexpr std::size_t kShown = 3;
  const auto some = [&](const std::vector<std::string>& names) {
    std::string list;
    for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) {
      list += (i ? ", " : "") + names[i];
    }
    return names.size() > kShown ? fmt::format("{} and {} more", list, names.size() - kShown)
                                 : list;
  };
  if (!f.engine.quiet) {
    if (!r.without_importance.empty())
      write_note("not in the importance matrix: " + some(r.without_importance));
    if (!r.fallbacks.empty())
      write_note("rows that 256 does not divide have another type: " + some(r.fallbacks));
    if (r.left_out_mtp)
      write_note("the multi-token prediction layers are left out: --mtp keeps them");
    if (r.n_requantized > 0)
      write_note(fmt::format("{} tensors were quantised already: better take the original",
                             r.n_requantized));
  }
  if (f.json) {
    write_json({{"path", f.target},
                {"bytes_before", r.bytes_before},
                {"bytes", r.bytes_after},
                {"tensors", r.tensors},
                {"fallbacks", r.fallbacks.size()},
                {"without_importance", r.without_importance},
                {"requantized", r.n_requantized}});
    return;
  }
  write_out(fmt::format("{}: {} of weights, from {}; tensors: {}\n", f.target,
                        format_bytes(r.bytes_after), format_bytes(r.bytes_before),
                        counted_types(r.tensors)));
}

}  // namespace

int quantize_command(Arguments arguments) {
  QuantizeFlags f;
  if (!parse(describe(f), arguments)) return 0;
  f.source = find_model(f.source).string();
  const Quantization type = wanted(f.type);
  check_places(f, type);
  const InterruptGuard ctrl_c;
  const auto source = Checkpoint::open(f.source);
  std::optional<ImportanceMatrix> importance;
  if (!f.imatrix.empty()) importance = ImportanceMatrix::open(f.imatrix);

  std::optional<Progress> progress;
  QuantizeOptions options{.target = type,
                          .importance = importance ? &*importance : nullptr,
                          .keep_bf16 = parts_of(f.keep_bf16),
                          .mtp = f.mtp,
                          .n_threads = static_cast<int>(f.engine.threads)};
  if (!f.engine.quiet) {
    options.on_progress = shown_bytes(progress, "quantising");
  }
  const QuantizeReport report = quantize_checkpoint(*source, f.target, options);
  progress.reset();
  say_what_was_done(f, report);
  return 0;
}

}  // namespace kogia::cli
