#pragma once
// Large memory straight from the operating system.

#include <cstddef>
#include <memory>

#include "base/index.h"

namespace kogia {

/// n zeroed bytes that begin at a page, in huge pages where the system has them to give; pages take
/// memory when they are first touched. Throws Error (kIo) where there is none.
std::shared_ptr<std::byte> allocate_pages(Index n);

}  // namespace kogia
