// Pages on disk: what was saved comes back after a restart, everything else is a miss, and the
// folder keeps its size.

#include "infer/page_store.h"

#include <chrono>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "infer/page_file.h"
#include "infer/page_recency.h"
#include "infer/page_testing.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;

constexpr Index kBytes = 200;
const Index kFileBytes = page_file_bytes(kPageTokens, kBytes);

std::unique_ptr<PageStore> open(const fs::path& folder, Index max_pages = 1000,
                                const std::string& fingerprint = "a") {
  return PageStore::open({.folder = folder,
                          .max_bytes = max_pages * kFileBytes,
                          .fingerprint = fingerprint,
                          .page_bytes = kBytes});
}

void save_all(PageStore& store, const std::vector<TestPage>& pages) {
  for (const TestPage& p : pages) EXPECT_TRUE(save(store, p, kBytes));
  store.flush();
}

void make_older(const fs::path& file, std::chrono::minutes by) {
  fs::last_write_time(file, fs::last_write_time(file) - by);
}

TEST(PageKeys, CoverTenantAndAllTokensBefore) {
  const auto a = chain_of("a", 3), b = chain_of("b", 3);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NE(a[i].key, b[i].key);
  EXPECT_NE(page_key(a[0].key, a[1].ids), page_key(a[1].key, a[1].ids));
  auto other = a[2].ids;
  other.back() += 1;
  EXPECT_NE(page_key(a[1].key, other), a[2].key);
  EXPECT_EQ(page_key(a[1].key, a[2].ids), a[2].key);
  EXPECT_NE(page_key_root(""), PageKey());
}

// The first half of the SHA-256 of one zero byte: what names pages must not change unnoticed, or
// every cache on disk is lost.
TEST(PageKeys, AreThoseOfEarlierVersions) {
  EXPECT_EQ(page_key_root("").hex(), "987ab3ff9c0b346e2c0a78bbe644a59c");
}

TEST(PageStore, PagesComeBackAfterARestart) {
  const TempDir dir;
  const auto pages = chain_of("", 5);
  {
    const auto store = open(dir / "cache");
    EXPECT_EQ(n_found(*store, pages, kBytes), 0);
    save_all(*store, pages);
    EXPECT_EQ(n_found(*store, pages, kBytes), 5);
    EXPECT_EQ(store->stats().n_written, 5);
  }
  const auto store = open(dir / "cache");
  for (const TestPage& p : pages) EXPECT_TRUE(store->contains(p.key));
  EXPECT_EQ(n_found(*store, pages, kBytes), 5);
  EXPECT_EQ(store->stats().n_loaded, 5);
  store->flush();
  EXPECT_EQ(store->stats().n_folder_bytes, 5 * kFileBytes);
}

TEST(PageStore, WhatWaitsIsWrittenAtTheEnd) {
  const TempDir dir;
  const auto pages = chain_of("", 50);
  {
    const auto store = open(dir / "cache");
    for (const TestPage& p : pages) EXPECT_TRUE(save(*store, p, kBytes));
  }
  EXPECT_EQ(n_found(*open(dir / "cache"), pages, kBytes), 50);
}

TEST(PageStore, APageThatIsThereIsNotWrittenAgain) {
  const TempDir dir;
  const auto store = open(dir / "cache");
  save_all(*store, chain_of("", 5));
  save_all(*store, chain_of("", 5));
  EXPECT_EQ(store->stats().n_written, 5);
}

TEST(PageStore, PagesOfAnotherModelAreNotSeen) {
  const TempDir dir;
  const auto pages = chain_of("", 3);
  const auto a = open(dir / "cache"), b = open(dir / "cache", 1000, "b");
  save_all(*a, pages);
  EXPECT_EQ(n_found(*b, pages, kBytes), 0);
  // Nor where somebody puts them among its own.
  const fs::path from = files_below(dir / "cache", ".page").front().parent_path();
  for (const fs::path& text : files_below(dir / "cache", "fingerprint.txt")) {
    const fs::path to = text.parent_path();
    if (to == from) continue;
    for (const fs::path& file : files_below(from, ".page")) fs::copy(file, to / file.filename());
  }
  EXPECT_TRUE(b->contains(pages[0].key));
  EXPECT_EQ(n_found(*b, pages, kBytes), 0);
}

TEST(PageStore, OtherTokensOrAnotherBeginningAreAMiss) {
  const TempDir dir;
  const auto store = open(dir / "cache");
  const auto pages = chain_of("", 2);
  const auto with = [&](const TestPage& p) {
    save_all(*store, pages);
    return load(*store, p, kBytes);
  };
  TestPage wrong = pages[1];
  wrong.ids[63] ^= 1;
  EXPECT_EQ(with(wrong), Found::kMiss);
  wrong = pages[1];
  wrong.before = page_key_root("another");
  EXPECT_EQ(with(wrong), Found::kMiss);
  EXPECT_EQ(with(pages[1]), Found::kRight);
}

/// One page on disk that is replaced by other bytes.
class Damage : public testing::Test {
 protected:
  Damage() {
    save_all(*store_, {page_});
    file_ = files_below(dir_ / "cache", ".page").at(0);
    bytes_ = read_file(file_);
  }
  void expect_miss(const std::string& bytes) {
    std::ofstream(file_, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_EQ(load(*store_, page_, kBytes), Found::kMiss);
    ASSERT_FALSE(fs::exists(file_)) << "so that it is written anew";
  }

  TempDir dir_;
  std::unique_ptr<PageStore> store_ = open(dir_ / "cache");
  TestPage page_ = chain_of("", 1)[0];
  fs::path file_;
  std::string bytes_;
};

TEST_F(Damage, OfAnyBitIsAMiss) {
  ASSERT_EQ(static_cast<Index>(bytes_.size()), kFileBytes);
  for (std::size_t i = 0; i < 8 * bytes_.size(); ++i) {
    std::string damaged = bytes_;
    damaged[i / 8] = static_cast<char>(damaged[i / 8] ^ (1 << i % 8));
    SCOPED_TRACE(i);
    expect_miss(damaged);
  }
  EXPECT_EQ(store_->stats().n_damaged, static_cast<Index>(8 * bytes_.size()));
  save_all(*store_, {page_});
  EXPECT_EQ(load(*store_, page_, kBytes), Found::kRight);
}

TEST_F(Damage, OfItsLengthIsAMiss) {
  for (std::size_t n = 0; n < bytes_.size(); ++n) expect_miss(bytes_.substr(0, n));
  expect_miss(bytes_ + "x");
  expect_miss(bytes_ + bytes_);
}

// What a power failure leaves: the length is right and blocks are zeros.
TEST_F(Damage, ByZerosIsAMiss) {
  for (const std::size_t from : {0u, 8u, 100u, 344u, 400u}) {
    std::string torn = bytes_;
    std::fill(torn.begin() + static_cast<std::ptrdiff_t>(from), torn.end(), '\0');
    expect_miss(torn);
  }
}

TEST_F(Damage, ByThingsThatAreNoFilesIsAMiss) {
  const fs::path aside = dir_ / "aside";
  fs::rename(file_, aside);
  fs::create_symlink(aside, file_);
  EXPECT_EQ(load(*store_, page_, kBytes), Found::kMiss);
  fs::remove(file_);
  ASSERT_EQ(::mkfifo(file_.c_str(), 0600), 0);
  EXPECT_EQ(load(*store_, page_, kBytes), Found::kMiss);  // and does not wait for a writer
  fs::create_directory(file_);
  EXPECT_EQ(load(*store_, page_, kBytes), Found::kMiss);
  EXPECT_FALSE(store_->contains(page_.key));
}

// -----------------------------------------------------------------------------------------------
// The size of the folder

TEST(PageFolder, OfALongPrefixTheBeginningStays) {
  const TempDir dir;
  const auto pages = chain_of("", 30);
  const auto store = open(dir / "cache", 10);
  save_all(*store, pages);
  EXPECT_EQ(n_found(*store, {pages.begin(), pages.begin() + 10}, kBytes), 10);
  EXPECT_EQ(n_found(*store, pages, kBytes), 10);
  EXPECT_EQ(store->stats().n_removed, 20);
  EXPECT_EQ(store->stats().n_folder_bytes, 10 * kFileBytes);
}

TEST(PageFolder, WhatWasUsedLeastRecentlyLeavesFirst) {
  const TempDir dir;
  const auto a = chain_of("a", 5), b = chain_of("b", 5), c = chain_of("c", 5);
  save_all(*open(dir / "cache"), a);
  save_all(*open(dir / "cache"), b);
  for (const fs::path& file : files_below(dir / "cache", ".page")) {
    make_older(file, std::chrono::hours(24));
  }
  EXPECT_EQ(n_found(*open(dir / "cache"), a, kBytes), 5);  // and is used by that
  const auto store = open(dir / "cache", 10);
  save_all(*store, c);
  EXPECT_EQ(n_found(*store, a, kBytes), 5);
  EXPECT_EQ(n_found(*store, b, kBytes), 0);
  EXPECT_EQ(n_found(*store, c, kBytes), 5);
}

TEST(PageFolder, ASmallerSizeHoldsFromTheStart) {
  const TempDir dir;
  save_all(*open(dir / "cache"), chain_of("", 40));
  save_all(*open(dir / "cache", 1000, "another model"), chain_of("", 40));
  const auto store = open(dir / "cache", 16);
  store->flush();
  EXPECT_EQ(files_below(dir / "cache", ".page").size(), 16u);
}

TEST(PageFolder, OnlyOldTemporariesAndOnlyOurOwnAreRemoved) {
  const TempDir dir;
  const auto pages = chain_of("", 3);
  save_all(*open(dir / "cache"), pages);
  const fs::path folder = files_below(dir / "cache", ".page").front().parent_path();
  const auto put = [&](const std::string& name, std::chrono::minutes age) {
    std::ofstream(folder / name) << "x";
    make_older(folder / name, age);
    return folder / name;
  };
  const std::string hex(32, '7');
  const fs::path old = put(hex + ".12-0.tmp", std::chrono::minutes(10));
  const fs::path young = put(hex + ".12-1.tmp", std::chrono::minutes(0));
  const fs::path foreign = put("letter.tmp", std::chrono::hours(1000));
  const fs::path picture = put("my.page", std::chrono::hours(1000));
  const auto store = open(dir / "cache", 1);
  store->flush();
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(young));
  EXPECT_TRUE(fs::exists(foreign));
  EXPECT_TRUE(fs::exists(picture));
  EXPECT_EQ(n_found(*store, pages, kBytes), 1);
}

TEST(PageFolder, IsForItsOwnerAlone) {
  const TempDir dir;
  save_all(*open(dir / "cache"), chain_of("", 1));
  const fs::path page = files_below(dir / "cache", ".page").front();
  const auto others = fs::perms::group_all | fs::perms::others_all;
  for (const fs::path& path : {page, page.parent_path(), dir / "cache"}) {
    EXPECT_EQ(fs::status(path).permissions() & others, fs::perms::none) << path;
  }
}

TEST(PageFolder, ThatCannotBeIsAnErrorOfOpening) {
  const TempDir dir;
  const auto message = [&](const fs::path& folder, Index max_pages) -> std::string {
    try {
      open(folder, max_pages);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      return e.what();
    }
    return "opened";
  };
  const fs::path file = dir.write("file", "text");
  EXPECT_THAT(message(file, 10), testing::HasSubstr(file.string()));
  EXPECT_THAT(message(file / "below", 10), testing::HasSubstr("no pages can be kept"));
  EXPECT_THAT(message(dir / "cache", 0), testing::HasSubstr(std::to_string(kFileBytes)));
  EXPECT_EQ(message(dir / "deep" / "down", 10), "opened");
}

// -----------------------------------------------------------------------------------------------
// Recency

TEST(PageRecency, UsingAPageUsesThoseBeforeItOnceAMinute) {
  const auto pages = chain_of("", 4), others = chain_of("other", 1);
  PageRecency recency;
  std::vector<Index> depths;
  const auto use = [&](const TestPage& p, std::int64_t minute) {
    depths.clear();
    return recency.use(p.key, p.before, minute, [&](const PageKey&, const PageAge& age) {
      EXPECT_EQ(age.minute, minute);
      depths.push_back(age.depth);
    });
  };
  for (const TestPage& p : pages) {
    const PageAge age = use(p, 7);
    EXPECT_EQ(depths, std::vector<Index>{age.depth}) << "those before are marked already";
  }
  use(pages[2], 9);
  EXPECT_EQ(depths, (std::vector<Index>{2, 1, 0}));
  use(pages[3], 9);
  EXPECT_EQ(depths, std::vector<Index>{3});
  EXPECT_EQ(use(pages[3], 9).depth, 3);
  EXPECT_TRUE(depths.empty());
  use(others[0], 9);
  EXPECT_EQ(depths, std::vector<Index>{0});
}

TEST(PageRecency, TheDeeperPageIsTheOlderAndAnyMinuteIsOlderThanTheNext) {
  const auto time = [](std::int64_t minute, Index depth) {
    const timespec t = file_time({minute, depth});
    EXPECT_TRUE(t.tv_nsec >= 0 && t.tv_nsec < 1'000'000'000);
    return std::pair(t.tv_sec, t.tv_nsec);
  };
  EXPECT_GT(time(5, 0), time(5, 1));
  EXPECT_GT(time(5, 100), time(5, 101));
  EXPECT_GT(time(6, Index{1} << 40), time(5, 0));
}

}  // namespace
}  // namespace kogia::test
