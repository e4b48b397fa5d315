#include "base/page_memory.h"

#include <algorithm>

#include <sys/mman.h>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace kogia {
namespace {

constexpr Index kHugePage = Index{2} << 20;

}  // namespace

std::shared_ptr<std::byte> allocate_pages(Index n) {
  KOGIA_CHECK(n >= 0);
  const bool huge = n >= kHugePage;
  // Room to begin at a huge page.
  const auto size = static_cast<std::size_t>(std::max<Index>(n, 1) + (huge ? kHugePage : 0));
  void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw_errno("memory", fmt::format("cannot allocate {} bytes", n));
#ifdef MADV_HUGEPAGE
  if (huge) ::madvise(p, size, MADV_HUGEPAGE);  // a hint
#endif
  std::byte* begin = static_cast<std::byte*>(p);
  if (huge) {
    begin += round_up(static_cast<Index>(reinterpret_cast<std::uintptr_t>(p)), kHugePage) -
             static_cast<Index>(reinterpret_cast<std::uintptr_t>(p));
  }
  return {begin, [p, size](std::byte*) { ::munmap(p, size); }};
}

}  // namespace kogia
