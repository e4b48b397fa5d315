#include "formats/imatrix.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/gguf_reader.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";
constexpr Index kLongestName = 4096;

[[noreturn]] void refuse(const std::string& file, const std::string& what) {
  throw Error(ErrorCode::kInvalid, file + ": " + what,
              "an importance matrix is what llama.cpp's llama-imatrix writes");
}

std::vector<float> values_of(const TensorEntry& t, const std::string& file) {
  if (t.view.dtype != DType::f32) {
    refuse(file, fmt::format("{} is {}, expected f32", t.name, name(t.view.dtype)));
  }
  if (t.view.n_values() == 0) refuse(file, t.name + " has no values");
  std::vector<float> out(static_cast<std::size_t>(t.view.n_values()));
  std::memcpy(out.data(), t.view.data, out.size() * sizeof(float));
  return out;
}

/// sum / count of each matrix; its columns count alike where nothing was counted.
void divide(std::vector<float>& sums, const std::vector<float>& counts) {
  const std::size_t cols = sums.size() / counts.size();
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const float count = counts[i / cols];
    sums[i] = count > 0 ? sums[i] / count : 1;
  }
}

/// A place in a legacy file. Each read first asks whether the bytes are there.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}
  Index left() const { return static_cast<Index>(bytes_.size()); }
  const std::byte* take(Index n) {
    if (n > left()) {
      refuse(file_, fmt::format("no importance matrix, or cut off: {} bytes are needed, {} left", n,
                                left()));
    }
    const std::byte* at = bytes_.data();
    bytes_ = bytes_.subspan(static_cast<std::size_t>(n));
    return at;
  }
  Index number() {
    std::int32_t value;
    std::memcpy(&value, take(4), 4);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
};

}  // namespace

ImportanceMatrix ImportanceMatrix::open(const std::filesystem::path& path) {
  const MappedFile file = MappedFile::open(path);
  return parse(file.bytes(), path.string());
}

ImportanceMatrix ImportanceMatrix::parse(std::span<const std::byte> bytes,
                                         const std::string& file) {
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0) {
    return parse_legacy(bytes, file);
  }
  const GgufContents contents = parse_gguf(bytes, file);
  std::map<std::string_view, const TensorEntry*> by_name;
  for (const TensorEntry& t : contents.tensors) by_name.emplace(t.name, &t);
  ImportanceMatrix out;
  out.file_ = file;
  for (const TensorEntry& t : contents.tensors) {
    if (!t.name.ends_with(kSums)) continue;
    const std::string tensor = t.name.substr(0, t.name.size() - kSums.size());
    const auto counts = by_name.find(tensor + std::string(kCounts));
    if (counts == by_name.end())
      refuse(file, fmt::format("{} has no {}{}", t.name, tensor, kCounts));
    std::vector<float> sums = values_of(t, file), n = values_of(*counts->second, file);
    if (sums.empty() || n.empty() || sums.size() % n.size() != 0) {
      refuse(file, fmt::format("{} has {} values for {} counts", t.name, sums.size(), n.size()));
    }
    divide(sums, n);
    out.add(tensor, std::move(sums));
  }
  if (out.entries_.empty()) refuse(file, "holds no tensor that ends in .in_sum2");
  return out;
}

ImportanceMatrix ImportanceMatrix::parse_legacy(std::span<const std::byte> bytes,
                                                const std::string& file) {
  Cursor in(bytes, file);
  ImportanceMatrix out;
  out.file_ = file;
  const Index n_entries = in.number();
  if (n_entries < 1 || n_entries > in.left() / 12) {
    refuse(file,
           fmt::format("no importance matrix: {} entries in {} bytes", n_entries, bytes.size()));
  }
  for (Index i = 0; i < n_entries; ++i) {
    const Index length = in.number();
    if (length < 1 || length > kLongestName) {
      refuse(file, fmt::format("entry {} has a name of {} bytes", i + 1, length));
    }
    std::string tensor(reinterpret_cast<const char*>(in.take(length)),
                       static_cast<std::size_t>(length));
    in.number();  // of calls: only ratios within a tensor count
    const Index n = in.number();
    if (n < 1 || n > in.left() / 4) {
      refuse(file, fmt::format("{} has {} values, {} bytes are left", tensor, n, in.left()));
    }
    std::vector<float> values(static_cast<std::size_t>(n));
    std::memcpy(values.data(), in.take(n * 4), values.size() * 4);
    out.add(std::move(tensor), std::move(values));
  }
  return out;
}

void ImportanceMatrix::add(std::string name, std::vector<float> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i]) && values[i] >= 0) continue;
    refuse(file_, fmt::format("{}: value {} is {}, expected a finite one that is not negative",
                              name, i, values[i]));
  }
  if (!entries_.emplace(name, std::move(values)).second) {
    refuse(file_, fmt::format("{} is there twice", name));
  }
}

std::span<const float> ImportanceMatrix::find(std::string_view tensor, Index n_values) const {
  const auto at = entries_.find(tensor);
  if (at == entries_.end()) return {};
  const auto n = static_cast<Index>(at->second.size());
  if (n != n_values) {
    throw Error(
        ErrorCode::kInvalid,
        fmt::format("{}: {} has {} values, the tensor needs {}", file_, tensor, n, n_values),
        "the importance matrix is of another model");
  }
  return at->second;
}

}  // namespace kogia
