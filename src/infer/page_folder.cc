#include "infer/page_folder.h"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <system_error>

#include <sys/stat.h>
#include <unistd.h>

namespace kogia {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kStep = 1'000;  // some file systems keep no single nanoseconds
constexpr Index kMaxDepth = kSecond / kStep - 1;
/// Writing a page takes milliseconds. One that is removed too early is a page that is not kept.
constexpr std::int64_t kTemporarySeconds = 120;
/// What others have added is looked for when this part of the size has been written.
constexpr Index kScansPerSize = 16;

bool is_hex(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

constexpr std::size_t kHexDigits = 32;

bool is_page_name(std::string_view name) {
  return name.size() == kHexDigits + 5 && is_hex(name.substr(0, kHexDigits)) &&
         name.ends_with(".page");
}
bool is_temporary_name(std::string_view name) {  // page_writer.cc
  return name.size() > kHexDigits && is_hex(name.substr(0, kHexDigits)) && name.ends_with(".tmp");
}

std::int64_t nanoseconds(const timespec& t) { return t.tv_sec * kSecond + t.tv_nsec; }

bool look_at(const fs::path& file, struct stat& info) {
  return ::lstat(file.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

template <class Visit>
void for_each_name(const fs::path& folder, const Visit& visit) {
  std::error_code error;
  fs::directory_iterator it(folder, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    visit(it->path().filename().string());
  }
}

}  // namespace

timespec file_time(const PageAge& age) {
  return {.tv_sec = static_cast<time_t>(age.minute * 60),
          .tv_nsec = static_cast<long>((kMaxDepth - std::min(age.depth, kMaxDepth)) * kStep)};
}

std::int64_t minute_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::minutes>(now).count();
}

PageFolder::PageFolder(fs::path root, Index max_bytes)
    : root_(std::move(root)), max_bytes_(max_bytes) {}

void PageFolder::scan() {
  pages_.clear();
  n_bytes_ = n_since_scan_ = 0;
  for_each_name(root_, [&](const std::string& name) {
    if (name.size() == kHexDigits && is_hex(name)) scan_model(name);
  });
  make_room();
}

void PageFolder::scan_model(const std::string& fingerprint) {
  const fs::path folder = root_ / fingerprint;
  for_each_name(folder, [&](const std::string& name) {
    struct stat info{};
    const bool is_page = is_page_name(name);
    if ((!is_page && !is_temporary_name(name)) || !look_at(folder / name, info)) return;
    if (is_page) {
      pages_.emplace(nanoseconds(info.st_mtim), Page{fingerprint + "/" + name, info.st_size});
      n_bytes_ += info.st_size;
    } else if (info.st_mtim.tv_sec < ::time(nullptr) - kTemporarySeconds) {
      ::unlink((folder / name).c_str());
    }
  });
}

void PageFolder::add(const std::string& name, Index n_bytes, const PageAge& age) {
  pages_.emplace(nanoseconds(file_time(age)), Page{name, n_bytes});
  n_bytes_ += n_bytes;
  n_since_scan_ += n_bytes;
  if (n_since_scan_ > max_bytes_ / kScansPerSize) {
    scan();
  } else {
    make_room();
  }
}

void PageFolder::make_room() {
  while (n_bytes_ > max_bytes_ && !pages_.empty()) {
    auto oldest = pages_.extract(pages_.begin());
    const Page& page = oldest.mapped();
    struct stat info{};
    const fs::path file = root_ / page.name;
    const bool is_there = look_at(file, info);
    if (is_there && nanoseconds(info.st_mtim) > oldest.key()) {  // used since
      oldest.key() = nanoseconds(info.st_mtim);
      pages_.insert(std::move(oldest));
      continue;
    }
    n_bytes_ -= page.n_bytes;
    if (is_there && ::unlink(file.c_str()) == 0) ++n_removed_;
  }
}

}  // namespace kogia
