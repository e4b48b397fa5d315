// GGUF files as a checkpoint: one file, or the parts NAME-00001-of-0000N.gguf of a split set.

#include "formats/gguf_checkpoint.h"

#include <algorithm>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/gguf_reader.h"
#include "formats/tensor_table.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

constexpr Index kMaxParts = 9999;

/// A file of a split set is number `no` (from 0) of `count`; one that stands alone is of 0 or 1.
struct SplitPlace {
  Index no = 0, count = 0;
};

SplitPlace split_place(const GgufMetadata& m) {
  const SplitPlace place = {.no = m.get_int("split.no").value_or(0),
                            .count = m.get_int("split.count").value_or(0)};
  if (place.count < 0 || place.count > kMaxParts) {
    throw_error(ErrorCode::kInvalid, "{}: split.count is {}, expected at most {}", m.file,
                place.count, kMaxParts);
  }
  return place;
}

class GgufCheckpoint : public Checkpoint, public GgufFile {
 public:
  explicit GgufCheckpoint(fs::path path) : path_(std::move(path)) {}

  CheckpointKind kind() const override { return CheckpointKind::kGguf; }
  std::string path() const override { return path_.string(); }
  const std::vector<TensorEntry>& tensors() const override { return table_.all(); }
  const TensorEntry* find(std::string_view name) const override { return table_.find(name); }
  std::optional<std::string> text_file(std::string_view) const override { return std::nullopt; }
  const GgufFile* gguf() const override { return this; }
  std::span<const MappedFile> files() const override { return files_; }
  const GgufMetadata& metadata() const override { return metadata_; }
  std::span<const GgufStoredKey> stored_keys() const override { return stored_keys_; }

  /// Adds a file; gives what it says of its place in a set. The first one's metadata become the
  /// checkpoint's.
  SplitPlace add_file(const fs::path& file) {
    files_.push_back(MappedFile::open(file));
    GgufContents contents = parse_gguf(files_.back().bytes(), file.string());
    for (TensorEntry& t : contents.tensors) {
      t.file = file.filename().string();
      table_.add(std::move(t));
    }
    const SplitPlace place = split_place(contents.metadata);
    if (files_.size() == 1) {
      metadata_ = std::move(contents.metadata);
      stored_keys_ = std::move(contents.stored_keys);
    }
    return place;
  }

 private:
  fs::path path_;
  std::vector<MappedFile> files_;
  GgufMetadata metadata_;
  std::vector<GgufStoredKey> stored_keys_;
  TensorTable table_;
};

bool is_number(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// NAME of NAME-00001-of-00002.gguf.
std::string split_stem(const fs::path& part, Index count) {
  constexpr std::string_view kPattern = "-00001-of-00002.gguf";
  const std::string file = part.filename().string();
  if (file.size() >= kPattern.size()) {
    const std::string_view end = std::string_view(file).substr(file.size() - kPattern.size());
    if (end[0] == '-' && is_number(end.substr(1, 5)) && end.substr(6, 4) == "-of-" &&
        is_number(end.substr(10, 5)) && end.substr(15) == ".gguf") {
      return file.substr(0, file.size() - kPattern.size());
    }
  }
  throw Error(
      ErrorCode::kInvalid,
      fmt::format("{}: one of {} parts, but its name does not say which", part.string(), count),
      "parts are named NAME-00001-of-00002.gguf");
}

void check_place(const fs::path& part, const SplitPlace& found, const SplitPlace& expected) {
  if (found.count != expected.count || found.no != expected.no) {
    throw_error(ErrorCode::kInvalid, "{}: says it is split.no {} of {}, expected {} of {}",
                part.string(), found.no, found.count, expected.no, expected.count);
  }
}

}  // namespace

std::unique_ptr<Checkpoint> open_gguf(const fs::path& path) {
  auto checkpoint = std::make_unique<GgufCheckpoint>(path);
  const Index count = checkpoint->add_file(path).count;
  if (count <= 1) return checkpoint;

  checkpoint = std::make_unique<GgufCheckpoint>(path);  // anew, from the first part on
  const std::string stem = split_stem(path, count);
  for (Index i = 0; i < count; ++i) {
    const fs::path part =
        path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", stem, i + 1, count);
    std::error_code error;
    if (!fs::exists(part, error)) {
      throw Error(ErrorCode::kNotFound,
                  fmt::format("{}: part {} of {} is missing", part.string(), i + 1, count),
                  "fetch all parts into one folder");
    }
    check_place(part, checkpoint->add_file(part), {.no = i, .count = count});
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
