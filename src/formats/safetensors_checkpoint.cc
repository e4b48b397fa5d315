// A folder of safetensors: which files belong to it, and whether they hold what the index promises.

#include <algorithm>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/json_events.h"
#include "formats/safetensors.h"
#include "formats/tensor_table.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr Index kMaxTextBytes = Index{512} << 20;

class IndexEvents : public JsonEvents {
 public:
  using JsonEvents::JsonEvents;
  std::map<std::string, std::string> weight_map;

  bool start_object(std::size_t) override { return enter(); }
  bool start_array(std::size_t) override {
    if (depth_ <= 1 && (depth_ == 0 || top_ == "weight_map")) refuse("a list");
    return enter();
  }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& key) override {
    if (depth_ == 1) top_ = key;
    if (depth_ == 2) name_ = key;
    return true;
  }
  bool string(string_t& text) override {
    if (!in_map()) return other("a string");
    check_file_name(text);
    if (!weight_map.emplace(name_, text).second) {
      throw_error(ErrorCode::kInvalid, "{}: weight_map names {} twice", file_, name_);
    }
    return true;
  }
  // "metadata" may hold anything.
  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t) override { return other("a number"); }
  bool number_unsigned(number_unsigned_t) override { return other("a number"); }
  bool number_float(number_float_t, const string_t&) override { return other("a number"); }

 private:
  static constexpr int kMaxDepth = 16;

  bool in_map() const { return depth_ == 2 && top_ == "weight_map"; }
  bool other(std::string_view found) {
    if (depth_ == 0 || top_ == "weight_map") refuse(found);
    return true;
  }
  bool enter() {
    if (depth_ == kMaxDepth || (depth_ >= 2 && top_ == "weight_map")) refuse("nesting");
    ++depth_;
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }
  void check_file_name(const std::string& name) const {
    const bool plain = name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (plain && name != ".." && name.ends_with(".safetensors")) return;
    throw_error(ErrorCode::kInvalid,
                "{}: {}: expected a plain file name ending in .safetensors, found '{}'", file_,
                place(), name);
  }
  std::string place() const override {
    if (depth_ == 0) return "index";
    return top_ == "weight_map" && depth_ > 1 ? "weight_map, " + name_ : top_;
  }

  int depth_ = 0;
  std::string top_, name_;
};

std::optional<std::string> read_text(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  const MappedFile mapped = MappedFile::open(file);
  if (mapped.size() > kMaxTextBytes) {
    throw_error(ErrorCode::kInvalid, "{}: {} bytes, more than the {} a text may have",
                file.string(), mapped.size(), kMaxTextBytes);
  }
  const auto bytes = mapped.bytes();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

class SafetensorsCheckpoint : public Checkpoint {
 public:
  /// `config` is the config.json, whatever its name.
  SafetensorsCheckpoint(fs::path folder, fs::path path, fs::path config)
      : folder_(std::move(folder)), path_(std::move(path)), config_(std::move(config)) {}

  CheckpointKind kind() const override { return CheckpointKind::kSafetensors; }
  std::string path() const override { return path_.string(); }
  const std::vector<TensorEntry>& tensors() const override { return table_.all(); }
  const TensorEntry* find(std::string_view name) const override { return table_.find(name); }
  std::optional<std::string> text_file(std::string_view name) const override {
    return read_text(name == "config.json" ? config_ : folder_ / name);
  }
  const GgufFile* gguf() const override { return nullptr; }
  std::span<const MappedFile> files() const override { return files_; }

  void add_file(const std::string& name) {
    files_.push_back(MappedFile::open(folder_ / name));
    for (TensorEntry& t : parse_safetensors(files_.back().bytes(), files_.back().name())) {
      t.file = name;
      table_.add(std::move(t));
    }
  }
  void add_indexed(const std::map<std::string, std::string>& weight_map);

 private:
  fs::path folder_, path_, config_;
  std::vector<MappedFile> files_;
  TensorTable table_;
};

void SafetensorsCheckpoint::add_indexed(const std::map<std::string, std::string>& weight_map) {
  std::set<std::string> names;
  std::error_code ignored;  // a name too long for a file is that of a missing one
  for (const auto& [tensor, file] : weight_map) {
    if (names.insert(file).second && !fs::exists(folder_ / file, ignored)) {
      throw Error(ErrorCode::kNotFound,
                  fmt::format("{}: {} is missing; {} says that it holds {}", path(), file,
                              kIndexName, tensor),
                  "the download is not complete: fetch the missing file");
    }
  }
  for (const std::string& file : names) add_file(file);
  for (const auto& [tensor, file] : weight_map) {
    const TensorEntry* entry = table_.find(tensor);
    if (entry == nullptr || entry->file != file) {
      throw_error(ErrorCode::kInvalid, "{}: {} says that {} is in {}, but it is {}", path(),
                  kIndexName, tensor, file, entry == nullptr ? "not there" : "in " + entry->file);
    }
  }
  for (const TensorEntry& t : table_.all()) {
    if (!weight_map.contains(t.name)) {
      throw_error(ErrorCode::kInvalid, "{}: {} holds {}, which {} does not name", path(), t.file,
                  t.name, kIndexName);
    }
  }
}

/// The files of a folder without an index. model.safetensors is the whole model where it is there:
/// what lies beside it (consolidated.safetensors, an adapter) holds the same weights or others.
std::vector<std::string> safetensors_in(const fs::path& folder) {
  if (fs::exists(folder / "model.safetensors")) return {"model.safetensors"};
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") && !name.starts_with('.')) names.push_back(std::move(name));
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace

std::map<std::string, std::string> parse_safetensors_index(std::string_view text,
                                                           const std::string& file) {
  IndexEvents events(file);
  events.read(text);
  if (events.weight_map.empty())
    throw_error(ErrorCode::kInvalid, "{}: weight_map is missing or empty", file);
  return std::move(events.weight_map);
}

std::unique_ptr<Checkpoint> open_safetensors(const fs::path& path) {
  if (!fs::is_directory(path)) {
    const fs::path folder = path.parent_path();
    auto one = std::make_unique<SafetensorsCheckpoint>(folder, path, folder / "config.json");
    one->add_file(path.filename().string());
    return one;
  }
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>(path, path, path / "config.json");
  if (const auto index = read_text(path / kIndexName)) {
    checkpoint->add_indexed(parse_safetensors_index(*index, (path / kIndexName).string()));
    return checkpoint;
  }
  for (const std::string& name : safetensors_in(path)) checkpoint->add_file(name);
  return checkpoint;
}

std::unique_ptr<Checkpoint> open_config_only_safetensors(const fs::path& path) {
  const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
  const fs::path config =
      path.extension() == ".json" && folder != path ? path : folder / "config.json";
  return std::make_unique<SafetensorsCheckpoint>(folder, path, config);
}

}  // namespace kogia
