#include "infer/logits_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "base/error.h"

namespace kogia {
namespace {

constexpr std::string_view kMagic = "_logits_";
constexpr float kReach = 16, kTop = 65535;
constexpr Index kMost = Index{1} << 31;  // of ctx, vocab and windows: what an i32 holds

template <class T>
T take(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

double log_sum_exp(std::span<const float> logits, float top) {
  double sum = 0;
  for (const float z : logits) sum += std::exp(static_cast<double>(z) - static_cast<double>(top));
  return static_cast<double>(top) + std::log(sum);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------
// Writing

LogitsWriter::LogitsWriter(const std::filesystem::path& target, const LogitsShape& shape,
                           std::span<const TokenId> ids)
    : file_(target), shape_(shape) {
  KOGIA_CHECK(shape.rows_per_window() > 0 && shape.vocab > 0);
  KOGIA_CHECK(static_cast<Index>(ids.size()) == shape.windows * shape.ctx);
  require_space(file_.target(), shape.file_bytes());
  file_.append(kMagic);
  std::vector<std::int32_t> header;
  for (const Index n : {shape.ctx, shape.vocab, shape.windows}) {
    header.push_back(static_cast<std::int32_t>(n));
  }
  header.insert(header.end(), ids.begin(), ids.end());
  file_.append(std::as_bytes(std::span(header)));
  row_.resize(static_cast<std::size_t>(shape.row_bytes()));
}

void LogitsWriter::append(std::span<const float> logits) {
  KOGIA_CHECK(static_cast<Index>(logits.size()) == shape_.vocab);
  const auto [low, high] = std::minmax_element(logits.begin(), logits.end());
  const float top = *high, bottom = std::max(*low, top - kReach), step = (top - bottom) / kTop;
  const auto least = static_cast<float>(static_cast<double>(bottom) - log_sum_exp(logits, top));
  std::memcpy(row_.data(), &step, 4);
  std::memcpy(row_.data() + 4, &least, 4);
  const float inverse = step > 0 ? 1 / step : 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float above = std::max(logits[i] - bottom, 0.0F) * inverse;
    const auto q = static_cast<std::uint16_t>(std::fmin(std::nearbyint(above), kTop));
    std::memcpy(row_.data() + 8 + 2 * i, &q, 2);
  }
  file_.append(row_);
  ++rows_;
}

void LogitsWriter::commit() {
  KOGIA_CHECK(rows_ == shape_.windows * shape_.rows_per_window());
  file_.commit();
}

// ---------------------------------------------------------------------------------------------------
// Reading

LogitsFile LogitsFile::open(const std::filesystem::path& path) {
  LogitsFile out;
  out.file_ = MappedFile::open(path);
  const auto bytes = out.file_.bytes();
  if (bytes.size() < 20 || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    throw_error(ErrorCode::kInvalid,
                "{}: no file of logits: expected it to begin with '{}', as --save-logits writes it",
                path.string(), kMagic);
  }
  LogitsShape& s = out.shape_;
  s.ctx = take<std::uint32_t>(bytes.data() + 8);
  s.vocab = take<std::uint32_t>(bytes.data() + 12);
  s.windows = take<std::uint32_t>(bytes.data() + 16);
  if (s.ctx < 3 || s.vocab < 1 || s.windows < 1 || std::max({s.ctx, s.vocab, s.windows}) >= kMost) {
    throw_error(ErrorCode::kInvalid, "{}: {} windows of {} tokens, a vocabulary of {}",
                path.string(), s.windows, s.ctx, s.vocab);
  }
  // Divided, not multiplied: a row is at most 8 GiB, and rows and ids are no more than the bytes.
  const Index size = out.file_.size();
  if (s.windows > size / s.ctx || s.windows * s.rows_per_window() > size / s.row_bytes() ||
      s.file_bytes() != size) {
    throw_error(
        ErrorCode::kInvalid,
        "{}: {} bytes are not what {} windows of {} tokens with a vocabulary of {} take: it "
        "was cut off, or is not whole",
        path.string(), size, s.windows, s.ctx, s.vocab);
  }
  out.ids_.resize(static_cast<std::size_t>(s.windows * s.ctx));
  std::memcpy(out.ids_.data(), bytes.data() + 20, out.ids_.size() * 4);
  for (const TokenId id : out.ids_) {
    if (id < 0 || id >= s.vocab) {
      throw_error(ErrorCode::kInvalid, "{}: token {} is outside its vocabulary of {}",
                  path.string(), id, s.vocab);
    }
  }
  return out;
}

KeptRow LogitsFile::row(Index window, Index i) const {
  KOGIA_CHECK(i >= 0 && i < shape_.rows_per_window() && window >= 0 && window < shape_.windows);
  const std::byte* at = file_.bytes().data() + shape_.header_bytes() +
                        (window * shape_.rows_per_window() + i) * shape_.row_bytes();
  return {.step = take<float>(at), .least = take<float>(at + 4), .codes = at + 8};
}

double KeptRow::log_prob(Index id) const {
  const auto q = take<std::uint16_t>(codes + 2 * id);
  return static_cast<double>(step) * q + static_cast<double>(least);
}

Divergence divergence(const KeptRow& kept, std::span<const float> logits, TokenId next) {
  const auto best = std::max_element(logits.begin(), logits.end());
  const double sum = log_sum_exp(logits, *best);
  Divergence out;
  std::uint16_t most = 0;
  Index top = 0;
  for (Index i = 0; i < static_cast<Index>(logits.size()); ++i) {
    const auto q = take<std::uint16_t>(kept.codes + 2 * i);
    if (q > most) most = q, top = i;
    const double p = static_cast<double>(kept.step) * q + static_cast<double>(kept.least);
    if (p <= static_cast<double>(-kReach)) continue;
    out.kl += std::exp(p) * (p - (static_cast<double>(logits[static_cast<std::size_t>(i)]) - sum));
  }
  out.nll = sum - static_cast<double>(logits[static_cast<std::size_t>(next)]);
  out.nll_kept = -kept.log_prob(next);
  out.same_top = top == best - logits.begin();
  return out;
}

}  // namespace kogia
