#pragma once
// Which beginnings of texts are in the cache: a radix tree over token ids, a page an edge.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "infer/page_pool.h"
#include "text/tokenizer.h"

namespace kogia {

/// Pages that hold the beginning of a text. All are retained for the caller.
struct PrefixMatch {
  std::vector<std::int32_t>
      pages;                    // full ones, to be read in place: page i has tokens from 64 i on
  std::int32_t tail_page = -1;  // one whose first n_tail tokens go on from there: to be copied,
  Index n_tail = 0;             // since others write it, or it continues differently
  TokenId other = -1;  // how a cached text goes on where this one does not; -1: it ends there
  Index n_tokens(Index page_tokens) const {
    return static_cast<Index>(pages.size()) * page_tokens + n_tail;
  }
};

/// A node holds the page after its parent's, with all its tokens or, in a leaf, the first of them.
/// What a page holds depends on all tokens before it, and so does the way to its node. Tenants have
/// trees of their own. Pages that only the tree holds are given back one by one when asked,
/// the least recently used first, children before parents.
/// Threads: one at a time.
class PrefixTree {
 public:
  PrefixTree(PagePool& pool, Index page_tokens);
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  /// The longest beginning of `ids` that is here.
  PrefixMatch match(std::string_view tenant, std::span<const TokenId> ids);
  /// How long that is, nothing retained and nothing marked as used.
  Index match_length(std::string_view tenant, std::span<const TokenId> ids) const;

  /// What the caller computed: pages[i] holds tokens from page_tokens * i on, the last one perhaps
  /// in part. The caller may write on behind those tokens, and nowhere else. Where a full page with
  /// the same text was here before, the caller's own is released and that one put in its place.
  void insert(std::string_view tenant, std::span<const TokenId> ids, std::span<std::int32_t> pages);

  /// Gives back the least recently used page that nobody reads. False: all are read, or none is
  /// here.
  bool evict_one();
  void clear();  // all that nobody reads
  Index n_pages() const { return n_pages_; }
  /// Every page it holds, each once (for checks).
  void for_each_page(const std::function<void(std::int32_t page)>& visit) const;

 private:
  using Tokens = std::vector<TokenId>;
  struct Node;
  // Ordered by tokens: what shares most with a text stands next to its place.
  using Children = std::map<Tokens, std::unique_ptr<Node>>;
  struct Node {
    std::int32_t page = -1;
    std::uint64_t used = 0;  // when, in calls
    Node* parent = nullptr;
    Children children;
    Children::iterator self;  // in the parent
  };
  struct Found {
    Node* node = nullptr;
    Index n_common = 0;
  };
  static Found closest(const Children& children, std::span<const TokenId> ids);
  static TokenId token_instead(const Children& children, const Found& found);
  /// Down the longest match; visit(children, page of ids, found) at each page.
  template <class Visit>
  void descend(std::string_view tenant, std::span<const TokenId> ids, const Visit& visit) const;
  Node& insert_at(Node& parent, std::span<const TokenId> ids, std::int32_t& page);
  Node& add_child(Node& parent, std::span<const TokenId> ids, std::int32_t page);
  void touch(Node& node);
  void remove(Node& node);
  static void visit_below(const Node& node, const std::function<void(std::int32_t)>& visit);

  PagePool& pool_;
  Index page_tokens_;
  std::map<std::string, Node, std::less<>> roots_;  // by tenant
  std::set<std::pair<std::uint64_t, Node*>> leaves_;
  std::uint64_t clock_ = 0;
  Index n_pages_ = 0;
};

}  // namespace kogia
