#pragma once
// The probe behind Device::measure_limits(): loops that do nothing but multiply and add in
// registers, or nothing but read. Their results say what was done, so no compiler leaves it out.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/thread_pool.h"
#include "device/cpu_device.h"
#include "device/device.h"

namespace kogia {

/// Ways to walk through memory: which one is fastest differs from machine to machine and hour to
/// hour.
enum class ReadPattern {
  kPlain,            // one stream
  kStreams,          // kReadStreams of them, side by side
  kPrefetch,         // one stream, its lines asked for kPrefetchBytes ahead
  kStreamsPrefetch,  // both
};
inline constexpr std::array kReadPatterns = {ReadPattern::kPlain, ReadPattern::kStreams,
                                             ReadPattern::kPrefetch, ReadPattern::kStreamsPrefetch};
inline constexpr Index kReadStreams = 4, kPrefetchBytes = 2048;
inline constexpr Index kReadStep = 256;  // bytes of a stream between two looks at the next
std::string_view name(ReadPattern pattern);

/// Multiply-adds on registers, enough of them independent to hide their latency. Every operand is
/// 1 and run() returns the sum of all accumulators: rounds * products, exactly, up to 2^23 rounds.
struct PeakLoop {
  Index products = 0;                     // multiply-adds of a round: two operations each
  double (*run)(Index rounds) = nullptr;  // null: there is no such instruction
};

/// The loops of one instruction set.
struct LimitLoops {
  PeakLoop f32, bf16, int16, int8;
  /// The exclusive or of the 64-bit words of n bytes (a multiple of kReadStreams * kReadStep).
  std::uint64_t (*read)(const std::byte* p, Index n, ReadPattern pattern);
};

extern const LimitLoops kPlainLimitLoops;
#ifdef KOGIA_X86_KERNELS
namespace avx2 {
extern const LimitLoops kLimitLoops;
}
namespace avx512 {
extern const LimitLoops kLimitLoops;
}
#endif
const LimitLoops& limit_loops(Isa isa);

/// How much trouble to take.
struct ProbeSize {
  Index memory_bytes =
      Index{1} << 29;    // far more than caches hold; a smaller machine takes less; 0: none
  double pass_s = 0.06;  // for each loop and pattern
};

/// All threads of the pool run each loop at the same time; of short passes the upper
/// quartile counts.
MachineLimits measure_limits(const LimitLoops& loops, ThreadPool& pool, const ProbeSize& size = {});

}  // namespace kogia
