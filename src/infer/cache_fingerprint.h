#pragma once
// What the numbers in the cache depend on beside the tokens.

#include <string>

#include "infer/engine.h"

namespace kogia {

/// Raised with every change to a kernel that changes a bit of the cache: pages of before are then
/// not found. The test CacheArithmetic.ItsBitsAreThoseOfItsVersion fails where that is forgotten.
inline constexpr int kCacheArithmetic = 2;

/// Lines "NAME: VALUE": weights (a hash of all files and the configuration), compute, mla, device
/// (its instruction set), cache (type and layout), arithmetic (kCacheArithmetic, and a hash of what
/// the model makes of four tokens, here and now). Equal fingerprints give equal bits, wherever the
/// files lie and on whatever machine. Reads the whole checkpoint, unless the hash of a file that
/// has not changed since is in PackingOptions::cache_folder.
///
/// Errors   Ctrl-C throws kInterrupted
/// Threads  uses the device
std::string cache_fingerprint(const Engine& engine);

/// 32 digits that stand for a fingerprint.
std::string fingerprint_digest(const std::string& fingerprint);
/// "device cpu/avx512, here cpu/avx2": the lines of `saved` that differ from `here`. `saved` may be
/// any text.
std::string fingerprint_difference(const std::string& saved, const std::string& here);

}  // namespace kogia
