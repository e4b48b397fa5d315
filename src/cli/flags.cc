#include "cli/flags.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "base/error.h"
#include "base/log.h"
#include "cli/hub_flags.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

constexpr double kMaxThreads = 4096, kMaxTokens = 1 << 30;

std::optional<Compute> parse_compute(const std::string& word) {
  for (const Compute c :
       {Compute::f32, Compute::bf16, Compute::int16, Compute::int8, Compute::fp8}) {
    if (word == name(c)) return c;
  }
  return {};
}

MlaForm parse_mla(const std::string& word) {
  if (word == "expanded") return MlaForm::kExpanded;
  return word == "auto" ? MlaForm::kAuto : MlaForm::kAbsorbed;
}

}  // namespace

std::vector<OptionRow> EngineFlags::rows() {
  return {
      {.flags = "--threads",
       .value = "N",
       .help = "threads; 0: all cores (0)",
       .target = &threads,
       .low = 0,
       .high = kMaxThreads},
      {.flags = "--isa",
       .value = "SET",
       .help = "instruction set: scalar, avx2, avx512 or neon (the best this processor has)",
       .target = &isa,
       .choices = {"scalar", "avx2", "avx512", "neon"}},
      {.flags = "--compute",
       .value = "KIND",
       .help =
           "arithmetic of matrix products: f32, bf16, int16, int8 or fp8 (by the weights' format)",
       .target = &compute,
       .choices = {"f32", "bf16", "int16", "int8", "fp8"}},
      {.flags = "--mla",
       .value = "FORM",
       .help = "form of latent attention: absorbed, expanded, or auto, which expands for prompts: "
               "faster when they are long, but the bits of an answer then depend on how it was "
               "computed (absorbed)",
       .target = &mla,
       .choices = {"absorbed", "expanded", "auto"}},
      {.flags = "--ctx",
       .value = "N",
       .help = "tokens of context; 0: the model's maximum, or what fits in a quarter of memory (0)",
       .target = &ctx,
       .low = 0,
       .high = kMaxTokens},
      {.flags = "--cache-type",
       .value = "TYPE",
       .help = "numbers in the cache: f32 or bf16 (f32 with --compute f32, else bf16)",
       .target = &cache_type,
       .choices = {"f32", "bf16"}},
      {.flags = "--chunk",
       .value = "N",
       .help = "tokens per step of a prompt (512)",
       .target = &chunk,
       .low = 1,
       .high = kMaxTokens},
      {.flags = "--keep-packed",
       .value = {},
       .help = "keep the packed weights in MODEL.kpk, or in the cache folder where the model's is "
               "read-only or a pulled repository's: later starts map that file, with this flag or "
               "without",
       .target = &keep_packed},
      {.flags = "--verify",
       .value = {},
       .help = "read all of a MODEL.kpk and of the model it was packed from, and pack anew where "
               "anything has changed; without, sizes, times and headers are compared",
       .target = &verify},
      {.flags = "--no-pack",
       .value = {},
       .help =
           "compute from the mapped file: a model larger than memory runs too. The same answer, "
           "many times slower",
       .target = &no_pack},
      {.flags = "--quiet,-q",
       .value = {},
       .help = "no progress on standard error",
       .target = &quiet},
      {.flags = "--verbose",
       .value = {},
       .help = "say more on standard error: where a prompt leaves what is cached",
       .target = &verbose},
  };
}

std::filesystem::path cache_folder() {
  const auto get = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const auto own = get("KOGIA_CACHE"); !own.empty()) return own;
  if (const auto xdg = get("XDG_CACHE_HOME"); !xdg.empty()) return xdg / "kogia";
  const auto home = get("HOME");
  return home.empty() ? home : home / ".cache" / "kogia";
}

EngineOptions EngineFlags::options() const {
  if (no_pack && (keep_packed || verify)) {
    throw_error(ErrorCode::kUsage, "--no-pack packs nothing, and {} is about packed weights",
                keep_packed ? "--keep-packed" : "--verify");
  }
  EngineOptions options;
  options.cpu.n_threads = static_cast<int>(threads);
  if (!isa.empty()) options.cpu.isa = parse_isa(isa);
  if (!compute.empty()) options.compute = parse_compute(compute);
  options.mla = parse_mla(mla);
  if (!cache_type.empty()) options.cache_dtype = cache_type == "f32" ? DType::f32 : DType::bf16;
  options.ctx = ctx;
  options.cache_tokens = cache_tokens;
  options.chunk = chunk;
  options.load_mtp = options.need_mtp = options.guess_in_int8 = need_mtp;
  options.packing.borrow = no_pack;
  options.packing.keep = keep_packed;
  options.packing.verify = verify;
  options.packing.cache_folder = cache_folder();
  options.show_progress = !quiet;
  return options;
}

OptionGroup accepted_without_effect(EngineFlags& flags, std::uint64_t& seed) {
  OptionGroup group{"Accepted, without effect here", flags.rows()};
  group.rows.push_back({.flags = "--seed", .value = "N", .help = {}, .target = &seed});
  for (OptionRow& row : group.rows) row.help.clear();
  return group;
}

PartlyUsed partly_used(EngineFlags& flags, std::uint64_t& seed, std::string title,
                       std::initializer_list<std::string_view> used) {
  PartlyUsed groups{.used = {std::move(title), {}}, .unused = accepted_without_effect(flags, seed)};
  const auto is_used = [&](const OptionRow& row) {
    return std::ranges::find(used, row.flags) != used.end();
  };
  std::ranges::copy_if(flags.rows(), std::back_inserter(groups.used.rows), is_used);
  std::erase_if(groups.unused.rows, is_used);
  return groups;
}

std::unique_ptr<Engine> open_engine(const std::string& model, const EngineFlags& flags) {
  if (flags.verbose) set_log_level(LogLevel::kDebug);
  return Engine::open(find_model(model), flags.options());
}

std::vector<OptionRow> SamplingFlags::rows() {
  const std::string config = "generation_config.json's, else ";
  return {
      {.flags = "--temperature",
       .value = "X",
       .help = "0 takes the likeliest token each time (" + config + "0.8)",
       .target = &temperature,
       .low = 0},
      {.flags = "--top-k",
       .value = "N",
       .help = "only the N likeliest tokens; 0: off (" + config + "40)",
       .target = &top_k,
       .low = 0},
      {.flags = "--top-p",
       .value = "X",
       .help =
           "only the likeliest tokens that reach this probability together (" + config + "0.95)",
       .target = &top_p,
       .low = 0,
       .high = 1},
      {.flags = "--min-p",
       .value = "X",
       .help = "only tokens with at least this share of the likeliest one's probability (0 where "
               "there is a generation_config.json, else 0.05)",
       .target = &min_p,
       .low = 0,
       .high = 1},
      {.flags = "--repetition-penalty",
       .value = "X",
       .help = "divides the logits of tokens that the prompt or the answer holds (" + config +
               "1: off)",
       .target = &repetition_penalty,
       .low = 0.01,
       .high = 100},
      {.flags = "--frequency-penalty",
       .value = "X",
       .help = "subtracted from a logit for each time the answer holds the token (0)",
       .target = &frequency_penalty,
       .low = -2,
       .high = 2},
      {.flags = "--presence-penalty",
       .value = "X",
       .help = "subtracted from a logit once if the answer holds the token (0)",
       .target = &presence_penalty,
       .low = -2,
       .high = 2},
      {.flags = "--logit-bias",
       .value = "ID=X",
       .help = "added to the logit of a token, from -100 to 100; may be given several times",
       .target = &logit_bias},
      {.flags = "--seed",
       .value = "N",
       .help = "the same seed, the same answer; the random numbers depend on nothing else (0)",
       .target = &seed},
  };
}

SamplingParams SamplingFlags::params(const GenerationDefaults& d) const {
  const bool configured = d.temperature || d.top_p || d.top_k || d.repetition_penalty;
  SamplingParams p;
  p.temperature = temperature.value_or(d.temperature.value_or(configured ? 1.0 : 0.8));
  p.top_k = top_k.value_or(d.top_k.value_or(configured ? 0 : 40));
  p.top_p = top_p.value_or(d.top_p.value_or(configured ? 1.0 : 0.95));
  p.min_p = min_p.value_or(configured ? 0.0 : 0.05);
  p.repetition_penalty = repetition_penalty.value_or(d.repetition_penalty.value_or(1.0));
  p.frequency_penalty = frequency_penalty;
  p.presence_penalty = presence_penalty;
  p.seed = seed;
  for (const std::string& text : logit_bias) {
    const std::size_t equals = text.find('=');
    const auto id = parse_index(std::string_view(text).substr(0, equals));
    const auto bias = equals == std::string::npos
                          ? std::nullopt
                          : parse_double(std::string_view(text).substr(equals + 1));
    if (!id || !bias || *id < 0 || *id > std::numeric_limits<TokenId>::max()) {
      throw_error(ErrorCode::kUsage, "--logit-bias is '{}', expected ID=BIAS, for example 15043=-5",
                  text);
    }
    p.logit_bias[static_cast<TokenId>(*id)] = *bias;
  }
  validate(p);
  return p;
}

std::vector<OptionRow> StopFlags::rows() {
  return {
      {.flags = "--max-tokens,-n",
       .value = "N",
       .help = "tokens to generate at most; -1: until the model ends or the context is full (-1)",
       .target = &max_tokens,
       .low = -1,
       .high = kMaxTokens},
      {.flags = "--stop",
       .value = "TEXT",
       .help = "ends the answer before this text; may be given several times. A thought that "
               "holds it goes on",
       .target = &stop},
      {.flags = "--ignore-eos",
       .value = {},
       .help = "go on where the model would end",
       .target = &ignore_eos},
  };
}

void StopFlags::apply(GenerateOptions& options) const {
  options.max_tokens = max_tokens;
  options.stop = stop;
  options.ignore_eos = ignore_eos;
  for (const std::string& text : stop) {
    if (text.empty()) {
      throw_error(ErrorCode::kUsage, "--stop is empty, expected a text to stop at");
    }
    if (!is_utf8(text)) {
      throw_error(ErrorCode::kUsage, "--stop is no valid UTF-8: '{}'", printable(text));
    }
  }
}

}  // namespace kogia::cli
