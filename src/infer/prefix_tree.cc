#include "infer/prefix_tree.h"

#include <algorithm>

#include "base/error.h"

namespace kogia {

PrefixTree::PrefixTree(PagePool& pool, Index page_tokens)
    : pool_(pool), page_tokens_(page_tokens) {}

PrefixTree::~PrefixTree() {
  // Leaves first, whoever reads them: readers hold on to the pages themselves.
  while (!leaves_.empty()) remove(*leaves_.begin()->second);
}

// The child that shares most with the beginning of `ids`, at most a page of them.
PrefixTree::Found PrefixTree::closest(const Children& children, std::span<const TokenId> ids) {
  Found best;
  const auto consider = [&](Children::const_iterator child) {
    const auto& tokens = child->first;
    const auto end = std::ranges::mismatch(tokens, ids).in1;
    const Index n = end - tokens.begin();
    if (n > best.n_common) best = {child->second.get(), n};
  };
  const auto next = children.lower_bound(Tokens(ids.begin(), ids.end()));
  if (next != children.end()) consider(next);
  if (next != children.begin()) consider(std::prev(next));
  return best;
}

// The token that a cached text has at the place where all of them differ from the one asked for.
TokenId PrefixTree::token_instead(const Children& children, const Found& found) {
  if (children.empty()) return -1;
  const Tokens& tokens = found.node != nullptr ? found.node->self->first : children.begin()->first;
  const auto place = static_cast<std::size_t>(found.n_common);
  return place < tokens.size() ? tokens[place] : -1;
}

template <class Visit>
void PrefixTree::descend(std::string_view tenant, std::span<const TokenId> ids,
                         const Visit& visit) const {
  const auto root = roots_.find(tenant);
  const Node* at = root == roots_.end() ? nullptr : &root->second;
  while (at != nullptr && !ids.empty()) {
    const auto part = ids.first(std::min(ids.size(), static_cast<std::size_t>(page_tokens_)));
    const Found found = closest(at->children, part);
    visit(at->children, part, found);
    ids = ids.subspan(static_cast<std::size_t>(found.n_common));
    at = found.n_common == page_tokens_ ? found.node : nullptr;
  }
}

PrefixMatch PrefixTree::match(std::string_view tenant, std::span<const TokenId> ids) {
  PrefixMatch result;
  ++clock_;
  descend(tenant, ids, [&](const Children& children, auto part, const Found& found) {
    const auto [child, n] = found;
    if (n < static_cast<Index>(part.size())) result.other = token_instead(children, found);
    if (child == nullptr) return;
    touch(*child);
    pool_.retain(child->page);
    if (n == page_tokens_) {
      result.pages.push_back(child->page);
    } else {
      result.tail_page = child->page;
      result.n_tail = n;
    }
  });
  return result;
}

Index PrefixTree::match_length(std::string_view tenant, std::span<const TokenId> ids) const {
  Index length = 0;
  descend(tenant, ids,
          [&](const Children&, auto, const Found& found) { length += found.n_common; });
  return length;
}

void PrefixTree::insert(std::string_view tenant, std::span<const TokenId> ids,
                        std::span<std::int32_t> pages) {
  if (ids.empty()) return;
  auto root = roots_.find(tenant);
  if (root == roots_.end()) root = roots_.try_emplace(std::string(tenant)).first;
  ++clock_;
  Node* at = &root->second;
  for (std::size_t i = 0; !ids.empty(); ++i) {
    const auto part = ids.first(std::min(ids.size(), static_cast<std::size_t>(page_tokens_)));
    at = &insert_at(*at, part, pages[i]);
    ids = ids.subspan(part.size());
  }
}

// The child of `parent` with these tokens, or one that begins with them; made where there is none.
PrefixTree::Node& PrefixTree::insert_at(Node& parent, std::span<const TokenId> ids,
                                        std::int32_t& page) {
  const auto [child, n] = closest(parent.children, ids);
  const auto n_ids = static_cast<Index>(ids.size());
  if (child != nullptr && n == n_ids) {  // here already, with as many tokens or more
    touch(*child);
    if (n_ids == page_tokens_ && child->page != page) {
      pool_.retain(child->page);
      pool_.release(page);
      page = child->page;
    }
    return *child;
  }
  if (child != nullptr && n == static_cast<Index>(child->self->first.size())) {
    // A leaf with the beginning of these: this one has more.
    remove(*child);
  }
  return add_child(parent, ids, page);
}

PrefixTree::Node& PrefixTree::add_child(Node& parent, std::span<const TokenId> ids,
                                        std::int32_t page) {
  if (parent.parent != nullptr && parent.children.empty()) leaves_.erase({parent.used, &parent});
  const auto child =
      parent.children.emplace(Tokens(ids.begin(), ids.end()), std::make_unique<Node>()).first;
  Node& node = *child->second;
  node.page = page;
  node.parent = &parent;
  node.self = child;
  node.used = clock_;
  leaves_.insert({node.used, &node});
  pool_.keep(page);
  ++n_pages_;
  return node;
}

void PrefixTree::touch(Node& node) {
  const bool leaf = node.children.empty();
  if (leaf) leaves_.erase({node.used, &node});
  node.used = clock_;
  if (leaf) leaves_.insert({node.used, &node});
}

void PrefixTree::remove(Node& node) {
  KOGIA_CHECK(node.children.empty());
  leaves_.erase({node.used, &node});
  pool_.unkeep(node.page);
  --n_pages_;
  Node& parent = *node.parent;
  parent.children.erase(node.self);
  if (parent.parent != nullptr && parent.children.empty()) leaves_.insert({parent.used, &parent});
}

bool PrefixTree::evict_one() {
  for (const auto& [used, node] : leaves_) {
    if (pool_.n_holders(node->page) > 1) continue;
    remove(*node);
    return true;
  }
  return false;
}

void PrefixTree::visit_below(const Node& node, const std::function<void(std::int32_t)>& visit) {
  for (const auto& [tokens, child] : node.children) {
    visit(child->page);
    visit_below(*child, visit);
  }
}

void PrefixTree::for_each_page(const std::function<void(std::int32_t page)>& visit) const {
  for (const auto& [tenant, root] : roots_) visit_below(root, visit);
}

void PrefixTree::clear() {
  while (evict_one()) {
  }
}

}  // namespace kogia
