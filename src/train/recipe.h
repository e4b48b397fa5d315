#pragma once

namespace kogia {

/// Arithmetic of a training run: docs/training.md.
enum class Recipe { kF32, kBf16, kFp8 };

}  // namespace kogia
