#include "infer/cache_fingerprint.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "base/progress.h"
#include "formats/checkpoint.h"
#include "infer/file_hash.h"

namespace kogia {
namespace {

using std::string_view;

/// All files, whatever they are called and in which order, and config.json; a GGUF's configuration
/// is in the file.
std::string hash_of_weights(const Engine& engine) {
  const Checkpoint& checkpoint = engine.checkpoint();
  Index total = 0;
  for (const MappedFile& file : checkpoint.files()) total += file.size();
  Progress bar("hashing weights", total, ProgressUnit::kBytes,
               engine.options().show_progress ? Progress::Mode::kAuto : Progress::Mode::kSilent);
  std::vector<std::string> hashes;
  for (const MappedFile& file : checkpoint.files()) {
    const FileHashOptions options{.cache_folder = engine.options().packing.cache_folder,
                                  .release = !engine.options().packing.borrow,
                                  .on_bytes = [&](Index n) { bar.add(n); }};
    hashes.push_back(file_hash(file, engine.device(), options).hex());
  }
  bar.finish();
  std::ranges::sort(hashes);
  std::string text = checkpoint.text_file("config.json").value_or("");
  for (const std::string& hash : hashes) text += "\n" + hash;
  return hash_bytes_128(std::as_bytes(std::span(text))).hex();
}

/// What the model makes of four tokens: sees a processor or a library that computes otherwise
/// than its name promises.
std::string hash_of_numbers(const Engine& engine) {
  const Model& model = engine.model();
  const CachePool pool(model, engine.cache().memory().spec.dtype, kPageTokens);  // of zeros
  const Index vocab = model.config().vocab_size;
  std::array<std::int32_t, 4> ids{};
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(static_cast<Index>(i + 1) * 7919 % vocab);
  }
  const std::int32_t page = 0, last = 3;
  const SequenceRows rows{.row_begin = 0, .n_rows = 4, .first_pos = 0, .pages = &page};
  Workspace workspace;
  const ForwardResult result = model.forward(
      {.ids = ids, .sequences = {&rows, 1}, .logit_rows = {&last, 1}, .cache = pool.memory()},
      workspace);
  Hasher128 hasher;
  hasher.update({pool.memory().base, static_cast<std::size_t>(pool.page_bytes())});
  hasher.update(std::as_bytes(std::span(result.logits.data, static_cast<std::size_t>(vocab))));
  return hasher.finish().hex();
}

string_view mla_of(const Engine& engine) {
  return engine.model().config().is_mla() ? name(engine.options().mla) : "none";
}

std::string layout_of(const Engine& engine) {
  const CacheMemory& memory = engine.cache().memory();
  const CacheSpec& spec = memory.spec;
  return fmt::format("{}, {} layers of {} x ({} + {}), {} tokens in {} bytes", name(spec.dtype),
                     engine.model().config().num_hidden_layers, spec.n_kv_heads, spec.k_dim,
                     spec.v_dim, kPageTokens, memory.page_stride);
}

using Fields = std::vector<std::pair<string_view, string_view>>;

Fields fields_of(string_view fingerprint) {
  Fields fields;
  while (!fingerprint.empty()) {
    const string_view line = fingerprint.substr(0, fingerprint.find('\n'));
    fingerprint.remove_prefix(std::min(line.size() + 1, fingerprint.size()));
    const std::size_t colon = line.find(": ");
    if (colon != string_view::npos)
      fields.emplace_back(line.substr(0, colon), line.substr(colon + 2));
  }
  return fields;
}

}  // namespace

std::string cache_fingerprint(const Engine& engine) {
  return fmt::format(
      "weights: {}\ncompute: {}\nmla: {}\ndevice: {}\ncache: {}\narithmetic: {} {}\n",
      hash_of_weights(engine), engine.model().weights_summary(), mla_of(engine),
      engine.device().name(), layout_of(engine), kCacheArithmetic, hash_of_numbers(engine));
}

std::string fingerprint_digest(const std::string& fingerprint) {
  return hash_bytes_128(std::as_bytes(std::span(fingerprint))).hex();
}

std::string fingerprint_difference(const std::string& saved, const std::string& here) {
  constexpr std::size_t kMaxValue = 200;
  const Fields then = fields_of(saved);
  std::string text;
  for (const auto& [name, value] : fields_of(here)) {
    const auto found = std::ranges::find(then, name, &Fields::value_type::first);
    const string_view old = found == then.end() ? "missing" : found->second.substr(0, kMaxValue);
    if (old == value) continue;
    // The numbers differ with anything else that does.
    if (name == "arithmetic" && !text.empty()) continue;
    text += fmt::format("{}{} {}, here {}", text.empty() ? "" : "; ", name, old, value);
    if (name == "arithmetic") text += " (another kind of processor, or version of Kogia)";
  }
  return text.empty() ? "it says more than is known here" : text;
}

}  // namespace kogia
