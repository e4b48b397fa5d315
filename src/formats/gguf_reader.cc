#include "formats/gguf_reader.h"

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>

#include "base/error.h"
#include "formats/gguf_types.h"
#include "formats/tensor_table.h"

namespace kogia {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are read as they lie in the file");

constexpr std::size_t kMaxName = 65535;  // the format's limit of keys
constexpr std::uint32_t kMaxRank = 4;
constexpr std::size_t kLeastKeyBytes = 8 + 4 + 1, kLeastTensorBytes = 8 + 4 + 4 + 8;
constexpr std::string_view kFetchAgain = "the download was cut off: fetch the file again";

enum ValueType : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kNumberOfTypes
};

/// A place in the file. Each read first asks whether the bytes are there.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& file)
      : bytes_(bytes.first(std::min(bytes.size(), kMaxGgufHeader))),
        file_bytes_(bytes.size()),
        file_(file) {}

  /// What is being read, for messages.
  std::string what = "header";

  std::size_t position() const { return at_; }
  std::span<const std::byte> since(std::size_t position) const {
    return bytes_.subspan(position, at_ - position);
  }
  std::size_t left() const { return bytes_.size() - at_; }
  const std::string& file() const { return file_; }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  std::string text(std::size_t longest) {
    const auto n = number<std::uint64_t>();
    if (n > longest && n <= left()) {
      fail(fmt::format("a string of {} bytes, expected at most {}", n, longest));
    }
    const auto* p = take(n);
    return {reinterpret_cast<const char*>(p), static_cast<std::size_t>(n)};
  }
  /// A count of things that take at least `least` bytes each.
  std::size_t count(std::uint64_t n, std::size_t least) {
    if (n > left() / least) cut_off(fmt::format("{} items", n));
    return static_cast<std::size_t>(n);
  }
  [[noreturn]] void fail(const std::string& message) const {
    throw_error(ErrorCode::kInvalid, "{}: {}: {}", file_, what, message);
  }

 private:
  const std::byte* take(std::uint64_t n) {
    if (n > left()) cut_off(fmt::format("{} bytes", n));
    const std::byte* p = bytes_.data() + at_;
    at_ += static_cast<std::size_t>(n);
    return p;
  }
  [[noreturn]] void cut_off(const std::string& needed) const {
    if (file_bytes_ > bytes_.size()) {
      fail(fmt::format("{} at byte {}: keys and tensor descriptions may take {} bytes", needed, at_,
                       kMaxGgufHeader));
    }
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: {}: {} at byte {}, but only {} bytes are left", file_, what,
                            needed, at_, left()),
                std::string(kFetchAgain));
  }

  std::span<const std::byte> bytes_;  // where keys and descriptions may lie
  std::size_t file_bytes_;
  std::string file_;
  std::size_t at_ = 0;
};

/// A name may have 65,535 bytes; a message should not.
std::string clip_name(const std::string& name) {
  constexpr std::size_t kMaxShown = 200;
  return name.size() <= kMaxShown ? name : name.substr(0, kMaxShown) + "...";
}

void read_magic(Cursor& in) {
  if (in.left() < 4 || in.number<std::uint32_t>() != 0x46554747) {
    throw_error(ErrorCode::kInvalid, "{}: not a GGUF file: it does not begin with GGUF", in.file());
  }
  const auto version = in.number<std::uint32_t>();
  if (version == 2 || version == 3) return;
  if ((version & 0xFFFF) == 0 && version != 0) {
    throw_error(ErrorCode::kUnsupported,
                "{}: a big-endian GGUF file; Kogia reads little-endian ones", in.file());
  }
  throw Error(ErrorCode::kUnsupported,
              fmt::format("{}: GGUF version {}, expected 2 or 3", in.file(), version),
              "convert the model again with a current converter");
}

template <std::integral T>
std::int64_t read_integer(Cursor& in) {
  const T value = in.number<T>();
  if constexpr (std::same_as<T, std::uint64_t>) {
    if (value > static_cast<std::uint64_t>(INT64_MAX)) {
      in.fail(fmt::format("{} is beyond 63 bits", value));
    }
  }
  return static_cast<std::int64_t>(value);
}

bool read_boolean(Cursor& in) {
  const auto value = in.number<std::uint8_t>();
  if (value > 1) in.fail(fmt::format("a boolean of {}, expected 0 or 1", value));
  return value == 1;
}

/// Items one after the other; `count` has been checked against what is left, so it may be reserved.
template <class T, class ReadItem>
std::vector<T> read_items(Cursor& in, std::uint64_t n, std::size_t least_bytes,
                          ReadItem read_item) {
  std::vector<T> items;
  const std::size_t count = in.count(n, least_bytes);
  items.reserve(count);
  for (std::size_t i = 0; i < count; ++i) items.push_back(static_cast<T>(read_item(in)));
  return items;
}

template <class T>
GgufValue read_integers(Cursor& in, std::uint64_t n) {
  return read_items<std::int64_t>(in, n, sizeof(T), read_integer<T>);
}

GgufValue read_array(Cursor& in) {
  const auto type = in.number<std::uint32_t>();
  const auto n = in.number<std::uint64_t>();
  switch (type) {
    case kU8:
      return read_integers<std::uint8_t>(in, n);
    case kI8:
      return read_integers<std::int8_t>(in, n);
    case kU16:
      return read_integers<std::uint16_t>(in, n);
    case kI16:
      return read_integers<std::int16_t>(in, n);
    case kU32:
      return read_integers<std::uint32_t>(in, n);
    case kI32:
      return read_integers<std::int32_t>(in, n);
    case kU64:
      return read_integers<std::uint64_t>(in, n);
    case kI64:
      return read_integers<std::int64_t>(in, n);
    case kBool:
      return read_items<std::int64_t>(in, n, 1, read_boolean);
    case kF32:
      return read_items<double>(in, n, 4, [](Cursor& c) { return c.number<float>(); });
    case kF64:
      return read_items<double>(in, n, 8, [](Cursor& c) { return c.number<double>(); });
    case kString:
      return read_items<std::string>(in, n, 8, [](Cursor& c) { return c.text(SIZE_MAX); });
    case kArray:
      in.fail("an array of arrays, which nothing here uses");
    default:
      in.fail(fmt::format("an array of unknown type {}", type));
  }
}

GgufValue read_value(Cursor& in, std::uint32_t type) {
  switch (type) {
    case kU8:
      return read_integer<std::uint8_t>(in);
    case kI8:
      return read_integer<std::int8_t>(in);
    case kU16:
      return read_integer<std::uint16_t>(in);
    case kI16:
      return read_integer<std::int16_t>(in);
    case kU32:
      return read_integer<std::uint32_t>(in);
    case kI32:
      return read_integer<std::int32_t>(in);
    case kU64:
      return read_integer<std::uint64_t>(in);
    case kI64:
      return read_integer<std::int64_t>(in);
    case kF32:
      return static_cast<double>(in.number<float>());
    case kF64:
      return in.number<double>();
    case kBool:
      return read_boolean(in);
    case kString:
      return in.text(SIZE_MAX);
    case kArray:
      return read_array(in);
    default:
      in.fail(fmt::format("a value of unknown type {}", type));
  }
}

void check_alignment(const Cursor& in, std::uint32_t type, const GgufValue& value) {
  if (type != kU32) in.fail("expected an unsigned integer of 32 bits");
  const auto n = std::get<std::int64_t>(value);
  if (n <= 0 || !std::has_single_bit(static_cast<std::uint64_t>(n))) {
    in.fail(fmt::format("{} is not a power of two", n));
  }
}

void read_keys(Cursor& in, std::size_t n_keys, GgufMetadata& out,
               std::vector<GgufStoredKey>& stored) {
  for (std::size_t i = 0; i < n_keys; ++i) {
    in.what = fmt::format("key {} of {}", i + 1, n_keys);
    std::string key = in.text(kMaxName);
    in.what = clip_name(key);
    const std::size_t begin = in.position();
    const auto type = in.number<std::uint32_t>();
    GgufValue value = read_value(in, type);
    if (key == "general.alignment") check_alignment(in, type, value);
    stored.push_back({key, in.since(begin)});
    if (!out.values.emplace(std::move(key), std::move(value)).second)
      in.fail("the key is there twice");
  }
  // Arrays that others read as what they should be.
  out.get_strings("tokenizer.ggml.tokens");
  out.get_strings("tokenizer.ggml.merges");
  out.get_floats("tokenizer.ggml.scores");
  out.get_ints("tokenizer.ggml.token_type");
}

/// A tensor, and where its data lies.
struct Described {
  TensorEntry entry;
  Index offset = 0;
};

std::vector<Index> read_shape(Cursor& in) {
  const auto rank = in.number<std::uint32_t>();
  if (rank < 1 || rank > kMaxRank) {
    in.fail(fmt::format("{} dimensions, expected 1 to {}", rank, kMaxRank));
  }
  std::vector<Index> shape;
  for (std::uint32_t i = 0; i < rank; ++i) shape.push_back(read_integer<std::uint64_t>(in));
  std::ranges::reverse(shape);  // ne has the fastest first
  return shape;
}

DType read_tensor_type(Cursor& in) {
  const auto number = in.number<std::uint32_t>();
  if (const auto dtype = gguf_dtype(number)) return *dtype;
  throw Error(
      ErrorCode::kUnsupported,
      fmt::format("{}: {}: type {} ({}), which Kogia does not read yet", in.file(), in.what, number,
                  gguf_unread_type(number)),
      "take a file in BF16, F16, Q8_0, Q2_K to Q6_K, Q4_0 to Q5_1, IQ4_NL, IQ4_XS or MXFP4");
}

Described read_tensor(Cursor& in, Index alignment) {
  Described t;
  t.entry.name = in.text(kMaxName);
  in.what = "tensor " + clip_name(t.entry.name);
  TensorView& view = t.entry.view;
  view.shape = read_shape(in);
  view.dtype = read_tensor_type(in);
  t.offset = read_integer<std::uint64_t>(in);
  const Index row = view.shape.back();
  const Index block = info(view.dtype).block_values;
  if (row % block != 0) {
    in.fail(fmt::format("rows of {} values, which blocks of {} {} do not fill", row, block,
                        name(view.dtype)));
  }
  const auto n_bytes = checked_bytes(view.dtype, view.shape);
  if (!n_bytes) in.fail("more than 2^63 bytes");
  view.n_bytes = *n_bytes;
  if (t.offset % alignment != 0) {
    in.fail(fmt::format("its offset {} is no multiple of the alignment {}", t.offset, alignment));
  }
  t.entry.file = in.file();
  return t;
}

/// Gives each tensor its bytes, and no byte two tensors.
void place_tensors(const Cursor& in, std::span<const std::byte> bytes, Index alignment,
                   std::vector<Described>& tensors) {
  const Index size = static_cast<Index>(bytes.size());
  const Index padding = alignment - 1;
  const Index begin = (static_cast<Index>(in.position()) + padding) & ~padding;
  std::vector<const Described*> order;
  for (Described& t : tensors) {
    const TensorView& view = t.entry.view;
    Index first = 0, end = 0;
    if (__builtin_add_overflow(begin, t.offset, &first) ||
        __builtin_add_overflow(first, view.n_bytes, &end)) {
      throw_error(ErrorCode::kInvalid, "{}: tensor {}: ends beyond 2^63 bytes", in.file(),
                  clip_name(t.entry.name));
    }
    if (end > size) {
      throw Error(ErrorCode::kInvalid,
                  fmt::format("{}: cut off: tensor {} needs bytes {}..{}, the file has {}",
                              in.file(), clip_name(t.entry.name), first, end, size),
                  std::string(kFetchAgain));
    }
    t.entry.view.data = bytes.data() + first;
    if (view.n_bytes > 0) order.push_back(&t);
  }
  std::ranges::sort(order, {}, &Described::offset);
  for (std::size_t i = 1; i < order.size(); ++i) {
    const Described& a = *order[i - 1];
    if (order[i]->offset < a.offset + a.entry.view.n_bytes) {
      throw_error(ErrorCode::kInvalid, "{}: tensors {} and {} share bytes", in.file(),
                  clip_name(a.entry.name), clip_name(order[i]->entry.name));
    }
  }
}

}  // namespace

GgufContents parse_gguf(std::span<const std::byte> bytes, const std::string& file) {
  Cursor in(bytes, file);
  read_magic(in);
  const auto n_tensors = in.count(in.number<std::uint64_t>(), kLeastTensorBytes);
  const auto n_keys = in.count(in.number<std::uint64_t>(), kLeastKeyBytes);

  GgufContents out;
  out.metadata.file = file;
  read_keys(in, n_keys, out.metadata, out.stored_keys);
  const Index alignment = out.metadata.get_int("general.alignment").value_or(32);

  std::vector<Described> tensors;
  for (std::size_t i = 0; i < n_tensors; ++i) {
    in.what = fmt::format("tensor {} of {}", i + 1, n_tensors);
    tensors.push_back(read_tensor(in, alignment));
  }
  place_tensors(in, bytes, alignment, tensors);
  for (Described& t : tensors) out.tensors.push_back(std::move(t.entry));
  return out;
}

}  // namespace kogia
