#pragma once
// The search for the scale (and least value) of a group of weights that share them: the grid whose
// rounding leaves the smallest weighted squared error. Used by the quantisers of quantize_*.cc.
//
// Given the codes q of a group, the best scale and least value are those of a weighted straight
// line through (q, x), known in closed form. So the search tries grids of slightly different
// pitch, takes the line through each one's codes, keeps the best, and then rounds and fits again
// for as long as that helps. Every step can only lower the error.
//
// Loops run over eight lanes that are added at the end in fixed order: compilers make vectors of
// them, and every one gets the same bits.

#include <algorithm>
#include <cmath>

#include "base/index.h"

namespace kogia::quantize {

/// Weights whose largest magnitude in a group is below this become zeros: no f16 scale holds them.
inline constexpr float kTiny = 1e-15F;

/// To the nearest whole number, ties to even, for |x| < 2^22; without a call, so that loops over it
/// become vectors.
inline float nearest(float x) {
  constexpr float kShift = 12582912;  // 1.5 · 2^23
  return (x + kShift) - kShift;
}
inline float clamped(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

inline constexpr int kLanes = 8;

inline float across(const float* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

template <int N, class Term>
float sum(Term term) {
  static_assert(N % kLanes == 0);
  float lanes[kLanes] = {};
  for (int i = 0; i < N; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += term(i + l);
  }
  return across(lanes);
}

inline float largest_by_magnitude(const float* x, int n) {
  float best = x[0];
  for (int i = 1; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(best)) best = x[i];
  }
  return best;
}

// ---------------------------------------------------------------------------------------------------
// x ≈ scale q, bottom <= q <= top

/// Σ w x q and Σ w q² of the codes of x / scale.
struct SymmetricSums {
  float xq, qq;
  float gain() const { return qq > 0 ? xq * xq / qq : 0; }  // Σ w x² less the error of the best fit
  float scale() const { return qq > 0 ? xq / qq : 0; }
};

template <int N>
SymmetricSums symmetric_sums(const float* x, const float* wx, const float* w, float inverse,
                             float bottom, float top) {
  float xq[kLanes] = {}, qq[kLanes] = {};
  for (int i = 0; i < N; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float q = nearest(clamped(x[i + l] * inverse, bottom, top));
      xq[l] += wx[i + l] * q;
      qq[l] += w[i + l] * q * q;
    }
  }
  return {across(xq), across(qq)};
}

/// The scale, perhaps negative: the longer end of the codes goes to the side of the largest weight.
/// 0 where all weights are tiny.
template <int N>
float fit_symmetric(const float* x, const float* w, float bottom, float top) {
  const float extreme = largest_by_magnitude(x, N);
  if (std::fabs(extreme) < kTiny) return 0;
  float wx[N];
  for (int i = 0; i < N; ++i) wx[i] = w[i] * x[i];

  float best_scale = extreme / bottom, best_gain = 0;
  const auto keep_better = [&](float inverse) {
    const SymmetricSums s = symmetric_sums<N>(x, wx, w, inverse, bottom, top);
    const float gain = s.gain();
    const bool better = gain > best_gain && std::fabs(s.scale()) >= kTiny / 64;
    if (better) best_gain = gain, best_scale = s.scale();
    return better;
  };
  for (int step = -9; step <= 9; ++step) {
    keep_better((bottom - 0.1F * static_cast<float>(step)) / extreme);
  }
  for (int round = 0; round < 4 && keep_better(1 / best_scale); ++round) {
  }
  return best_scale;
}

template <int N>
float symmetric_error(const float* x, const float* w, float scale, float bottom, float top) {
  const float inverse = scale != 0 ? 1 / scale : 0;
  return sum<N>([&](int i) {
    const float d = scale * nearest(clamped(x[i] * inverse, bottom, top)) - x[i];
    return w[i] * d * d;
  });
}

// ---------------------------------------------------------------------------------------------------
// x ≈ scale q + least, 0 <= q <= top

struct Affine {
  float scale = 0, least = 0;
};

/// Of the codes of (x - least) / scale.
struct AffineSums {
  float q, qq, xq;  // Σ w q, Σ w q², Σ w x q
};

template <int N>
AffineSums affine_sums(const float* x, const float* wx, const float* w, Affine a, float top) {
  const float inverse = 1 / a.scale;
  float sq[kLanes] = {}, qq[kLanes] = {}, xq[kLanes] = {};
  for (int i = 0; i < N; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float q = nearest(clamped((x[i + l] - a.least) * inverse, 0, top));
      const float wq = w[i + l] * q;
      sq[l] += wq;
      qq[l] += wq * q;
      xq[l] += wx[i + l] * q;
    }
  }
  return {across(sq), across(qq), across(xq)};
}

template <int N>
float affine_error(const float* x, const float* w, Affine a, float top) {
  const float inverse = a.scale > 0 ? 1 / a.scale : 0;
  return sum<N>([&](int i) {
    const float d = a.scale * nearest(clamped((x[i] - a.least) * inverse, 0, top)) + a.least - x[i];
    return w[i] * d * d;
  });
}

/// The pitches that are tried: first, first + step, … (codes over the range of the weights, less
/// top).
struct Pitches {
  float first, step;
  int n;
};

/// The line through (q, x) weighted by w, with scale > 0, and least <= 0 where `signed_least` is
/// not set; and how much of Σ w x² it explains. scale 0: there is none.
struct Line {
  Affine a = {};
  double gain = 0;
};
inline Line line(const AffineSums& s, double sum_w, double sum_x, bool signed_least) {
  const auto q = static_cast<double>(s.q), qq = static_cast<double>(s.qq),
             xq = static_cast<double>(s.xq);
  const double determinant = sum_w * qq - q * q;
  if (!(determinant > 0)) return {};
  double scale = (sum_w * xq - sum_x * q) / determinant;
  double least = (qq * sum_x - q * xq) / determinant;
  if (least > 0 && !signed_least) scale = xq / qq, least = 0;
  return {.a = {.scale = static_cast<float>(scale), .least = static_cast<float>(least)},
          .gain = scale * xq + least * sum_x};
}

template <int N>
Affine fit_affine(const float* x, const float* w, float top, bool signed_least, Pitches pitches) {
  const auto [low_at, high_at] = std::minmax_element(x, x + N);
  const float low = signed_least ? *low_at : std::min(*low_at, 0.0F), range = *high_at - low;
  if (range < kTiny) return {.scale = 0, .least = low};
  float wx[N];
  for (int i = 0; i < N; ++i) wx[i] = w[i] * x[i];
  const auto sum_w = static_cast<double>(sum<N>([&](int i) { return w[i]; }));
  const auto sum_x = static_cast<double>(sum<N>([&](int i) { return wx[i]; }));
  const auto line_through = [&](Affine grid) {
    return line(affine_sums<N>(x, wx, w, grid, top), sum_w, sum_x, signed_least);
  };
  constexpr float kLeastScale = kTiny / 64;

  Line best;
  for (int i = 0; i < pitches.n; ++i) {
    const float codes = top + pitches.first + pitches.step * static_cast<float>(i);
    const Line l = line_through({.scale = range / codes, .least = low});
    if (l.a.scale >= kLeastScale && l.gain > best.gain) best = l;
  }
  // The gain is what the codes of the grid leave, not those of the line: from here on by error.
  Affine kept = {.scale = range / top, .least = low};
  float error = affine_error<N>(x, w, kept, top);
  Affine next = best.a;
  for (int round = 0; round < 5 && next.scale >= kLeastScale; ++round) {
    const float next_error = affine_error<N>(x, w, next, top);
    if (!(next_error < error)) break;
    kept = next;
    error = next_error;
    next = line_through(kept).a;
  }
  return kept;
}

}  // namespace kogia::quantize
