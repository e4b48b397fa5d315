#include "formats/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>

#include "base/error.h"
#include "formats/json_events.h"
#include "formats/tensor_table.h"

namespace kogia {
namespace {

struct NamedDType {
  std::string_view name;
  DType dtype;
};
constexpr std::array kDTypes = {
    NamedDType{"F64", DType::f64},         NamedDType{"F32", DType::f32},
    NamedDType{"F16", DType::f16},         NamedDType{"BF16", DType::bf16},
    NamedDType{"F8_E4M3", DType::f8_e4m3}, NamedDType{"F8_E5M2", DType::f8_e5m2},
    NamedDType{"F8_E8M0", DType::f8_e8m0}, NamedDType{"I64", DType::i64},
    NamedDType{"I32", DType::i32},         NamedDType{"I16", DType::i16},
    NamedDType{"I8", DType::i8},           NamedDType{"U8", DType::u8},
    NamedDType{"BOOL", DType::boolean}};

/// A tensor as the header describes it.
struct Described {
  std::string name;
  DType dtype = DType::f32;
  std::vector<Index> shape;
  std::array<Index, 2> offsets{};
};

/// Walks the header: top object, an object a tensor, its three fields.
class HeaderEvents : public JsonEvents {
 public:
  using JsonEvents::JsonEvents;
  std::vector<Described> tensors;

  bool start_object(std::size_t) override {
    if (depth_ == 2 || field_ != Field::kNone || (depth_ == 1 && name_.empty() && !named_)) {
      refuse("an object");
    }
    ++depth_;
    if (depth_ == 2 && !in_metadata()) begin_tensor();
    return true;
  }
  bool end_object() override {
    if (depth_ == 2 && !in_metadata()) end_tensor();
    if (--depth_ == 1) named_ = false;
    return true;
  }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      if (!names_.insert(key).second) {
        throw_error(ErrorCode::kInvalid, "{}: tensor {} is described twice", file_, key);
      }
      name_ = key;
      named_ = true;
    } else if (!in_metadata()) {
      begin_field(key);
    }
    return true;
  }
  bool string(string_t& text) override {
    if (depth_ == 2 && in_metadata()) return true;
    if (field_ != Field::kDType) refuse("a string");
    tensors.back().dtype = parse_dtype_name(text);
    field_ = Field::kNone;
    return true;
  }
  bool start_array(std::size_t) override {
    if (in_array_ || (field_ != Field::kShape && field_ != Field::kOffsets)) refuse("a list");
    in_array_ = true;
    return true;
  }
  bool end_array() override {
    if (field_ == Field::kOffsets && n_offsets_ != 2) {
      throw_error(ErrorCode::kInvalid, "{}: {}: {} numbers, expected 2", file_, place(),
                  n_offsets_);
    }
    in_array_ = false;
    field_ = Field::kNone;
    return true;
  }
  bool number_unsigned(number_unsigned_t n) override {
    if (!in_array_) refuse("a number");
    if (n > static_cast<std::uint64_t>(INT64_MAX)) refuse("a number beyond 63 bits");
    if (field_ == Field::kShape) {
      if (tensors.back().shape.size() == kMaxRank)
        refuse("a dimension more than a tensor may have");
      tensors.back().shape.push_back(static_cast<Index>(n));
    } else {
      if (n_offsets_ == 2) refuse("a third number");
      tensors.back().offsets[n_offsets_++] = static_cast<Index>(n);
    }
    return true;
  }

 private:
  enum class Field { kNone, kDType, kShape, kOffsets };
  static constexpr std::size_t kMaxRank = 16;

  bool in_metadata() const { return name_ == "__metadata__"; }

  std::string place() const override {
    constexpr std::array<std::string_view, 4> kFields = {"", ", dtype", ", shape",
                                                         ", data_offsets"};
    if (!named_) return "header";
    return fmt::format("{}{}", in_metadata() ? name_ : "tensor " + name_,
                       kFields[static_cast<std::size_t>(field_)]);
  }

  void begin_tensor() {
    tensors.emplace_back().name = name_;
    seen_ = {};
    n_offsets_ = 0;
  }
  void begin_field(const std::string& key) {
    field_ = key == "dtype"          ? Field::kDType
             : key == "shape"        ? Field::kShape
             : key == "data_offsets" ? Field::kOffsets
                                     : Field::kNone;
    if (field_ == Field::kNone) {
      throw_error(ErrorCode::kInvalid,
                  "{}: {}: unknown field {}, expected dtype, shape and data_offsets", file_,
                  place(), key);
    }
    bool& seen = seen_[static_cast<std::size_t>(field_) - 1];
    if (seen) throw_error(ErrorCode::kInvalid, "{}: {} is given twice", file_, place());
    seen = true;
  }
  void end_tensor() {
    constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};
    for (std::size_t i = 0; i < 3; ++i) {
      if (!seen_[i])
        throw_error(ErrorCode::kInvalid, "{}: {} has no {}", file_, place(), kFields[i]);
    }
  }
  DType parse_dtype_name(const std::string& text) const {
    const auto at = std::ranges::find(kDTypes, text, &NamedDType::name);
    if (at != kDTypes.end()) return at->dtype;
    throw_error(ErrorCode::kUnsupported, "{}: {}: unknown type {}", file_, place(), text);
  }

  int depth_ = 0;
  bool named_ = false, in_array_ = false;
  Field field_ = Field::kNone;
  std::string name_;
  std::array<bool, 3> seen_{};
  std::size_t n_offsets_ = 0;
  std::unordered_set<std::string> names_;
};

std::uint64_t read_header_length(std::span<const std::byte> bytes, const std::string& file) {
  constexpr std::string_view kHelp = "the download was cut off: fetch the file again";
  if (bytes.size() < 8) {
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: cut off: {} bytes, a safetensors file has at least 10", file,
                            bytes.size()),
                std::string(kHelp));
  }
  std::uint64_t n = 0;
  for (std::size_t i = 8; i-- > 0;) n = n << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  // A real header begins with '{'; where it does not, the first 8 bytes were never a length.
  const bool looks_right = bytes.size() == 8 || bytes[8] == std::byte{'{'};
  if (!looks_right || n > std::uint64_t{1} << 40) {
    throw_error(ErrorCode::kInvalid,
                "{}: not a safetensors file: expected a header length and '{{' at byte 8", file);
  }
  if (n > kMaxSafetensorsHeader) {
    throw_error(ErrorCode::kUnsupported, "{}: the header is {} bytes, more than the cap of {}",
                file, n, kMaxSafetensorsHeader);
  }
  if (n > bytes.size() - 8) {
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: cut off: the header needs {} bytes, the file has {}", file, n + 8,
                            bytes.size()),
                std::string(kHelp));
  }
  if (n < 2)
    throw_error(ErrorCode::kInvalid, "{}: the header is {} bytes, expected at least 2", file, n);
  return n;
}

void check_size(const Described& t, const std::string& file) {
  const auto expected = checked_bytes(t.dtype, t.shape);
  const Index found = t.offsets[1] - t.offsets[0];
  if (!expected || found != *expected) {
    throw_error(ErrorCode::kInvalid, "{}: tensor {}: bytes {}..{}, but its shape and type need {}",
                file, t.name, t.offsets[0], t.offsets[1],
                expected ? std::to_string(*expected) : "more than 2^63");
  }
}

/// Every byte of the data belongs to one tensor.
void check_cover(const std::vector<Described>& tensors, Index n_data, const std::string& file) {
  std::vector<const Described*> order;
  for (const Described& t : tensors) order.push_back(&t);
  std::ranges::sort(order, {}, [](const Described* t) { return t->offsets; });
  Index end = 0;
  std::string_view before = "the header";
  for (const Described* t : order) {
    if (t->offsets[0] != end) {
      throw_error(ErrorCode::kInvalid, "{}: tensor {} begins at byte {}, {} {} at {}", file,
                  t->name, t->offsets[0], before,
                  t->offsets[0] < end ? "overlaps it and ends" : "ends before a hole", end);
    }
    end = t->offsets[1];
    before = t->name;
    if (end > n_data) {
      throw Error(
          ErrorCode::kInvalid,
          fmt::format("{}: cut off: tensor {} needs bytes {}..{} of the data, the file has {}",
                      file, t->name, t->offsets[0], end, n_data),
          "the download was cut off: fetch the file again");
    }
  }
  if (end != n_data) {
    throw_error(ErrorCode::kInvalid, "{}: {} bytes of data after the last tensor", file,
                n_data - end);
  }
}

}  // namespace

std::vector<TensorEntry> parse_safetensors(std::span<const std::byte> bytes,
                                           const std::string& file) {
  const std::uint64_t n_header = read_header_length(bytes, file);
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  HeaderEvents header(file);
  header.read({text, n_header});

  const auto data = bytes.subspan(8 + n_header);
  for (const Described& t : header.tensors) {
    if (t.offsets[1] < t.offsets[0]) {
      throw_error(ErrorCode::kInvalid, "{}: tensor {}: data_offsets run backwards ({}, {})", file,
                  t.name, t.offsets[0], t.offsets[1]);
    }
    check_size(t, file);
  }
  check_cover(header.tensors, static_cast<Index>(data.size()), file);

  std::vector<TensorEntry> entries;
  entries.reserve(header.tensors.size());
  for (Described& t : header.tensors) {
    const TensorView view{t.dtype, std::move(t.shape), data.data() + t.offsets[0],
                          t.offsets[1] - t.offsets[0]};
    entries.push_back({std::move(t.name), view, file});
  }
  return entries;
}

}  // namespace kogia
