#pragma once
// What readers notice when a long prompt arrives: what `kogia bench --arriving` prints.

#include <vector>

#include "infer/engine.h"

namespace kogia {

struct ArrivalCase {
  Index n_readers = 4;  // texts that are being written
  Index prompt = 4096;  // tokens of the one that arrives
  Index chunk = 128;    // of them in a step
  std::uint64_t seed = 0;
};

/// Seconds of steps, which are the gaps between two tokens of each reader.
struct Arrival {
  std::vector<double> alone;   // nothing else is there
  std::vector<double> beside;  // and each computes a chunk of the prompt too
  std::vector<double> chunks;  // the same chunks, without readers
  /// The longest of `beside` by what readers and that chunk take apart: what is above 1 is not
  /// explained by the step's budget of rows.
  double unexplained() const;
};

/// Tokens that the cache needs room for.
Index arrival_tokens(const ArrivalCase& c);
/// On random tokens. Ctrl-C throws kInterrupted.
Arrival measure_arrival(Engine& engine, const ArrivalCase& c);

double median_of(std::vector<double> values);  // not empty

}  // namespace kogia
