#include "formats/checkpoint.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/gguf_checkpoint.h"
#include "formats/safetensors.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kWhatIsAModel =
    "a model is a folder with config.json and *.safetensors, a .gguf file, or a folder with one";

void require_exists(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    throw Error(ErrorCode::kNotFound, fmt::format("{}: no such file or folder", path.string()),
                std::string(kWhatIsAModel));
  }
}

/// Runs f; what the file system refuses (a folder that may not be listed) becomes an Error.
template <class F>
std::unique_ptr<Checkpoint> with_named_errors(F&& f) {
  try {
    return f();
  } catch (const fs::filesystem_error& e) {
    throw_error(ErrorCode::kIo, "{}: cannot read: {}", e.path1().string(), e.code().message());
  }
}

/// Hidden files are not the user's: macOS leaves a ._NAME beside each file it copies.
std::vector<fs::path> files_with(const fs::path& folder, std::string_view extension) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& file = entry.path();
    if (file.extension() == extension && !file.filename().string().starts_with('.')) {
      files.push_back(file);
    }
  }
  std::ranges::sort(files);
  return files;
}

/// NAME of NAME-00001-of-00002.gguf; the whole file name for a file that is no part.
std::string set_name(const fs::path& gguf) {
  const std::string file = gguf.stem().string();
  const std::size_t n_suffix = std::string_view("-00001-of-00002").size();
  if (file.size() <= n_suffix || file.compare(file.size() - 9, 4, "-of-") != 0) return file;
  return file.substr(0, file.size() - n_suffix) + file.substr(file.size() - 9);
}

/// Several files are one model if they are the parts of one split set.
std::unique_ptr<Checkpoint> open_gguf_of(const fs::path& folder, std::string_view expected) {
  const auto ggufs = files_with(folder, ".gguf");
  if (ggufs.empty()) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: neither {} nor *.gguf in it", folder.string(), expected),
                std::string(kWhatIsAModel));
  }
  const std::string first = set_name(ggufs.front());
  if (!std::ranges::all_of(ggufs, [&](const fs::path& f) { return set_name(f) == first; })) {
    throw Error(
        ErrorCode::kInvalid,
        fmt::format("{}: {} GGUF files in it, not of one set", folder.string(), ggufs.size()),
        fmt::format("name one of them: {}", ggufs.front().string()));
  }
  return open_gguf(ggufs.front());
}

std::unique_ptr<Checkpoint> open_folder(const fs::path& folder) {
  if (!files_with(folder, ".safetensors").empty() ||
      fs::exists(folder / "model.safetensors.index.json")) {
    return open_safetensors(folder);
  }
  return open_gguf_of(folder, "*.safetensors");
}

std::unique_ptr<Checkpoint> open_any(const fs::path& path) {
  if (fs::is_directory(path)) return open_folder(path);
  if (path.extension() == ".safetensors") return open_safetensors(path);
  if (path.extension() == ".gguf") return open_gguf(path);
  throw Error(ErrorCode::kInvalid,
              fmt::format("{}: neither a folder, a .gguf nor a .safetensors", path.string()),
              std::string(kWhatIsAModel));
}

std::unique_ptr<Checkpoint> open_config_of(const fs::path& path) {
  if (path.extension() == ".gguf" && !fs::is_directory(path)) return open_gguf(path);
  if (fs::is_directory(path) && !fs::exists(path / "config.json")) {
    return open_gguf_of(path, "config.json");
  }
  return open_config_only_safetensors(path);
}

}  // namespace

std::unique_ptr<Checkpoint> Checkpoint::open(const fs::path& path) {
  require_exists(path);
  return with_named_errors([&] { return open_any(path); });
}

std::unique_ptr<Checkpoint> Checkpoint::open_config_only(const fs::path& path) {
  require_exists(path);
  return with_named_errors([&] { return open_config_of(path); });
}

const TensorEntry& Checkpoint::require(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  throw_error(ErrorCode::kNotFound, "{}: no tensor {}", path(), name);
}

void Checkpoint::release(const std::byte* data, Index n) const {
  for (const MappedFile& file : files()) {
    const std::byte* begin = file.bytes().data();
    if (std::less<>()(data, begin) || !std::less<>()(data, begin + file.size())) continue;
    file.advise_dontneed(data - begin, n);
  }
}

}  // namespace kogia
