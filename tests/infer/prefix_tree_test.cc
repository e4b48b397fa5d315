// Beginnings of texts are found again, whole pages in place and the next one to be copied; what
// nobody reads leaves, the longest unused first.

#include "infer/prefix_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/page_pool.h"

namespace kogia {
namespace {

using testing::ElementsAre;
using Ids = std::vector<TokenId>;

constexpr Index kPage = 4;

class Tree : public testing::Test {
 protected:
  /// Computes a text of its own and lets go of it: only the tree holds the pages now.
  std::vector<std::int32_t> put(const Ids& ids, std::string_view tenant = "") {
    std::vector<std::int32_t> pages;
    for (Index i = 0; i < ceil_div(static_cast<Index>(ids.size()), kPage); ++i) {
      pages.push_back(pool_.take());
    }
    tree_.insert(tenant, ids, pages);
    for (const std::int32_t page : pages) pool_.release(page);
    return pages;
  }
  PrefixMatch match(const Ids& ids, std::string_view tenant = "") {
    PrefixMatch m = tree_.match(tenant, ids);
    EXPECT_EQ(m.n_tokens(kPage), tree_.match_length(tenant, ids));
    return m;
  }
  void let_go(const PrefixMatch& m) {
    for (const std::int32_t page : m.pages) pool_.release(page);
    if (m.tail_page >= 0) pool_.release(m.tail_page);
  }
  Index length(const Ids& ids, std::string_view tenant = "") {
    return tree_.match_length(tenant, ids);
  }

  PagePool pool_{16};
  PrefixTree tree_{pool_, kPage};
};

TEST_F(Tree, FindsWholePagesInPlaceAndTheRestToCopy) {
  const auto pages = put({1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  EXPECT_EQ(tree_.n_pages(), 3);
  const PrefixMatch m = match({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12});
  EXPECT_THAT(m.pages, ElementsAre(pages[0], pages[1]));
  EXPECT_EQ(m.tail_page, pages[2]);
  EXPECT_EQ(m.n_tail, 1);
  EXPECT_EQ(m.other, 10) << "where the text asked for has 11";
  EXPECT_EQ(pool_.n_holders(pages[0]), 2) << "retained for the caller";
  let_go(m);
  EXPECT_EQ(length({1, 2, 3}), 3) << "the beginning of a full page";
  EXPECT_EQ(length({1, 2, 9, 9}), 2);
  EXPECT_EQ(length({2, 2, 3, 4}), 0);
  EXPECT_EQ(length({}), 0);
}

TEST_F(Tree, TwoContinuationsOfOneBeginning) {
  const auto a = put({1, 2, 3, 4, 5, 6, 7, 8});
  const auto b = put({1, 2, 3, 4, 5, 6, 9, 9});
  EXPECT_EQ(tree_.n_pages(), 3);
  const PrefixMatch m = match({1, 2, 3, 4, 5, 6, 9, 9, 1});
  EXPECT_THAT(m.pages, ElementsAre(a[0], b[1])) << "one page for the same tokens";
  let_go(m);
  EXPECT_EQ(length({1, 2, 3, 4, 5, 6, 7, 8}), 8);
}

TEST_F(Tree, TheTreesPageReplacesTheCallersOfTheSameText) {
  const auto before = put({1, 2, 3, 4});
  std::vector<std::int32_t> own{pool_.take()};
  const std::int32_t mine = own[0];
  tree_.insert("", Ids{1, 2, 3, 4}, own);
  EXPECT_EQ(own, before);
  EXPECT_EQ(pool_.n_holders(mine), 0);
  EXPECT_EQ(pool_.n_holders(before[0]), 2);
  pool_.release(own[0]);
}

TEST_F(Tree, ALastPageGrowsWithItsText) {
  std::vector<std::int32_t> pages{pool_.take()};
  tree_.insert("", Ids{1, 2}, pages);
  EXPECT_EQ(length({1, 2, 3, 4}), 2);
  tree_.insert("", Ids{1, 2, 3}, pages);
  EXPECT_EQ(length({1, 2, 3, 4}), 3);
  EXPECT_EQ(tree_.n_pages(), 1);
  tree_.insert("", Ids{1, 2}, pages);
  EXPECT_EQ(length({1, 2, 3, 4}), 3) << "less than is known changes nothing";
  EXPECT_EQ(pool_.n_holders(pages[0]), 2);
  pool_.release(pages[0]);
}

TEST_F(Tree, SaysWhatACachedTextHasInstead) {
  put({1, 2, 3, 4, 5, 6});
  const auto other = [&](const Ids& ids) {
    const PrefixMatch m = match(ids);
    let_go(m);
    return m.other;
  };
  EXPECT_EQ(other({9, 2}), 1);
  EXPECT_EQ(other({1, 2, 3, 4, 9}), 5);
  EXPECT_EQ(other({1, 2, 3, 4, 5, 9}), 6);
  EXPECT_EQ(other({1, 2, 3, 4, 5, 6, 7}), -1) << "it ends there";
  EXPECT_EQ(other({1, 2, 3}), -1) << "all of it is cached";
}

TEST_F(Tree, TenantsDoNotSeeEachOther) {
  put({1, 2, 3, 4}, "a");
  EXPECT_EQ(length({1, 2, 3, 4}, "b"), 0);
  EXPECT_EQ(length({1, 2, 3, 4}, ""), 0);
  EXPECT_EQ(length({1, 2, 3, 4}, "a"), 4);
}

TEST_F(Tree, EvictsTheLeastRecentlyUsedThatNobodyReads) {
  put({1, 1, 1, 1, 2, 2, 2, 2});
  put({3, 3, 3, 3});
  put({4, 4, 4, 4});
  let_go(match({1, 1, 1, 1, 2, 2, 2, 2}));
  const PrefixMatch read = match({3, 3, 3, 3});
  EXPECT_EQ(pool_.n_idle(), 3);
  EXPECT_TRUE(tree_.evict_one());
  EXPECT_EQ(length({4, 4, 4, 4}), 0);
  EXPECT_TRUE(tree_.evict_one()) << "children before parents";
  EXPECT_EQ(length({1, 1, 1, 1, 2, 2, 2, 2}), 4);
  EXPECT_TRUE(tree_.evict_one());
  EXPECT_FALSE(tree_.evict_one()) << "the last one is read";
  EXPECT_EQ(length({3, 3, 3, 3}), 4);
  let_go(read);
  tree_.clear();
  EXPECT_EQ(pool_.n_free(), pool_.n_pages());
}

// A change in the last tenth of a long prompt costs just what follows it.
TEST_F(Tree, ALongTextIsSharedUpToItsChange) {
  Ids text;
  for (TokenId i = 0; i < 40; ++i) text.push_back(i % 7);
  put(text);
  Ids changed = text;
  changed[37] = 100;
  EXPECT_EQ(length(changed), 37);
}

}  // namespace
}  // namespace kogia
