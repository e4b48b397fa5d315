#include "hub/cache.h"

#include <algorithm>
#include <fstream>
#include <vector>

#include "base/error.h"
#include "hub/choose.h"
#include "hub/listing.h"

namespace kogia::hub {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxIndexBytes = std::size_t{64} << 20, kMaxFiles = 100'000;

std::optional<std::string> read_bounded(const fs::path& path, std::size_t limit) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error || size > limit) return {};
  std::ifstream in(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(size), '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(text.size())) && !in.eof()) return {};
  text.resize(static_cast<std::size_t>(in.gcount()));
  return text;
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);  // through the link: its blob is there
}

// Paths of the files in a snapshot whose blobs are there.
std::vector<std::string> files_in(const fs::path& snapshot) {
  std::vector<std::string> files;
  std::error_code error;
  for (auto at = fs::recursive_directory_iterator(snapshot, error);
       !error && at != fs::recursive_directory_iterator() && files.size() < kMaxFiles;
       at.increment(error)) {
    if (is_file(at->path())) files.push_back(at->path().lexically_relative(snapshot).string());
  }
  std::ranges::sort(files);
  return files;
}

Error not_pulled(const ModelName& name, const std::string& what) {
  const std::string revision = name.revision == "main" ? "" : " --revision " + name.revision;
  ModelName plain = name;
  plain.revision = "main";
  return {ErrorCode::kNotFound, what,
          fmt::format("`kogia pull {}{}` fetches it", plain.text(), revision)};
}

// Other programs fetch single files; a folder with half of its weights is no model.
void require_whole_safetensors(const fs::path& snapshot, const ModelName& name) {
  const auto missing = [&](const std::string& file) {
    throw not_pulled(name, fmt::format("{}: only a part of it is there: no {} in {}", name.text(),
                                       file, snapshot.string()));
  };
  if (!is_file(snapshot / "config.json")) missing("config.json");
  const fs::path index = snapshot / "model.safetensors.index.json";
  if (is_file(snapshot / "model.safetensors") || !is_file(index)) return;
  const auto text = read_bounded(index, kMaxIndexBytes);
  if (!text) throw_error(ErrorCode::kInvalid, "{}: too large for an index", index.string());
  for (const std::string& file : parse_weight_files(*text, index.string())) {
    if (!is_file(snapshot / file)) missing(file);
  }
}

fs::path gguf_of(const fs::path& snapshot, const GgufSet& set, const ModelName& name) {
  if (set.paths.size() != set.n_parts) {
    throw not_pulled(name, fmt::format("{}: {} of {} parts of {} are there", name.text(),
                                       set.paths.size(), set.n_parts, set.stem));
  }
  return snapshot / set.paths[0];
}

bool is_root_safetensors(const std::string& file) {
  return file.ends_with(".safetensors") && file.find('/') == std::string::npos;
}

}  // namespace

std::string cache_folder_name(const std::string& repository) {
  std::string out = "models--" + repository;
  out.replace(out.find('/'), 1, "--");
  return out;
}

std::optional<fs::path> find_snapshot(const fs::path& cache, const std::string& repository,
                                      const std::string& revision) {
  const fs::path folder = cache / cache_folder_name(repository);
  std::string commit = revision;
  if (!is_commit(revision)) {
    const auto text = read_bounded(folder / "refs" / revision, 256);
    if (!text) return {};
    commit = text->substr(0, text->find_last_not_of(" \r\n\t") + 1);
    if (!is_commit(commit)) return {};
  }
  std::error_code ignored;
  const fs::path snapshot = folder / "snapshots" / commit;
  if (!fs::is_directory(snapshot, ignored)) return {};
  return snapshot;
}

fs::path find_pulled(const fs::path& cache, const ModelName& name) {
  const auto snapshot = find_snapshot(cache, name.repository, name.revision);
  if (!snapshot) {
    throw not_pulled(name,
                     fmt::format("{}: no such file or folder, and not pulled either", name.text()));
  }
  const std::vector<std::string> files = files_in(*snapshot);
  if (name.file.empty() && std::ranges::any_of(files, is_root_safetensors)) {
    require_whole_safetensors(*snapshot, name);
    return *snapshot;
  }
  const std::vector<GgufSet> sets = gguf_sets(files);
  if (const GgufSet* set = find_gguf(sets, name.file, name.repository)) {
    return gguf_of(*snapshot, *set, name);
  }
  if (!name.file.empty() && std::ranges::binary_search(files, name.file)) {
    return *snapshot / name.file;
  }
  throw not_pulled(name, fmt::format("{}: {} in {}", name.text(),
                                     name.file.empty() ? "no weights" : "not pulled: no such file",
                                     snapshot->string()));
}

fs::path find_model(const fs::path& cache, const std::string& model) {
  std::error_code ignored;
  if (fs::exists(model, ignored)) return model;
  const auto name = parse_model_name(model);
  // What ends like a file and has no colon is a path with a slip in it.
  const fs::path path(model);
  const bool like_a_file = path.extension() == ".gguf" || path.extension() == ".safetensors" ||
                           path.extension() == ".json";
  if (!name || cache.empty() || (name->file.empty() && like_a_file)) return model;
  return find_pulled(cache, *name);
}

}  // namespace kogia::hub
