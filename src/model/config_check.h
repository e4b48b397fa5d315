#pragma once
// The part of reading a configuration that does not depend on the format: do the numbers make
// sense?

#include <string>

#include "model/config.h"

namespace kogia {

/// Throws Error naming `where` and the field whose value is impossible (zero, negative, beyond what
/// any checkpoint has, or at odds with another field).
void check(const ModelConfig& config, const std::string& where);

}  // namespace kogia
