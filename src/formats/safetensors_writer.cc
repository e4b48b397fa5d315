#include "formats/safetensors_writer.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

std::string_view safetensors_name(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "F64";
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::f8_e4m3:
      return "F8_E4M3";
    case DType::f8_e5m2:
      return "F8_E5M2";
    case DType::f8_e8m0:
      return "F8_E8M0";
    case DType::i64:
      return "I64";
    case DType::i32:
      return "I32";
    case DType::i16:
      return "I16";
    case DType::i8:
      return "I8";
    case DType::u8:
      return "U8";
    case DType::boolean:
      return "BOOL";
    default:
      return {};
  }
}

fs::path without_trailing_slash(fs::path p) { return p.has_filename() ? p : p.parent_path(); }

}  // namespace

SafetensorsWriter::SafetensorsWriter(fs::path folder, Index max_shard_bytes)
    : target_(without_trailing_slash(std::move(folder))), max_shard_bytes_(max_shard_bytes) {
  std::error_code error;
  if (fs::exists(target_, error) && !(fs::is_directory(target_) && fs::is_empty(target_))) {
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: is there already and not empty", target_.string()),
                "name another folder, or remove it");
  }
  staging_ = make_temporary_folder(target_);
}

SafetensorsWriter::~SafetensorsWriter() {
  file_.reset();
  std::error_code ignored;
  if (!committed_) fs::remove_all(staging_.path, ignored);
}

void SafetensorsWriter::add_text(std::string_view file_name, std::string_view text) {
  write_file_atomically(staging_.path / file_name, text);
}

void SafetensorsWriter::begin() {
  require_space(target_, n_declared_bytes());
  Index size = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (shards_.empty() || size + tensors_[i].n_bytes > max_shard_bytes_) {
      shards_.push_back({i, i});
      size = 0;
    }
    shards_.back().end = i + 1;
    size += tensors_[i].n_bytes;
  }
  // Before the shards: what is not finished names files that are not there, and does not load.
  if (shards_.size() > 1) write_index();
}

std::string SafetensorsWriter::shard_name(std::size_t shard) const {
  if (shards_.size() == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards_.size());
}

std::string SafetensorsWriter::header(const Shard& shard) const {
  Json json = {{"__metadata__", {{"format", "pt"}}}};
  Index offset = 0;
  for (std::size_t i = shard.first; i < shard.end; ++i) {
    const Declared& t = tensors_[i];
    KOGIA_CHECK(!safetensors_name(t.dtype).empty());
    // push_back: assignment by key would search all earlier names
    json.get_ref<Json::object_t&>().emplace_back(
        t.name, Json{{"dtype", safetensors_name(t.dtype)},
                     {"shape", t.shape},
                     {"data_offsets", {offset, offset + t.n_bytes}}});
    offset += t.n_bytes;
  }
  std::string text = json.dump();
  text.resize(static_cast<std::size_t>(round_up(static_cast<Index>(text.size()), 8)), ' ');
  return text;
}

void SafetensorsWriter::begin_tensor(std::size_t index) {
  if (index != shards_[shard_].first) return;
  file_.emplace(staging_.path / shard_name(shard_));
  const std::string text = header(shards_[shard_]);
  const std::uint64_t n = text.size();
  file_->append(std::string_view(reinterpret_cast<const char*>(&n), 8));
  file_->append(text);
}

void SafetensorsWriter::end_tensor(std::size_t index) {
  if (index + 1 != shards_[shard_].end) return;
  file_->commit();
  file_.reset();
  ++shard_;
}

void SafetensorsWriter::write_index() const {
  Json map = Json::object();
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    for (std::size_t i = shards_[s].first; i < shards_[s].end; ++i) {
      map.get_ref<Json::object_t&>().emplace_back(tensors_[i].name, shard_name(s));
    }
  }
  const Json index = {{"metadata", {{"total_size", n_declared_bytes()}}},
                      {"weight_map", std::move(map)}};
  write_file_atomically(staging_.path / "model.safetensors.index.json", index.dump(2) + "\n");
}

void SafetensorsWriter::commit() {
  KOGIA_CHECK(all_written());
  std::error_code error;
  fs::rename(staging_.path, target_, error);  // over an empty folder too
  if (error) {
    throw_error(ErrorCode::kIo, "{}: cannot rename the finished folder: {}", target_.string(),
                error.message());
  }
  committed_ = true;
  sync_folder_of(target_);
}

}  // namespace kogia
