#include "formats/memory_checkpoint.h"

#include <cstring>
#include <new>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"

namespace kogia {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void MemoryCheckpoint::Free::operator()(std::byte* p) const { ::operator delete(p, kAlignment); }

MemoryCheckpoint::MemoryCheckpoint(std::string path, std::string config_json)
    : path_(std::move(path)), config_json_(std::move(config_json)) {}
MemoryCheckpoint::~MemoryCheckpoint() = default;

std::byte* MemoryCheckpoint::add(std::string name, DType dtype, std::vector<Index> shape) {
  KOGIA_CHECK(!shape.empty() && find(name) == nullptr);
  TensorEntry entry{.name = std::move(name), .view = {}, .file = path_};
  entry.view.dtype = dtype;
  entry.view.shape = std::move(shape);
  Index rows = 1;
  for (std::size_t i = 0; i + 1 < entry.view.shape.size(); ++i) rows *= entry.view.shape[i];
  entry.view.n_bytes = rows * row_bytes(dtype, entry.view.shape.back());
  const auto size = static_cast<std::size_t>(entry.view.n_bytes);
  memory_.emplace_back(static_cast<std::byte*>(::operator new(size, kAlignment)));
  std::memset(memory_.back().get(), 0, size);
  entry.view.data = memory_.back().get();
  index_.emplace(entry.name, tensors_.size());
  tensors_.push_back(std::move(entry));
  return memory_.back().get();
}

std::byte* MemoryCheckpoint::data(std::string_view name) {
  const auto at = index_.find(name);
  KOGIA_CHECK(at != index_.end());
  return memory_[at->second].get();
}

const TensorEntry* MemoryCheckpoint::find(std::string_view name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &tensors_[at->second];
}

std::optional<std::string> MemoryCheckpoint::text_file(std::string_view file_name) const {
  if (file_name == "config.json") return config_json_;
  return {};
}

std::span<const MappedFile> MemoryCheckpoint::files() const { return {}; }

}  // namespace kogia
