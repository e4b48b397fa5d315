#pragma once
// The layout of a cache page on the CPU, the same for every instruction set.
//
//   keys and values apart: for each kv head, keys [k_dim][64] (tokens in lanes: scores need no sum
//                          across lanes), then values [64][v_pad] (channels in lanes)
//   latent:                rows [64][k_pad], for each kv head; the values are their first numbers
//
// v_pad and k_pad are rounded up to 16. Numbers are f32 or bf16. What was never written is garbage
// and is never read into a result.

#include "base/error.h"
#include "device/device.h"
#include "tensor/convert.h"

namespace kogia {

struct PageLayout {
  explicit PageLayout(const CacheSpec& s)
      : latent(s.v_dim == 0),
        k_dim(s.k_dim),
        row(round_up(latent ? s.k_dim : s.v_dim, 16)),
        value_bytes(s.dtype == DType::bf16 ? 2 : 4),
        head_bytes((latent ? row : s.k_dim + row) * kPageTokens * value_bytes) {
    KOGIA_CHECK(s.dtype == DType::bf16 || s.dtype == DType::f32);
    KOGIA_CHECK(s.n_kv_heads > 0 && s.k_dim > 0 && s.v_dim >= 0);
    KOGIA_CHECK(!latent || (s.latent_v_dim > 0 && s.latent_v_dim <= s.k_dim));
  }
  /// Where number i of a token's key, or of its value, stands: in numbers from the head's begin.
  Index key(Index token, Index i) const {
    return latent ? token * row + i : i * kPageTokens + token;
  }
  Index key_step() const { return latent ? 1 : kPageTokens; }
  Index value(Index token) const { return (latent ? 0 : k_dim * kPageTokens) + token * row; }

  bool latent;
  Index k_dim, row, value_bytes, head_bytes;
};

inline std::byte* page_head(const CacheView& cache, const PageLayout& layout, std::int32_t page,
                            Index head) {
  return cache.base + page * cache.page_stride + head * layout.head_bytes;
}

namespace reference {

inline float load_cached(const std::byte* head, Index i, DType dtype) {
  if (dtype == DType::f32) return reinterpret_cast<const float*>(head)[i];
  return bf16_to_f32(reinterpret_cast<const std::uint16_t*>(head)[i]);
}

}  // namespace reference
}  // namespace kogia
