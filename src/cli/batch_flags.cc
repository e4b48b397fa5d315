#include "cli/batch_flags.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "infer/cache_fingerprint.h"
#include "infer/drafter.h"

namespace kogia::cli {

std::optional<Index> parse_bytes(std::string_view text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto value = parse_double(text.substr(0, digits));
  std::string_view unit = text.substr(digits);
  if (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  double factor = 1;
  if (!unit.empty() && unit != "B") {
    constexpr std::string_view kUnits = "KMGT";
    const std::size_t power = kUnits.find(unit.front());
    const std::string_view rest = unit.substr(1);
    if (power == kUnits.npos || !(rest.empty() || rest == "B" || rest == "iB")) return {};
    factor = std::exp2(10 * (static_cast<double>(power) + 1));
  }
  if (!value || *value * factor >= 0x1p62) return {};
  return static_cast<Index>(*value * factor);
}

std::vector<OptionRow> BatchFlags::rows() {
  return {
      {.flags = "--speculate",
       .value = "HOW",
       .help = "guess tokens that the model then checks several at a time, as far as measured time "
               "says that it pays; the answer is the same. lookup: what followed the same words "
               "before follows again; mtp: by the model's own layers of multi-token prediction "
               "(none)",
       .target = &speculate,
       .choices = {"none", "lookup", "mtp"}},
      {.flags = "--cache-dir",
       .value = "DIR",
       .help = "keep what prompts made of the cache there: a beginning that was read once is not "
               "computed again, in later runs neither",
       .target = &cache_dir},
      {.flags = "--cache-size",
       .value = "SIZE",
       .help = "what that folder may hold; what was used longest ago leaves (8GiB)",
       .target = &cache_size},
  };
}

std::vector<OptionRow> BatchFlags::many_rows() {
  return {
      {.flags = "--max-sequences",
       .value = "N",
       .help = "answers that are written at once, at most (256)",
       .target = &max_sequences,
       .low = 1,
       .high = 65536},
      {.flags = "--step-tokens",
       .value = "N",
       .help = "tokens of all prompts and answers in one step, at most; 0: as --chunk (0)",
       .target = &step_tokens,
       .low = 0,
       .high = 1 << 20},
  };
}

void BatchFlags::check() const {
  const auto bytes = parse_bytes(cache_size);
  if (!bytes || *bytes <= 0) {
    throw_error(ErrorCode::kUsage, "--cache-size is '{}', expected a size, for example 20GiB",
                cache_size);
  }
}

DiskCache BatchFlags::open_cache(Engine& engine) const {
  if (cache_dir.empty()) return {};
  DiskCache cache;
  cache.store = PageStore::open({.folder = cache_dir,
                                 .max_bytes = *parse_bytes(cache_size),
                                 .fingerprint = cache_fingerprint(engine),
                                 .page_bytes = engine.cache().page_bytes()});
  cache.tier = std::make_unique<DiskTier>(engine, *cache.store);
  return cache;
}

BatcherOptions BatchFlags::options(const DiskCache& cache) const {
  BatcherOptions options{
      .step_tokens = step_tokens, .max_sequences = max_sequences, .lower_tier = cache.tier.get()};
  if (speculate == "lookup") {
    options.make_drafter = [experience = make_draft_experience()](const Request&) {
      return make_prompt_lookup(experience);
    };
  }
  if (needs_mtp()) {
    options.make_batch_drafter = [](Engine& engine) { return make_mtp_drafter(engine, {}); };
  }
  return options;
}

}  // namespace kogia::cli
