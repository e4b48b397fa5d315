#pragma once
// Large memory straight from the operating system.

#include <cstddef>
#include <memory>

#include "base/index.h"

namespace kogia {

/// n zeroed bytes that begin at a page, in huge pages where the system has them to give; pages take
/// memory when they are first touched. Throws Error (kIo) where there is none.
std::shared_ptr<std::byte> allocate_pages(Index n);

/// The same, of addresses alone: nothing is set aside for pages that are not touched, so that n may
/// be as large as the machine's memory. Null where the process has not so many addresses left.
std::shared_ptr<std::byte> reserve_pages(Index n);

/// How much may well be reserved for memory that grows: what the machine has; nothing where the
/// process may only have so many addresses (ulimit -v).
Index reservable_bytes();

}  // namespace kogia
