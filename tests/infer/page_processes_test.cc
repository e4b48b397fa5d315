// Pages on disk and what happens to processes: they are killed, share a folder, and the disk is
// full.

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/page_file.h"
#include "infer/page_testing.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;

constexpr Index kBytes = 64 << 10;
const Index kFileBytes = page_file_bytes(kPageTokens, kBytes);

std::unique_ptr<PageStore> open(const fs::path& folder, Index max_pages) {
  return PageStore::open({.folder = folder,
                          .max_bytes = max_pages * kFileBytes,
                          .fingerprint = "a",
                          .page_bytes = kBytes});
}

/// Runs `body` in a process of its own; exits with what it gives.
pid_t start(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  return child;
}

int wait_for(pid_t child) {
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

std::string tenant_of(int i) { return "tenant " + std::to_string(i); }

// Issue 6: fifty times kill -9 while pages are written, and no wrong answer.
TEST(PageProcesses, KilledWhileTheyWriteLeaveOnlyMisses) {
  const TempDir dir;
  constexpr int kRounds = 50, kPages = 12;
  const Philox random(20);
  std::array<int, 2> ready{};
  ASSERT_EQ(::pipe(ready.data()), 0);
  int n_right = 0;
  for (int round = 0; round < kRounds; ++round) {
    const pid_t child = start([&] {
      const auto store = open(dir / "cache", 1000);
      // Some pages of every round are whole; from then on it is killed at any moment.
      const char byte = 1;
      for (int i = 0; true; ++i) {
        for (const TestPage& p : chain_of(tenant_of(1000 * round + i), kPages)) {
          while (!save(*store, p, kBytes)) store->flush();
        }
        if (i == 0) store->flush();
        if (i == 0 && ::write(ready[1], &byte, 1) != 1) return 1;
      }
    });
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    std::this_thread::sleep_for(
        std::chrono::microseconds(random.bits(static_cast<std::uint64_t>(round))[0] % 20'000));
    ::kill(child, SIGKILL);
    ASSERT_TRUE(WIFSIGNALED(wait_for(child)));
    const auto store = open(dir / "cache", 1000);
    for (int i = 0; i < 16; ++i) {
      const int n = n_found(*store, chain_of(tenant_of(1000 * round + i), kPages), kBytes);
      ASSERT_GE(n, 0) << "a wrong page";
      n_right += n;
    }
  }
  EXPECT_GE(n_right, kRounds * kPages) << "what was flushed before the kill is there";
  ::close(ready[0]);
  ::close(ready[1]);
}

// They write the same pages, read each other's and make room for their own, all at once.
TEST(PageProcesses, OfOneFolderDoNotHarmEachOther) {
  const TempDir dir;
  constexpr int kProcesses = 3, kTimelines = 60, kPages = 4;
  constexpr Index kMaxPages = 64;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    children.push_back(start([&, i] {
      const auto store = open(dir / "cache", kMaxPages);
      const Philox random(21, i);
      Index n_right = 0;
      for (int step = 0; step < kTimelines; ++step) {
        const auto which = random.bits(static_cast<std::uint64_t>(step))[0] % 20;
        for (const TestPage& p : chain_of(tenant_of(static_cast<int>(which)), kPages)) {
          const Found found = load(*store, p, kBytes);
          if (found == Found::kWrong) return 1;
          n_right += found == Found::kRight ? 1 : 0;
          save(*store, p, kBytes);
        }
        if (step % 8 == 0) store->flush();
      }
      // A page that another removes while it is read is missing, never damaged.
      if (store->stats().n_damaged > 0) return 2;
      return n_right > 0 ? 0 : 3;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(wait_for(child), 0);
  EXPECT_LE(files_below(dir / "cache", ".page").size(), kMaxPages * (1 + kProcesses / 16.0) + 3);
  EXPECT_TRUE(files_below(dir / "cache", ".tmp").empty());
}

TEST(PageProcesses, SeeEachOthersPagesAtOnce) {
  const TempDir dir;
  const auto pages = chain_of("", 8);
  const auto a = open(dir / "cache", 100), b = open(dir / "cache", 100);
  for (const TestPage& p : pages) save(*a, p, kBytes);
  a->flush();
  EXPECT_EQ(n_found(*b, pages, kBytes), 8);
  fs::remove_all(dir / "cache");  // by somebody
  EXPECT_EQ(n_found(*b, pages, kBytes), 0);
  save(*b, pages[0], kBytes);
  b->flush();
  EXPECT_EQ(b->stats().n_dropped, 1) << "no folder, no page, and no end of the run";
}

TEST(PageProcesses, AFullQueueDropsPagesAndSaysSo) {
  const TempDir dir;
  const auto pages = chain_of("", 60);
  const auto store = PageStore::open(
      {.folder = dir / "cache", .fingerprint = "a", .page_bytes = kBytes, .max_queued_bytes = 1});
  std::vector<TestPage> kept;
  for (const TestPage& p : pages) {
    if (save(*store, p, kBytes)) kept.push_back(p);
  }
  store->flush();
  EXPECT_EQ(n_found(*store, pages, kBytes), static_cast<int>(kept.size()));
  EXPECT_EQ(n_found(*store, kept, kBytes), static_cast<int>(kept.size()));
  EXPECT_EQ(store->stats().n_dropped, static_cast<Index>(pages.size() - kept.size()));
}

// A limit on the size of files stands for a disk without room: the system refuses in the middle of
// a page, and would kill a program that does not care.
TEST(PageProcesses, GoOnWithOneWarningWhereTheDiskIsFull) {
  const TempDir dir;
  const fs::path log = dir / "log";
  const auto pages = chain_of("", 6);
  const pid_t child = start([&] {
    const auto store = open(dir / "cache", 1000);
    save(*store, pages[0], kBytes);
    store->flush();
    const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(fd, 2);
    const rlimit limit{static_cast<rlim_t>(kFileBytes - 1), RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    for (std::size_t i = 1; i < 4; ++i) save(*store, pages[i], kBytes);
    store->flush();
    if (save(*store, pages[4], kBytes)) return 1;
    if (store->contains(pages[1].key)) return 2;
    if (load(*store, pages[0], kBytes) != Found::kRight) return 3;  // reading goes on
    return store->stats().n_dropped == 4 ? 0 : 4;
  });
  EXPECT_EQ(wait_for(child), 0);
  const std::string text = read_file(log);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_THAT(text, testing::HasSubstr("no more pages are kept"));
  EXPECT_THAT(text, testing::HasSubstr("File too large"));
  EXPECT_TRUE(files_below(dir / "cache", ".tmp").empty());
  EXPECT_EQ(n_found(*open(dir / "cache", 1000), pages, kBytes), 1);
}

}  // namespace
}  // namespace kogia::test
