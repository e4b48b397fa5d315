#pragma once
// Checkpoints broken in a way that a seed decides: what the damage test hands to the engine.

#include <cstdint>
#include <map>
#include <string>

#include "base/random.h"

namespace kogia::test {

/// The files of a checkpoint by their names; a GGUF is one file.
using Files = std::map<std::string, std::string>;

/// Draws of one damage.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t mutation) : random_(seed, mutation) {}
  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(random_.below(n == 0 ? 1 : n, counter_++));
  }
  bool one_in(std::size_t n) { return below(n) == 0; }

 private:
  Philox random_;
  std::uint64_t counter_ = 0;
};

/// Changes one to three things of `text`: a number, a name or a bracket becomes another, a pair is
/// left out or there twice.
std::string damaged_json(std::string text, Dice& dice);

/// A safetensors file: its header as JSON, the length of it, offsets, types, bytes, an end too
/// early.
std::string damaged_safetensors(const std::string& bytes, Dice& dice);

/// A GGUF: a count, length, type, value, dimension or offset of its header, bytes, an end too
/// early.
std::string damaged_gguf(const std::string& bytes, Dice& dice);

/// One file of a checkpoint, or of a folder its configuration, index or a shard, damaged; or a file
/// that is not there. `what` says which.
Files damaged(const Files& files, Dice& dice, std::string& what);

}  // namespace kogia::test
