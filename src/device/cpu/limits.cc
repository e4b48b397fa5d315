#include "device/cpu/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace kogia {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Work per second of passes: their upper quartile, since other programs make some passes slower
// than the machine and a moment's luck may make one faster than it stays. The first pass wakes
// threads and clocks and is not counted.
double typical_rate(double work, double seconds, const std::function<void()>& pass) {
  pass();
  std::vector<double> rates;
  const auto begin = Clock::now();
  while (rates.size() < 5 || seconds_since(begin) < seconds) {
    const auto pass_begin = Clock::now();
    pass();
    rates.push_back(work / std::max(seconds_since(pass_begin), 1e-9));
  }
  const auto quartile = rates.begin() + static_cast<std::ptrdiff_t>(rates.size() * 3 / 4);
  std::ranges::nth_element(rates, quartile);
  return *quartile;
}

// A task is long beside its dispatch and short beside a time slice of the system.
constexpr Index kRounds = 10000, kTasksPerThread = 8;

std::optional<double> peak(const PeakLoop& loop, ThreadPool& pool, double seconds) {
  if (loop.run == nullptr) return {};
  const Index n_tasks = kTasksPerThread * pool.n_threads();
  const double operations = 2.0 * static_cast<double>(loop.products * kRounds * n_tasks);
  return 1e-9 * typical_rate(operations, seconds,
                             [&] { pool.run(n_tasks, [&](Index, int) { loop.run(kRounds); }); });
}

/// Memory that nobody has in a cache; huge pages where the system gives them.
class ProbeMemory {
 public:
  explicit ProbeMemory(Index wanted) {
    const Index machine =
        static_cast<Index>(sysconf(_SC_PHYS_PAGES)) * static_cast<Index>(sysconf(_SC_PAGESIZE));
    n_bytes_ = std::max(std::min(wanted, machine / 16) / kSlice, Index{1}) * kSlice;
    void* p = mmap(nullptr, static_cast<std::size_t>(n_bytes_), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return;
    madvise(p, static_cast<std::size_t>(n_bytes_), MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(p);
  }
  ~ProbeMemory() {
    if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(n_bytes_));
  }
  ProbeMemory(const ProbeMemory&) = delete;
  ProbeMemory& operator=(const ProbeMemory&) = delete;

  static constexpr Index kSlice = Index{1} << 21;  // what a thread claims at a time
  std::byte* data() const { return data_; }
  Index n_bytes() const { return n_bytes_; }
  Index n_slices() const { return n_bytes_ / kSlice; }

 private:
  std::byte* data_ = nullptr;
  Index n_bytes_ = 0;
};

void measure_read(const LimitLoops& loops, ThreadPool& pool, const ProbeSize& size,
                  MachineLimits& limits) {
  if (size.memory_bytes == 0) return;
  const ProbeMemory memory(size.memory_bytes);
  if (memory.data() == nullptr) return;  // then it stays unknown
  constexpr Index kSlice = ProbeMemory::kSlice;
  pool.run(memory.n_slices(), [&](Index i, int) {
    std::memset(memory.data() + i * kSlice, 1, static_cast<std::size_t>(kSlice));
  });
  std::atomic<std::uint64_t> seen{0};
  for (const ReadPattern pattern : kReadPatterns) {
    const double gb = 1e-9 * static_cast<double>(memory.n_bytes());
    const double gb_s = typical_rate(gb, size.pass_s, [&] {
      pool.run(memory.n_slices(), [&](Index i, int) {
        seen ^= loops.read(memory.data() + i * kSlice, kSlice, pattern);
      });
    });
    if (gb_s <= limits.read_gb_s.value_or(0)) continue;
    limits.read_gb_s = gb_s;
    limits.read_pattern = name(pattern);
  }
}

// --- any processor ------------------------------------------------------------------------------

using Four = float __attribute__((vector_size(16)));  // registers that every processor has
constexpr int kChains = 12;

double plain_f32(Index rounds) {
  volatile float zero = 0, unit = 1;  // unknown to the compiler, so that no chain equals another
  Four sums[kChains];
  for (Four& sum : sums) sum = Four{} + zero;
  const Four one = Four{} + unit;
  for (Index r = 0; r < rounds; ++r) {
    for (Four& sum : sums) sum = sum * one + one;
  }
  double total = 0;
  for (const Four& sum : sums) {
    for (int i = 0; i < 4; ++i) total += static_cast<double>(sum[i]);
  }
  return total;
}

template <Index kStreams, bool kAhead>
std::uint64_t plain_read(const std::byte* p, Index n) {
  std::uint64_t seen[4] = {};
  const Index stream = n / kStreams;
  for (Index at = 0; at < stream; at += kReadStep) {
    for (Index s = 0; s < kStreams; ++s) {
      const std::byte* from = p + s * stream + at;
      std::uint64_t words[kReadStep / 8];
      std::memcpy(words, from, kReadStep);
      for (Index line = 0; kAhead && line < kReadStep; line += 64) {
        __builtin_prefetch(from + kPrefetchBytes + line);
      }
      for (std::size_t i = 0; i < kReadStep / 8; ++i) seen[i % 4] ^= words[i];
    }
  }
  return seen[0] ^ seen[1] ^ seen[2] ^ seen[3];
}

std::uint64_t plain_read_by(const std::byte* p, Index n, ReadPattern pattern) {
  switch (pattern) {
    case ReadPattern::kPlain:
      break;
    case ReadPattern::kStreams:
      return plain_read<kReadStreams, false>(p, n);
    case ReadPattern::kPrefetch:
      return plain_read<1, true>(p, n);
    case ReadPattern::kStreamsPrefetch:
      return plain_read<kReadStreams, true>(p, n);
  }
  return plain_read<1, false>(p, n);
}

}  // namespace

constinit const LimitLoops kPlainLimitLoops = {.f32 = {.products = 4 * kChains, .run = plain_f32},
                                               .bf16 = {},
                                               .int16 = {},
                                               .int8 = {},
                                               .read = plain_read_by};

const LimitLoops& limit_loops(Isa isa) {
#ifdef KOGIA_X86_KERNELS
  if (isa == Isa::avx2) return avx2::kLimitLoops;
  if (isa == Isa::avx512) return avx512::kLimitLoops;
#endif
  static_cast<void>(isa);
  return kPlainLimitLoops;
}

std::string_view name(ReadPattern pattern) {
  switch (pattern) {
    case ReadPattern::kPlain:
      return "plain";
    case ReadPattern::kStreams:
      return "streams";
    case ReadPattern::kPrefetch:
      return "prefetch";
    case ReadPattern::kStreamsPrefetch:
      return "streams, prefetch";
  }
  return "?";
}

MachineLimits measure_limits(const LimitLoops& loops, ThreadPool& pool, const ProbeSize& size) {
  MachineLimits limits;
  measure_read(loops, pool, size, limits);
  limits.f32_gflop_s = peak(loops.f32, pool, size.pass_s);
  limits.bf16_gflop_s = peak(loops.bf16, pool, size.pass_s);
  limits.int16_gop_s = peak(loops.int16, pool, size.pass_s);
  limits.int8_gop_s = peak(loops.int8, pool, size.pass_s);
  return limits;
}

}  // namespace kogia
