#include "hub/choose.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "base/error.h"

namespace kogia::hub {
namespace {

constexpr std::string_view kIndex = "model.safetensors.index.json";
constexpr std::array<std::string_view, 11> kTexts{
    "generation_config.json", "tokenizer.json",      "tokenizer_config.json",
    "tokenizer.model",        "vocab.json",          "merges.txt",
    "added_tokens.json",      "chat_template.jinja", "special_tokens_map.json",
    "chat_template.json",     "config.json"};  // config.json last: without it nothing loads
constexpr std::size_t kMaxListed = 40;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string_view file_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

struct Part {
  std::string_view stem;
  std::size_t number = 1, count = 1;
};

// "NAME-00002-of-00005" is part 2 of 5.
Part part_of(std::string_view stem) {
  constexpr std::size_t kSuffix = std::string_view("-00001-of-00002").size();
  if (stem.size() <= kSuffix) return {.stem = stem};
  const std::string_view suffix = stem.substr(stem.size() - kSuffix);
  const auto number = [&](std::size_t at) {
    std::size_t value = 0;
    for (const char c : suffix.substr(at, 5)) {
      if (c < '0' || c > '9') return std::size_t{0};
      value = 10 * value + static_cast<std::size_t>(c - '0');
    }
    return value;
  };
  const std::size_t no = number(1), count = number(10);
  if (suffix[0] != '-' || suffix.substr(6, 4) != "-of-" || no == 0 || no > count) {
    return {.stem = stem};
  }
  return {.stem = stem.substr(0, stem.size() - kSuffix), .number = no, .count = count};
}

bool is_model_gguf(std::string_view path) {
  if (!path.ends_with(".gguf")) return false;
  const std::string name = lower(file_name(path));
  const auto has = [&](const char* word) { return name.find(word) != std::string::npos; };
  return !has("mmproj") && !has("imatrix") && !has("mtp-") && !has("eagle3-") && !has("dflash-");
}

bool is_border(char c) { return c == '-' || c == '.' || c == '_' || c == '/'; }

// The rules from the strictest to the loosest; the first one that any set fulfils decides.
bool matches(const GgufSet& set, std::string_view wanted, int rule) {
  const std::string stem = lower(set.stem);
  std::string word = lower(wanted);
  const bool by_file = word.ends_with(".gguf");
  if (by_file) word = part_of(std::string_view(word).substr(0, word.size() - 5)).stem;
  switch (rule) {
    case 0:  // a path, of any part
      return stem == word;
    case 1:  // a file name, whatever its folder
      return file_name(stem) == word;
    case 2: {  // the quantisation at the end
      if (by_file || !stem.ends_with(word) || stem.size() == word.size()) return false;
      return is_border(stem[stem.size() - word.size() - 1]);
    }
    default: {  // the quantisation anywhere, as llama.cpp finds it
      const std::size_t at = by_file ? std::string::npos : stem.find(word);
      return at != std::string::npos && at + word.size() < stem.size() &&
             (stem[at + word.size()] == '-' || stem[at + word.size()] == '.');
    }
  }
}
constexpr int kRules = 4;

std::string lines_of(const std::vector<const GgufSet*>& sets, const std::string& repository) {
  std::string out;
  for (std::size_t i = 0; i < std::min(sets.size(), kMaxListed); ++i) {
    out += fmt::format("\n{}:{}.gguf", repository, sets[i]->stem);
    if (sets[i]->n_parts > 1) out += fmt::format("  ({} parts)", sets[i]->n_parts);
  }
  if (sets.size() > kMaxListed) out += fmt::format("\nand {} more", sets.size() - kMaxListed);
  return out;
}

std::vector<std::string> paths_of(const Listing& listing) {
  std::vector<std::string> paths;
  for (const RemoteFile& file : listing.files) paths.push_back(file.path);
  return paths;
}

// Weights of the folder itself, without other forms of the same (Mistral's consolidated files) and
// what is added to a model (LoRA).
std::vector<RemoteFile> plain_safetensors(const Listing& listing) {
  std::vector<RemoteFile> out;
  for (const RemoteFile& file : listing.files) {
    if (!file.path.ends_with(".safetensors") || file.path.find('/') != std::string::npos) continue;
    if (file.path.starts_with("consolidated") || file.path.starts_with("adapter_")) continue;
    out.push_back(file);
  }
  std::ranges::sort(out, {}, &RemoteFile::path);
  return out;
}

Choice choose_safetensors(const Listing& listing, std::vector<RemoteFile> weights,
                          const std::string& repository) {
  Choice choice;
  const RemoteFile* single = listing.find("model.safetensors");
  if (const RemoteFile* index = listing.find(kIndex); single == nullptr && index != nullptr) {
    choice.by_index = true;
    choice.files.push_back(*index);
  } else if (single != nullptr) {
    choice.files.push_back(*single);
  } else if (weights.size() == 1) {
    choice.files.push_back(weights[0]);
  } else {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: {} .safetensors files and neither model.safetensors nor {}",
                            repository, weights.size(), kIndex),
                fmt::format("name one: {}:{}", repository, weights[0].path));
  }
  if (listing.find("config.json") == nullptr) {
    throw Error(ErrorCode::kUnsupported, fmt::format("{}: weights without config.json", repository),
                "it may be a part of a model (an adapter); pull the model that its card names");
  }
  for (const std::string_view text : kTexts) {
    if (const RemoteFile* file = listing.find(text)) choice.files.push_back(*file);
  }
  return choice;
}

Choice choose_gguf(const Listing& listing, const GgufSet& set, const std::string& repository) {
  if (set.paths.size() != set.n_parts) {
    throw_error(ErrorCode::kInvalid, "{}: {} of {} parts of {} are in the repository", repository,
                set.paths.size(), set.n_parts, set.stem);
  }
  Choice choice;
  for (const std::string& path : set.paths) choice.files.push_back(*listing.find(path));
  return choice;
}

Choice choose_named(const Listing& listing, const std::vector<GgufSet>& sets,
                    const ModelName& name) {
  if (const GgufSet* set = find_gguf(sets, name.file, name.repository)) {
    return choose_gguf(listing, *set, name.repository);
  }
  if (const RemoteFile* file = listing.find(name.file)) return {.files = {*file}};
  std::vector<const GgufSet*> all;
  for (const GgufSet& set : sets) all.push_back(&set);
  throw Error(
      ErrorCode::kNotFound,
      fmt::format("{}: no file and no quantisation '{}' in it{}{}", name.repository, name.file,
                  all.empty() ? "" : "; there are", lines_of(all, name.repository)),
      all.empty() ? "it holds no GGUF: leave out what follows the colon" : "name one of these");
}

}  // namespace

std::vector<GgufSet> gguf_sets(std::vector<std::string> paths) {
  std::ranges::sort(paths);
  std::map<std::pair<std::string, std::size_t>, GgufSet> sets;  // by stem and number of parts
  for (const std::string& path : paths) {
    if (!is_model_gguf(path)) continue;
    const Part part = part_of(std::string_view(path).substr(0, path.size() - 5));
    GgufSet& set = sets[{std::string(part.stem), part.count}];
    set.stem = part.stem;
    set.n_parts = part.count;
    set.paths.push_back(path);
  }
  std::vector<GgufSet> out;
  for (auto& [key, set] : sets) out.push_back(std::move(set));
  return out;
}

const GgufSet* find_gguf(std::span<const GgufSet> sets, std::string_view wanted,
                         const std::string& repository) {
  for (int rule = 0; rule < kRules; ++rule) {
    std::vector<const GgufSet*> found;
    for (const GgufSet& set : sets) {
      if (wanted.empty() || matches(set, wanted, rule)) found.push_back(&set);
    }
    if (found.size() == 1) return found[0];
    if (found.empty()) continue;
    const std::string what = wanted.empty() ? "" : fmt::format(" '{}'", wanted);
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: {} GGUF models in it fit{}{}", repository, found.size(),
                            wanted.empty() ? "" : what, lines_of(found, repository)),
                "name one of these, or its quantisation after the colon");
  }
  return nullptr;
}

Choice choose_files(const Listing& listing, const ModelName& name) {
  const std::vector<GgufSet> sets = gguf_sets(paths_of(listing));
  if (!name.file.empty()) return choose_named(listing, sets, name);
  if (auto weights = plain_safetensors(listing); !weights.empty()) {
    return choose_safetensors(listing, std::move(weights), name.repository);
  }
  if (const GgufSet* only = find_gguf(sets, {}, name.repository)) {
    return choose_gguf(listing, *only, name.repository);
  }
  throw Error(ErrorCode::kUnsupported,
              fmt::format("{}: neither .safetensors nor .gguf among its {} files", name.repository,
                          listing.files.size()),
              "look for another repository of the model: older weights (.bin, .pth) are not read");
}

std::vector<RemoteFile> choose_weights(const Listing& listing, std::span<const std::string> files,
                                       std::string_view where) {
  std::vector<RemoteFile> out;
  for (const std::string& name : files) {
    const RemoteFile* file = listing.find(name);
    if (file == nullptr || !name.ends_with(".safetensors")) {
      throw_error(ErrorCode::kInvalid, "{}: names {}, which is no .safetensors of the repository",
                  where, name);
    }
    out.push_back(*file);
  }
  return out;
}

}  // namespace kogia::hub
