#include "base/temporary.h"

#include <set>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;
using test::read_file;
using test::TempDir;
using testing::ElementsAre;

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

/// A process that does `work` and then waits to be killed.
template <class Work>
pid_t start_and_wait(Work work) {
  int ready[2];
  EXPECT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto held = work();
    (void)::write(ready[1], "x", 1);
    while (true) ::pause();
  }
  char byte;
  EXPECT_EQ(::read(ready[0], &byte, 1), 1);
  ::close(ready[0]);
  ::close(ready[1]);
  return child;
}
void kill_and_wait(pid_t child) {
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST(Temporary, WhatAKilledProcessLeftGoesWithTheNextRun) {
  const TempDir dir;
  const pid_t file_writer = start_and_wait([&] {
    auto file = std::make_unique<AtomicFile>(dir / "out");
    file->append(std::string(3 << 20, 'n'));
    return file;
  });
  const pid_t folder_writer = start_and_wait([&] {
    Temporary folder = make_temporary_folder(dir / "model");
    write_file_atomically(folder.path / "config.json", "{}");
    return folder;
  });
  EXPECT_EQ(names_in(dir.path()).size(), 2u);
  // As long as they live, nobody takes it from them.
  write_file_atomically(dir / "out", "new");
  fs::remove_all(make_temporary_folder(dir / "model").path);
  EXPECT_EQ(names_in(dir.path()).size(), 3u);
  kill_and_wait(file_writer);
  kill_and_wait(folder_writer);
  write_file_atomically(dir / "out", "newer");
  fs::remove_all(make_temporary_folder(dir / "model").path);
  EXPECT_THAT(names_in(dir.path()), ElementsAre("out"));
  EXPECT_EQ(read_file(dir / "out"), "newer");
}

TEST(Temporary, NothingButItsOwnRemainsIsSweptUp) {
  const TempDir dir;
  const std::set<std::string> others = {".out.1-0.tmp.bak", ".out.tmp",       ".out.1-.tmp",
                                        ".out.x-1.tmp",     ".other.1-0.tmp", "out.tmp",
                                        ".out.1.tmp"};
  for (const std::string& name : others) dir.write(name, "mine");
  dir.write(".out.1-0.tmp", "left");
  dir.write(".out.99999-12/.tmp", "mine");
  dir.write("far/kept", "mine");
  fs::create_symlink(dir / "far", dir / ".out.2-0.tmp");
  write_file_atomically(dir / "out", "new");
  std::set<std::string> expected = others;
  expected.insert({"out", "far", ".out.99999-12", ".out.2-0.tmp"});
  EXPECT_EQ(names_in(dir.path()), expected);
  EXPECT_EQ(read_file(dir / "far/kept"), "mine");
}

TEST(Temporary, ManyWritersOfOneTargetAtOnceAllSucceed) {
  const TempDir dir;
  std::vector<std::thread> writers;
  for (int t = 0; t < 8; ++t) {
    writers.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        write_file_atomically(dir / "out", std::string(1000, static_cast<char>('a' + t)));
        const Temporary folder = make_temporary_folder(dir / "out");
        EXPECT_TRUE(fs::is_directory(folder.path));
        fs::remove_all(folder.path);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_THAT(names_in(dir.path()), ElementsAre("out"));
  EXPECT_EQ(read_file(dir / "out").size(), 1000u);
}

}  // namespace
}  // namespace kogia
