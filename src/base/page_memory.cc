#include "base/page_memory.h"

#include <algorithm>

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace kogia {
namespace {

constexpr Index kHugePage = Index{2} << 20;

/// Null where there is none.
std::shared_ptr<std::byte> map_pages(Index n, int flags) {
  KOGIA_CHECK(n >= 0);
  const bool huge = n >= kHugePage;
  // Room to begin at a huge page.
  const auto size = static_cast<std::size_t>(std::max<Index>(n, 1) + (huge ? kHugePage : 0));
  void* p =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (p == MAP_FAILED) return nullptr;
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

}  // namespace

std::shared_ptr<std::byte> allocate_pages(Index n) {
  auto pages = map_pages(n, 0);
  if (pages == nullptr) throw_errno("memory", fmt::format("cannot allocate {} bytes", n));
  return pages;
}

std::shared_ptr<std::byte> reserve_pages(Index n) { return map_pages(n, MAP_NORESERVE); }

Index reservable_bytes() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return 0;
  return static_cast<Index>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<Index>(::sysconf(_SC_PAGESIZE));
}

}  // namespace kogia
