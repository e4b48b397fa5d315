#include "formats/checkpoint.h"

#include <algorithm>

#include "base/error.h"
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

std::vector<fs::path> files_with(const fs::path& folder, std::string_view extension) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == extension) files.push_back(entry.path());
  }
  if (error) throw_error(ErrorCode::kIo, "{}: cannot list: {}", folder.string(), error.message());
  std::ranges::sort(files);
  return files;
}

std::unique_ptr<Checkpoint> open_folder(const fs::path& folder) {
  if (!files_with(folder, ".safetensors").empty() ||
      fs::exists(folder / "model.safetensors.index.json")) {
    return open_safetensors(folder);
  }
  const auto ggufs = files_with(folder, ".gguf");
  if (ggufs.empty()) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: neither *.safetensors nor *.gguf in it", folder.string()),
                std::string(kWhatIsAModel));
  }
  // Several are one model if they are the parts of a split set.
  const bool one_set = ggufs.front().filename().string().find("-00001-of-") != std::string::npos;
  if (ggufs.size() > 1 && !one_set) {
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: {} GGUF files in it", folder.string(), ggufs.size()),
                fmt::format("name one of them: {}", ggufs.front().string()));
  }
  return open_gguf(ggufs.front());
}

}  // namespace

std::unique_ptr<Checkpoint> Checkpoint::open(const fs::path& path) {
  require_exists(path);
  if (fs::is_directory(path)) return open_folder(path);
  if (path.extension() == ".safetensors") return open_safetensors(path);
  if (path.extension() == ".gguf") return open_gguf(path);
  throw Error(ErrorCode::kUsage,
              fmt::format("{}: neither a folder, a .gguf nor a .safetensors", path.string()),
              std::string(kWhatIsAModel));
}

std::unique_ptr<Checkpoint> Checkpoint::open_config_only(const fs::path& path) {
  require_exists(path);
  return open_config_only_safetensors(path);
}

const TensorEntry& Checkpoint::require(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  throw_error(ErrorCode::kNotFound, "{}: no tensor {}", path(), name);
}

}  // namespace kogia
