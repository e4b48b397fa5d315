// Matrix products with NEON: whole numbers as bytes; every other arithmetic as f32 fused
// multiply-adds of decoded weights, x rounded as the arithmetic says and kept in f32 (BFDOT
// rounds its sums in a way of its own; docs/decisions/0020).
//
// Compiled twice: as `neon` for every 64-bit ARM, and as `neon_dot` for those with SDOT (ARMv8.4,
// many of ARMv8.2). Sums of whole numbers are exact, so both give the same bits.
//
// Roofline as in linear_avx2.cc with four lanes: a group of codes is decoded into L1 once for all
// rows of the tile; then 16 registers of sums are held against 4 of weights and 4 of x. Order of an
// output's sum: within a group the columns in order from zero (int8: exactly), then group after
// group.

#include <arm_neon.h>

#include "device/cpu/packed.h"

namespace kogia::KOGIA_ISA {
namespace {

#define KOGIA_INLINE __attribute__((always_inline))

constexpr Index kLanes = 4;
constexpr Index kParts = kPanelRows / kLanes;  // vectors of a panel
constexpr Index kVectorBytes = 16;
constexpr Index kStepBytes = 64;                    // of a panel: one f32 or four bytes a row
constexpr Index kGroupBytes = 32 * 4 * kPanelRows;  // as f32

KOGIA_INLINE inline uint8x16_t load(const std::byte* at) {
  return vld1q_u8(reinterpret_cast<const std::uint8_t*>(at));
}
KOGIA_INLINE inline float32x4_t load_floats(const std::byte* at) {
  return vreinterpretq_f32_u8(load(at));
}
KOGIA_INLINE inline void store(float32x4_t v, std::byte* at) {
  vst1q_u8(reinterpret_cast<std::uint8_t*>(at), vreinterpretq_u8_f32(v));
}
KOGIA_INLINE inline float32x4_t load_halves(const std::byte* at) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(at))));
}
KOGIA_INLINE inline uint16x4_t load_bytes(const std::byte* at) {  // four, as 16 bits
  std::uint32_t bytes;
  __builtin_memcpy(&bytes, at, 4);
  return vget_low_u16(vmovl_u8(vcreate_u8(bytes)));
}
KOGIA_INLINE inline float32x4_t unsigned_values(const std::byte* at) {
  return vcvtq_f32_u32(vmovl_u16(load_bytes(at)));
}
KOGIA_INLINE inline float32x4_t signed_values(const std::byte* at) {
  const int32x4_t wide = vreinterpretq_s32_u32(vmovl_u16(load_bytes(at)));
  return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(wide, 24), 24));
}

/// Of the outputs 4 part … 4 part + 3.
struct ScaleMin {
  float32x4_t scale, min;
};
ScaleMin load_scales(const PackedView& w, const GroupAt& at, Index part) {
  const std::byte* head = at.record + 2 * kLanes * part;  // of f16 numbers
  const Index n = w.groups_per_record;
  const float32x4_t none = vdupq_n_f32(0);
  switch (w.scale) {
    case ScaleType::none:
      break;
    case ScaleType::f16:
      return {load_halves(head + at.i * 32),
              w.has_min ? load_halves(head + (n + at.i) * 32) : none};
    case ScaleType::f32:
      return {load_floats(at.record + kVectorBytes * part), none};
    case ScaleType::parts: {
      const std::byte* parts = at.record + (w.has_min ? 64 : 32) + at.i * 16 + kLanes * part;
      const float32x4_t scale = vmulq_f32(load_halves(head), signed_values(parts));
      if (!w.has_min) return {scale, none};
      return {scale, vmulq_f32(load_halves(head + 32), unsigned_values(parts + n * 16))};
    }
    case ScaleType::nibbles: {
      const uint16x4_t both = load_bytes(at.record + 64 + at.i * 16 + kLanes * part);
      const float32x4_t s = vcvtq_f32_u32(vmovl_u16(vand_u16(both, vdup_n_u16(15))));
      const float32x4_t m = vcvtq_f32_u32(vmovl_u16(vshr_n_u16(both, 4)));
      return {vmulq_f32(load_halves(head), s), vmulq_f32(load_halves(head + 32), m)};
    }
  }
  return {none, none};
}

// --- decoding ----------------------------------------------------------------------------------

/// Slot s of a group, four columns of each output, as bytes in the order of quad_column(): whole
/// numbers with sign; of FP8 the codes.
template <Codes kCodes>
KOGIA_INLINE inline uint8x16_t slot(const PackedView& w, const GroupAt& at, Index s, Index part) {
  constexpr int kLow = plane_bits(kCodes).low, kHigh = plane_bits(kCodes).high;
  const uint8x16_t plane = load(at.low + s * kLow / 8 * kStepBytes + kVectorBytes * part);
  if constexpr (kLow == 8) return plane;
  // To the left by a negative number: to the right.
  const auto shift = [](uint8x16_t v, Index n) {
    return vshlq_u8(v, vdupq_n_s8(static_cast<std::int8_t>(n)));
  };
  uint8x16_t code = vandq_u8(shift(plane, -(s * kLow % 8)), vdupq_n_u8((1 << kLow) - 1));
  if constexpr (kHigh != 0) {
    const Index share = kCodes == Codes::q3 ? at.i % 2 : 0;  // two groups share the plane
    const Index bit = (share * group_columns(kCodes) / 4 + s) * kHigh;
    const uint8x16_t above = shift(load(at.high + kVectorBytes * part), kLow - bit);
    code = vorrq_u8(code, vandq_u8(above, vdupq_n_u8(((1 << kHigh) - 1) << kLow)));
  }
  return vaddq_u8(code, vdupq_n_u8(static_cast<std::uint8_t>(w.lowest)));
}

/// Quads of a group, [slots][16][4].
template <Codes kCodes>
const std::byte* decode_quads(const PackedView& w, const GroupAt& at, std::byte* buffer) {
  if constexpr (kCodes == Codes::q8) return at.low;
  for (Index s = 0; s < group_columns(kCodes) / 4; ++s) {
    for (Index part = 0; part < kParts; ++part) {
      vst1q_u8(reinterpret_cast<std::uint8_t*>(buffer + s * kStepBytes + kVectorBytes * part),
               slot<kCodes>(w, at, s, part));
    }
  }
  return buffer;
}

/// A vector of values for each of a slot's four columns.
struct SlotValues {
  float32x4_t of[4];
};

/// Byte i of each lane, with its sign.
template <int i>
KOGIA_INLINE inline float32x4_t whole(uint8x16_t slot) {
  const int32x4_t lanes = vreinterpretq_s32_u8(slot);
  return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(lanes, 24 - 8 * i), 24));
}
KOGIA_INLINE inline SlotValues whole_numbers(uint8x16_t slot) {
  return {{whole<0>(slot), whole<1>(slot), whole<2>(slot), whole<3>(slot)}};
}

/// The bytes of 128 bf16 magnitudes.
struct MagnitudeTables {
  uint8x16x4_t low[2], high[2];

  explicit MagnitudeTables(const std::uint16_t* table) {
    const std::uint8_t* bytes = reinterpret_cast<const std::uint8_t*>(table);
    for (int i = 0; i < 8; ++i) {
      const uint8x16x2_t both = vld2q_u8(bytes + 32 * i);
      low[i / 4].val[i % 4] = both.val[0];
      high[i / 4].val[i % 4] = both.val[1];
    }
  }
  static KOGIA_INLINE inline uint8x16_t look_up(const uint8x16x4_t* table, uint8x16_t i) {
    // The first gives 0 beyond 64, the second keeps what it is given below.
    return vqtbx4q_u8(vqtbl4q_u8(table[0], i), table[1], vsubq_u8(i, vdupq_n_u8(64)));
  }
  KOGIA_INLINE inline SlotValues values(uint8x16_t codes) const {
    const uint8x16_t magnitude = vandq_u8(codes, vdupq_n_u8(127));
    const uint8x16_t sign = vandq_u8(codes, vdupq_n_u8(128));
    const uint32x4_t below = vreinterpretq_u32_u8(look_up(low, magnitude));
    const uint32x4_t top = vreinterpretq_u32_u8(vorrq_u8(look_up(high, magnitude), sign));
    return {{join<0>(top, below), join<1>(top, below), join<2>(top, below), join<3>(top, below)}};
  }
  /// Byte i of both as the upper half of an f32.
  template <int i>
  static KOGIA_INLINE inline float32x4_t join(uint32x4_t top, uint32x4_t below) {
    const uint32x4_t a = vshlq_n_u32(top, 24 - 8 * i), b = vshlq_n_u32(below, 24 - 8 * i);
    return vreinterpretq_f32_u32(vandq_u32(vsriq_n_u32(a, b, 8), vdupq_n_u32(0xFFFF0000)));
  }
};

/// Calls put(column, part, value) for the values of a group, not scaled.
template <Codes kCodes, class Put>
KOGIA_INLINE inline void walk_values(const PackedView& w, const GroupAt& at, const Put& put) {
  const auto walk_slots = [&](const auto& values_of) {
    for (Index s = 0; s < group_columns(kCodes) / 4; ++s) {
      for (Index part = 0; part < kParts; ++part) {
        const SlotValues values = values_of(slot<kCodes>(w, at, s, part));
        for (Index i = 0; i < 4; ++i) {
          put(s / 2 * 8 + quad_column(s % 2 * 4 + i), part, values.of[i]);
        }
      }
    }
  };
  if constexpr (kCodes == Codes::fp8) {
    const MagnitudeTables tables(w.table);
    walk_slots([&tables](uint8x16_t codes) { return tables.values(codes); });
  } else {
    walk_slots(whole_numbers);
  }
}
template <class Put>
KOGIA_INLINE inline void walk_f16(const PackedView& w, const GroupAt& at, const Put& put) {
  for (Index c = 0; c < w.group; ++c) {
    for (Index part = 0; part < kParts; ++part) {
      put(c, part, load_halves(at.low + c * 32 + 8 * part));
    }
  }
}
template <class Put>
KOGIA_INLINE inline void walk_bf16(const PackedView& w, const GroupAt& at, const Put& put) {
  for (Index c = 0; c < w.group; c += 2) {
    for (Index part = 0; part < kParts; ++part) {
      const uint32x4_t pair =
          vreinterpretq_u32_u8(load(at.low + c / 2 * kStepBytes + kVectorBytes * part));
      const uint32x4_t odd = vandq_u32(pair, vdupq_n_u32(0xFFFF0000));
      put(c, part, vreinterpretq_f32_u32(vshlq_n_u32(pair, 16)));
      put(c + 1, part, vreinterpretq_f32_u32(odd));
    }
  }
}

/// Values of a group, [columns][16], in `buffer` or where the matrix keeps them.
const std::byte* decode_values(const PackedView& w, const GroupAt& at, std::byte* buffer) {
  if (w.codes == Codes::f32) return at.low;
  ScaleMin by[kParts];
  for (Index part = 0; part < kParts; ++part) by[part] = load_scales(w, at, part);
  const bool scaled = w.scale != ScaleType::none;
  const auto put = [&](Index c, Index part, float32x4_t v) {
    if (scaled) v = vmulq_f32(v, by[part].scale);
    if (w.has_min) v = vaddq_f32(v, by[part].min);
    store(v, buffer + c * kStepBytes + kVectorBytes * part);
  };
  switch (w.codes) {
    case Codes::q2:
      walk_values<Codes::q2>(w, at, put);
      break;
    case Codes::q3:
      walk_values<Codes::q3>(w, at, put);
      break;
    case Codes::q4:
      walk_values<Codes::q4>(w, at, put);
      break;
    case Codes::q5:
      walk_values<Codes::q5>(w, at, put);
      break;
    case Codes::q6:
      walk_values<Codes::q6>(w, at, put);
      break;
    case Codes::q8:
      walk_values<Codes::q8>(w, at, put);
      break;
    case Codes::s8:
    case Codes::fp8:  // both a sign, and a magnitude to look up
      walk_values<Codes::fp8>(w, at, put);
      break;
    case Codes::bf16:
      walk_bf16(w, at, put);
      break;
    case Codes::f16:
      walk_f16(w, at, put);
      break;
    case Codes::f32:
      break;
  }
  return buffer;
}

const std::byte* decode_bytes(const PackedView& w, const GroupAt& at, std::byte* buffer) {
  switch (w.codes) {
    case Codes::q2:
      return decode_quads<Codes::q2>(w, at, buffer);
    case Codes::q3:
      return decode_quads<Codes::q3>(w, at, buffer);
    case Codes::q4:
      return decode_quads<Codes::q4>(w, at, buffer);
    case Codes::q5:
      return decode_quads<Codes::q5>(w, at, buffer);
    case Codes::q6:
      return decode_quads<Codes::q6>(w, at, buffer);
    default:
      return decode_quads<Codes::q8>(w, at, buffer);
  }
}

// --- products ----------------------------------------------------------------------------------

/// A step is one column of f32 values.
struct Values {
  using Sum = float32x4_t;
  static constexpr Index kColumns = 1;  // of a step

  static KOGIA_INLINE inline Sum zero() { return vdupq_n_f32(0); }
  template <int kLane>
  static KOGIA_INLINE inline Sum multiply_add(Sum sum, uint8x16_t w, float32x4_t x) {
    return vfmaq_laneq_f32(sum, vreinterpretq_f32_u8(w), x, kLane);
  }
};

/// A step is four columns of whole numbers.
struct Quads {
  using Sum = int32x4_t;
  static constexpr Index kColumns = 4;

  static KOGIA_INLINE inline Sum zero() { return vdupq_n_s32(0); }
  template <int kLane>
  static KOGIA_INLINE inline Sum multiply_add(Sum sum, uint8x16_t w, float32x4_t x) {
    const int8x16_t codes = vreinterpretq_s8_u8(w);
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_laneq_s32(sum, codes, vreinterpretq_s8_f32(x), kLane);
#else
    // 2 · 128 · 127 < 2¹⁵: pairs of products fit 16 bits.
    const int8x16_t quad = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_f32(x), kLane));
    const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(quad));
    const int16x8_t high = vmull_high_s8(codes, quad);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
#endif
  }
};

/// A group of some panels as a kernel wants it.
template <class Step, int kPanels>
struct Group {
  alignas(16) std::byte buffer[kPanels][kGroupBytes / Step::kColumns];
  const std::byte* weights[kPanels];
  ScaleMin scales[kPanels * kParts];  // of whole numbers

  void decode(const PackedView& w, const GroupAt& at, int p) {
    if constexpr (Step::kColumns == 1) {
      weights[p] = decode_values(w, at, buffer[p]);
    } else {
      weights[p] = decode_bytes(w, at, buffer[p]);
      for (Index i = 0; i < kParts; ++i) scales[p * kParts + i] = load_scales(w, at, i);
    }
  }
};

/// sum[kRows][kPanels][16] += step kLane of x times step s of the group.
template <int kLane, class Step, int kRows, int kPanels>
KOGIA_INLINE inline void add_step(const Group<Step, kPanels>& group, Index s, const float32x4_t* x,
                                  typename Step::Sum (*sum)[kPanels * kParts]) {
  uint8x16_t w[kPanels * kParts];
  for (Index p = 0; p < kPanels * kParts; ++p) {
    w[p] = load(group.weights[p / kParts] + (s + kLane) * kStepBytes + p % kParts * kVectorBytes);
  }
  for (int r = 0; r < kRows; ++r) {
    for (Index p = 0; p < kPanels * kParts; ++p) {
      sum[r][p] = Step::template multiply_add<kLane>(sum[r][p], w[p], x[r]);
    }
  }
}

/// acc + scale · d · sum (+ min · d Σq), of x = d q.
KOGIA_INLINE inline float32x4_t add_scaled(const PackedView& w, const ScaleMin& by, int32x4_t sum,
                                           const float* x_sum, float32x4_t acc) {
  const float32x4_t scale = vmulq_n_f32(by.scale, x_sum[0]);
  acc = vfmaq_f32(acc, vcvtq_f32_s32(sum), scale);
  return w.has_min ? vfmaq_n_f32(acc, by.min, x_sum[0] * x_sum[1]) : acc;
}

/// acc[kRows][kPanels][16] += x · group g, for rows from `first` on.
template <class Step, int kRows, int kPanels>
KOGIA_INLINE inline void micro(const LinearTile& t, const Group<Step, kPanels>& group, Index g,
                               Index first, float* acc) {
  const Index steps = t.w->group / Step::kColumns;  // a multiple of four
  const float* x = t.x + g * steps + first * t.x_stride;
  typename Step::Sum sum[kRows][kPanels * kParts];
  for (auto& row : sum) {
    for (auto& s : row) s = Step::zero();
  }
  for (Index s = 0; s < steps; s += 4) {
    float32x4_t xs[kRows];
    for (int r = 0; r < kRows; ++r) xs[r] = vld1q_f32(x + r * t.x_stride + s);
    add_step<0, Step, kRows>(group, s, xs, sum);
    add_step<1, Step, kRows>(group, s, xs, sum);
    add_step<2, Step, kRows>(group, s, xs, sum);
    add_step<3, Step, kRows>(group, s, xs, sum);
  }
  for (int r = 0; r < kRows; ++r) {
    for (Index p = 0; p < kPanels * kParts; ++p) {
      float* at = acc + (r * kPanels * kParts + p) * kLanes;
      if constexpr (Step::kColumns == 1) {
        vst1q_f32(at, vaddq_f32(vld1q_f32(at), sum[r][p]));
      } else {
        const float* x_sum = t.sums + 2 * g + (first + r) * t.sums_stride;  // d, Σq
        vst1q_f32(at, add_scaled(*t.w, group.scales[p], sum[r][p], x_sum, vld1q_f32(at)));
      }
    }
  }
}

// --- tiles -------------------------------------------------------------------------------------

template <int kPanels>
void finish(const LinearTile& t, Index panel, const float* acc) {
  const Index begin = panel * kPanelRows, end = begin + kPanels * kPanelRows;
  for (Index r = 0; r < t.rows; ++r) {
    for (Index out = begin; out < (end < t.w->rows ? end : t.w->rows); ++out) {
      float y = acc[r * kPanels * kPanelRows + out - begin];
      const Index at = r * t.y_stride + out;
      if (t.bias != nullptr) y += t.bias[out];
      if (t.residual != nullptr) y += t.residual[at];
      t.y[at] = y;
    }
  }
}

template <class Step, int kPanels>
void run_panels(const LinearTile& t, Index panel) {
  const PackedView& w = *t.w;
  alignas(16) float acc[kTileRows * kPanels * kPanelRows];
  for (Index i = 0; i < t.rows * kPanels * kPanelRows; ++i) acc[i] = 0;
  Group<Step, kPanels> group;
  Index record = 0;  // where it begins in a panel
  for (Index g = 0, i = 0; g < w.n_groups; ++g, ++i) {
    if (i == w.groups_per_record) i = 0, record += w.record_bytes;
    for (int p = 0; p < kPanels; ++p) {
      group.decode(w, group_at(w, w.panel(panel + p) + record, i), p);
    }
    Index r = 0;
    const auto acc_of = [&] { return acc + r * kPanels * kPanelRows; };
    if constexpr (kPanels == 1) {
      for (; r + 4 <= t.rows; r += 4) micro<Step, 4, kPanels>(t, group, g, r, acc_of());
    }
    for (; r + 2 <= t.rows; r += 2) micro<Step, 2, kPanels>(t, group, g, r, acc_of());
    for (; r < t.rows; ++r) micro<Step, 1, kPanels>(t, group, g, r, acc_of());
  }
  finish<kPanels>(t, panel, acc);
}

template <class Step>
void run_tile(const LinearTile& t) {
  Index panel = t.panel_begin;
  if (t.rows < 4) {  // two panels at once: more sums to hide the latency of an addition
    for (; panel + 2 <= t.panel_end; panel += 2) run_panels<Step, 2>(t, panel);
  }
  for (; panel < t.panel_end; ++panel) run_panels<Step, 1>(t, panel);
}

void tile(const LinearTile& t) {
  t.w->products == Products::int8 ? run_tile<Quads>(t) : run_tile<Values>(t);
}

// --- rounding x --------------------------------------------------------------------------------

// To nearest even, as f32_to_bf16() rounds.
KOGIA_INLINE inline float32x4_t round_bf16(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t even = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(even, vdupq_n_u32(0x7FFF)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  const uint32x4_t kept = vbslq_u32(vceqq_f32(x, x), rounded, quiet);
  return vreinterpretq_f32_u32(vandq_u32(kept, vdupq_n_u32(0xFFFF0000)));
}

// 32 columns: d = max|x| / 127, q = x / d to nearest even.
struct Quantised {
  float32x4_t q[8];
  float d;
};
KOGIA_INLINE inline Quantised quantise(const float* x) {
  float32x4_t top4 = vdupq_n_f32(0);
  // Greatest of numbers; what is no number comes through.
  for (int i = 0; i < 8; ++i) top4 = vmaxq_f32(top4, vabsq_f32(vld1q_f32(x + 4 * i)));
  const float top = vmaxvq_f32(top4);
  // What is no number must not come out as one: whole numbers cannot say it, the scale can.
  Quantised to = {.q = {}, .d = top / 127};
  const float inverse = top > 0 ? 127 / top : 0;
  for (int i = 0; i < 8; ++i) to.q[i] = vrndnq_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inverse));
  return to;
}

// In place: q d.
void round_int8(float* x) {
  const Quantised by = quantise(x);
  for (int i = 0; i < 8; ++i) vst1q_f32(x + 4 * i, vmulq_n_f32(by.q[i], by.d));
}

/// Eight whole numbers as bytes in the order of quads.
KOGIA_INLINE inline int8x8_t quad_bytes(float32x4_t a, float32x4_t b) {
  const int16x4_t low = vqmovn_s32(vcvtq_s32_f32(a)), high = vqmovn_s32(vcvtq_s32_f32(b));
  return vqmovn_s16(vcombine_s16(vzip1_s16(low, high), vzip2_s16(low, high)));
}

// q in the order of quads; d and Σq of each group.
void quantise_row(const ActivationRow& a) {
  std::int8_t* out = static_cast<std::int8_t*>(a.out);
  for (Index c = 0; c < a.n_padded; c += 32) {
    float x[32];
    for (Index i = 0; i < 32; ++i) x[i] = c + i < a.n ? a.x[c + i] : 0;
    const Quantised by = quantise(x);
    float sum[2];  // of whole numbers: exact in any order
    for (int half = 0; half < 2; ++half) {
      const float32x4_t* q = by.q + 4 * half;
      vst1_s8(out + c + 16 * half, quad_bytes(q[0], q[1]));
      vst1_s8(out + c + 16 * half + 8, quad_bytes(q[2], q[3]));
      sum[half] = vaddvq_f32(vaddq_f32(vaddq_f32(q[0], q[1]), vaddq_f32(q[2], q[3])));
    }
    float* to = a.sums + 2 * (c / a.group);
    to[0] = by.d, to[1] = a.group == 32 ? sum[0] + sum[1] : sum[0];
    if (a.group == 16) to[2] = by.d, to[3] = sum[1];
  }
}

void round_row(const ActivationRow& a) {
  if (a.form == Products::int8) return quantise_row(a);
  float* out = static_cast<float*>(a.out);
  for (Index i = 0; i < a.n_padded; ++i) out[i] = i < a.n ? a.x[i] : 0;
  for (Index c = 0; c < a.n_padded; c += 32) {
    if (a.rounding == Rounding::int8) round_int8(out + c);
    if (a.rounding != Rounding::bf16) continue;
    for (Index i = c; i < c + 32; i += kLanes) vst1q_f32(out + i, round_bf16(vld1q_f32(out + i)));
  }
}

}  // namespace

constinit const LinearKernels kLinearKernels = {
    .pair_products = false, .whole_sums = 2, .round_row = round_row, .tile = tile};

}  // namespace kogia::KOGIA_ISA
