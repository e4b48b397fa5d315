// GGUF files as a checkpoint: one file, or the parts NAME-00001-of-0000N.gguf of a split set.

#include <regex>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/gguf_reader.h"
#include "formats/tensor_table.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

constexpr Index kMaxParts = 9999;

class GgufCheckpoint : public Checkpoint, public GgufFile {
 public:
  explicit GgufCheckpoint(fs::path path) : path_(std::move(path)) {}

  CheckpointKind kind() const override { return CheckpointKind::kGguf; }
  std::string path() const override { return path_.string(); }
  const std::vector<TensorEntry>& tensors() const override { return table_.all(); }
  const TensorEntry* find(std::string_view name) const override { return table_.find(name); }
  std::optional<std::string> text_file(std::string_view) const override { return std::nullopt; }
  const GgufFile* gguf() const override { return this; }
  const GgufMetadata& metadata() const override { return metadata_; }

  /// Adds a file; gives its metadata. The first one's becomes the checkpoint's.
  GgufMetadata add_file(const fs::path& file) {
    files_.push_back(MappedFile::open(file));
    GgufContents contents = parse_gguf(files_.back().bytes(), file.string());
    for (TensorEntry& t : contents.tensors) {
      t.file = file.filename().string();
      table_.add(std::move(t));
    }
    if (files_.size() == 1) metadata_ = contents.metadata;
    return std::move(contents.metadata);
  }

 private:
  fs::path path_;
  std::vector<MappedFile> files_;
  GgufMetadata metadata_;
  TensorTable table_;
};

Index split_count(const GgufMetadata& m) {
  const Index n = m.get_int("split.count").value_or(0);
  if (n < 0 || n > kMaxParts) {
    throw_error(ErrorCode::kInvalid, "{}: split.count is {}, expected at most {}", m.file, n,
                kMaxParts);
  }
  return n;
}

fs::path part_path(const fs::path& part, Index number, Index count) {
  static const std::regex pattern("(.*)-[0-9]{5}-of-[0-9]{5}\\.gguf");
  std::smatch match;
  const std::string file = part.filename().string();
  if (file.size() > 1024 || !std::regex_match(file, match, pattern)) {
    throw Error(
        ErrorCode::kInvalid,
        fmt::format("{}: one of {} parts, but its name does not say which", part.string(), count),
        "parts are named NAME-00001-of-00002.gguf");
  }
  return part.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", match[1].str(), number, count);
}

void check_part(const GgufMetadata& m, Index number, Index count) {
  const Index found_count = split_count(m), found_number = m.require_int("split.no");
  if (found_count != count || found_number != number) {
    throw_error(ErrorCode::kInvalid, "{}: says it is split.no {} of {}, expected {} of {}", m.file,
                found_number, found_count, number, count);
  }
}

}  // namespace

std::unique_ptr<Checkpoint> open_gguf(const fs::path& path) {
  auto checkpoint = std::make_unique<GgufCheckpoint>(path);
  const Index count = split_count(checkpoint->add_file(path));
  if (count <= 1) return checkpoint;

  checkpoint = std::make_unique<GgufCheckpoint>(path);  // anew, from the first part on
  for (Index i = 0; i < count; ++i) {
    const fs::path part = part_path(path, i + 1, count);
    if (!fs::exists(part)) {
      throw Error(ErrorCode::kNotFound,
                  fmt::format("{}: part {} of {} is missing", part.string(), i + 1, count),
                  "fetch all parts into one folder");
    }
    check_part(checkpoint->add_file(part), i, count);
  }
  const auto expected = checkpoint->metadata().get_int("split.tensors.count");
  const auto found = static_cast<Index>(checkpoint->tensors().size());
  if (expected && *expected != found) {
    throw_error(ErrorCode::kInvalid, "{}: split.tensors.count is {}, but the parts hold {} tensors",
                path.string(), *expected, found);
  }
  return checkpoint;
}

}  // namespace kogia
