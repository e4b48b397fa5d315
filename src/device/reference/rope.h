#pragma once
// Rotary positions: pair i of a head turns by the angle whose cosine and sine stand in the tables.
//   (a, b) -> (a cos − b sin, a sin + b cos)                                       arXiv:2104.09864
// kInterleaved: a, b = x[2i], x[2i+1];  kHalves: x[i], x[i + n/2]. The inverse turns back.

#include "device/device.h"

namespace kogia::reference {

template <class S>
void rope(S* x, const S* cos, const S* sin, Index n_rot, RopeLayout layout, bool inverse) {
  const bool pairs = layout == RopeLayout::kInterleaved;
  for (Index i = 0; i < n_rot / 2; ++i) {
    S& a = pairs ? x[2 * i] : x[i];
    S& b = pairs ? x[2 * i + 1] : x[i + n_rot / 2];
    const S c = cos[i], s = inverse ? -sin[i] : sin[i];
    const S turned = a * c - b * s;
    b = a * s + b * c;
    a = turned;
  }
}

inline void rope(const RopeArgs& a) {
  for (Index r = 0; r < a.rows; ++r) {
    const Index table = r * (a.n_rot / 2);
    for (Index h = 0; h < a.n_heads; ++h) {
      rope(a.x + r * a.row_stride + h * a.head_stride, a.cos + table, a.sin + table, a.n_rot,
           a.layout, a.inverse);
    }
  }
}

}  // namespace kogia::reference
