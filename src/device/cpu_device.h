#pragma once
// The CPU as a device: kernels compiled once per instruction set, chosen at run time.

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "device/device.h"

namespace kogia {

/// avx512: with bf16 and VNNI (Zen 4, Sapphire Rapids and later). neon: any 64-bit ARM; byte dot
/// products are used where it has them, with the same bits.
enum class Isa { scalar, avx2, avx512, neon };
std::string_view name(Isa isa);
std::optional<Isa> parse_isa(std::string_view name);

/// What the running processor can do, best last; always begins with scalar.
std::vector<Isa> available_isas();

struct CpuOptions {
  int n_threads = 0;            // 0: all usable cores
  std::optional<Isa> isa = {};  // unset: the best available; one that is not available is an Error
  /// Whether other arithmetic is faster than bf16 dot products. Unset: as on the running processor;
  /// tests ask for either.
  std::optional<bool> slow_bf16 = {};
};

/// Throws Error (usage) where the processor lacks the asked instruction set.
std::unique_ptr<Device> make_cpu_device(const CpuOptions& options = {});

}  // namespace kogia
