#include "infer/stop_matcher.h"

#include <algorithm>

#include "base/error.h"

namespace kogia {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    if (stop.empty()) {
      throw Error(ErrorCode::kUsage, "a stop string is empty",
                  "it would stop before the first character; leave it out");
    }
    std::int32_t node = 0;
    for (const char c : stop) {
      std::int32_t next = child(node, c);
      if (next == 0) {
        next = static_cast<std::int32_t>(nodes_.size());
        const Index depth = nodes_[static_cast<std::size_t>(node)].depth + 1;
        nodes_[static_cast<std::size_t>(node)].next.emplace_back(c, next);
        nodes_.push_back({.next = {}, .fail = 0, .depth = depth, .longest_match = 0});
      }
      node = next;
    }
    nodes_[static_cast<std::size_t>(node)].longest_match = static_cast<Index>(stop.size());
  }
  link();
}

std::int32_t StopMatcher::child(std::int32_t node, char c) const {
  for (const auto& [byte, next] : nodes_[static_cast<std::size_t>(node)].next) {
    if (byte == c) return next;
  }
  return 0;
}

std::int32_t StopMatcher::advance(std::int32_t node, char c) const {
  while (true) {
    const std::int32_t next = child(node, c);
    if (next != 0 || node == 0) return next;
    node = nodes_[static_cast<std::size_t>(node)].fail;
  }
}

// Breadth first, so that shorter prefixes are linked before longer ones.
void StopMatcher::link() {
  std::vector<std::int32_t> queue{0};
  for (std::size_t head = 0; head < queue.size(); ++head) {
    const std::int32_t parent = queue[head];
    for (const auto& [c, id] : nodes_[static_cast<std::size_t>(parent)].next) {
      queue.push_back(id);
      Node& node = nodes_[static_cast<std::size_t>(id)];
      if (parent != 0) node.fail = advance(nodes_[static_cast<std::size_t>(parent)].fail, c);
      const Index inherited = nodes_[static_cast<std::size_t>(node.fail)].longest_match;
      node.longest_match = std::max(node.longest_match, inherited);
    }
  }
}

// The state is the longest suffix of the text that begins a stop string, so no match that is still
// to come can begin before it: everything older may go, and a match that begins no later than it is
// the earliest.
std::string StopMatcher::push(std::string_view text) {
  if (stopped_) return {};
  for (const char c : text) {
    held_.push_back(c);
    state_ = advance(state_, c);
    const Node& node = nodes_[static_cast<std::size_t>(state_)];
    const Index end = static_cast<Index>(held_.size());
    if (node.longest_match > 0) {
      const Index begin = end - node.longest_match;
      match_begin_ = match_begin_ < 0 ? begin : std::min(match_begin_, begin);
    }
    if (match_begin_ >= 0 && end - node.depth >= match_begin_) return finish();
  }
  const Index safe =
      static_cast<Index>(held_.size()) - nodes_[static_cast<std::size_t>(state_)].depth;
  std::string out = held_.substr(0, static_cast<std::size_t>(safe));
  held_.erase(0, static_cast<std::size_t>(safe));
  if (match_begin_ >= 0) match_begin_ -= safe;
  return out;
}

std::string StopMatcher::finish() {
  if (stopped_) return {};
  std::string out = std::move(held_);
  held_.clear();
  state_ = 0;
  if (match_begin_ >= 0) {
    out.resize(static_cast<std::size_t>(match_begin_));
    stopped_ = true;
  }
  return out;
}

}  // namespace kogia
