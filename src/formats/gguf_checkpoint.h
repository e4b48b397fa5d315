#pragma once
// GGUF files as a checkpoint.

#include <filesystem>
#include <memory>

#include "formats/checkpoint.h"

namespace kogia {

/// A file, or all files of a split set if it is one of them (any part finds the others).
std::unique_ptr<Checkpoint> open_gguf(const std::filesystem::path& path);

}  // namespace kogia
