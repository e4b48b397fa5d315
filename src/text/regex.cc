#include "text/regex.h"

#include <algorithm>
#include <map>
#include <memory>

#include "base/error.h"
#include "text/regex_parse.h"

namespace kogia {

void CharSet::finish(bool negated) {
  negated_ = negated;
  std::ranges::sort(ranges_, {}, &Range::first);
  std::vector<Range> merged;
  for (const Range& r : ranges_) {
    if (!merged.empty() && r.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, r.last);
    } else {
      merged.push_back(r);
    }
  }
  ranges_ = std::move(merged);
  for (char32_t c = 0; c < 128; ++c) {
    if (has_slow(c) != negated) ascii_[c >> 6] |= 1ULL << (c & 63);
  }
}

bool CharSet::has_slow(char32_t c) const {
  const CharInfo info = char_info(c);
  if ((categories_ >> info.category() & 1) != 0) return true;
  if (info.white_space() ? white_space_ : not_white_space_) return true;
  const auto after = std::ranges::upper_bound(ranges_, c, {}, &Range::first);
  return after != ranges_.begin() && c <= std::prev(after)->last;
}

// Tree to steps; once with runs as single steps, once spelt out.
class RegexCompiler {
 public:
  explicit RegexCompiler(std::string_view pattern)
      : pattern_(pattern), parsed_(parse_regex(pattern)) {}

  Regex compile() {
    Regex regex;
    const RegexNode& root = parsed_.root;
    std::vector<const RegexNode*> tops;
    if (root.kind == RegexNode::kAlternation) {
      for (const RegexNode& child : root.children) tops.push_back(&child);
    } else {
      tops.push_back(&root);
    }
    if (tops.size() > 64) refuse("more than 64 alternatives");
    steps_ = &regex.quick_;
    for (std::size_t i = 0; i < tops.size(); ++i) {
      regex.alternatives_.push_back(here());
      emit(*tops[i]);
      push({.op = RegexStep::kMatch});
      for (char32_t c = 0; c < 128; ++c) {
        if (can_begin_with(*tops[i], c)) regex.first_[c] |= 1ULL << i;
      }
    }
    spell_out_ = true;
    steps_ = &regex.plain_;
    emit(root);
    push({.op = RegexStep::kMatch});
    regex.sets_ = std::move(parsed_.sets);
    return regex;
  }

 private:
  static constexpr std::size_t kMaxSteps = 4000;

  [[noreturn]] void refuse(std::string_view what) const {
    throw_error(ErrorCode::kUnsupported, "pattern '{}' of the pre-tokenizer has {}", pattern_,
                what);
  }
  std::uint32_t here() const { return static_cast<std::uint32_t>(steps_->size()); }
  std::uint32_t push(RegexStep step) {
    if (steps_->size() >= kMaxSteps) refuse("more than 4000 steps when spelt out");
    steps_->push_back(step);
    return here() - 1;
  }

  void emit(const RegexNode& node) {
    switch (node.kind) {
      case RegexNode::kSet:
        push({.op = RegexStep::kChar, .set = node.set});
        break;
      case RegexNode::kAhead:
        push({.op = RegexStep::kAhead, .set = node.set, .a = node.negated ? 0U : 1U});
        break;
      case RegexNode::kLineStart:
        push({.op = RegexStep::kLineStart});
        break;
      case RegexNode::kLineEnd:
        push({.op = RegexStep::kLineEnd});
        break;
      case RegexNode::kSequence:
        for (const RegexNode& child : node.children) emit(child);
        break;
      case RegexNode::kAlternation:
        emit_alternation(node);
        break;
      case RegexNode::kRepeat:
        emit_repeat(node);
        break;
    }
  }

  void emit_alternation(const RegexNode& node) {
    std::vector<std::uint32_t> jumps;
    for (std::size_t i = 0; i < node.children.size(); ++i) {
      const bool last = i + 1 == node.children.size();
      const std::uint32_t split = last ? 0 : push({.op = RegexStep::kSplit});
      emit(node.children[i]);
      if (last) break;
      jumps.push_back(push({.op = RegexStep::kJump}));
      (*steps_)[split].a = split + 1;
      (*steps_)[split].b = here();
    }
    for (const std::uint32_t jump : jumps) (*steps_)[jump].a = here();
  }

  void emit_repeat(const RegexNode& node) {
    const RegexNode& inner = node.children[0];
    if (node.mode == RegexNode::kPossessive) {
      push({.op = RegexStep::kPossessive, .set = inner.set, .a = node.min, .b = node.max});
      return;
    }
    if (inner.kind == RegexNode::kSet && node.mode == RegexNode::kGreedy && !spell_out_) {
      push({.op = RegexStep::kRun, .set = inner.set, .a = node.min, .b = node.max});
      return;
    }
    for (std::uint32_t i = 0; i < node.min; ++i) emit(inner);
    if (node.max == Regex::kNoLimit) {
      const std::uint32_t split = push({.op = RegexStep::kSplit});
      emit(inner);
      push({.op = RegexStep::kJump, .a = split});
      aim(split, node.mode);
    } else {
      std::vector<std::uint32_t> splits;
      for (std::uint32_t i = node.min; i < node.max; ++i) {
        splits.push_back(push({.op = RegexStep::kSplit}));
        emit(inner);
      }
      for (const std::uint32_t split : splits) aim(split, node.mode);
    }
  }

  // The split before one more round: greedy takes the round first, lazy leaves first.
  void aim(std::uint32_t split, RegexNode::Mode mode) {
    RegexStep& step = (*steps_)[split];
    step.a = split + 1;
    step.b = here();
    if (mode == RegexNode::kLazy) std::swap(step.a, step.b);
  }

  // May a match of `node` begin with c? True also where `node` can be empty.
  bool can_begin_with(const RegexNode& node, char32_t c) const {
    switch (node.kind) {
      case RegexNode::kSet:
        return parsed_.sets[node.set].has(c);
      case RegexNode::kRepeat:
        return node.min == 0 || can_begin_with(node.children[0], c);
      case RegexNode::kAlternation:
        return std::ranges::any_of(node.children,
                                   [&](const auto& n) { return can_begin_with(n, c); });
      case RegexNode::kSequence: {
        for (const RegexNode& child : node.children) {
          const bool optional = child.can_be_empty();
          const RegexNode& part = child.kind == RegexNode::kRepeat ? child.children[0] : child;
          if (can_begin_with(part, c)) return true;
          if (!optional) return false;
        }
        return true;
      }
      default:
        return true;
    }
  }

  std::string_view pattern_;
  ParsedRegex parsed_;
  std::vector<RegexStep>* steps_ = nullptr;
  bool spell_out_ = false;
};

Regex Regex::compile(std::string_view pattern) { return RegexCompiler(pattern).compile(); }

// The search of one pattern in one text.
class RegexSearch {
 public:
  RegexSearch(const Regex& regex, std::string_view text) : regex_(regex), text_(text) {}

  void find_all(std::vector<ByteRange>& matches) {
    for (std::size_t pos = 0; pos < text_.size();) {
      const std::size_t end = match_at(pos);
      if (end != kFailed && end > pos) {
        matches.push_back({pos, end});
        pos = end;
      } else {
        pos += decode_utf8(text_, pos).size;
      }
    }
  }

 private:
  static constexpr std::size_t kFailed = ~std::size_t{0};
  struct Frame {
    std::uint32_t pc;
    std::size_t pos;  // where to go on
    std::size_t low;  // a run may give back down to here; == pos: nothing to give
  };

  std::size_t match_at(std::size_t pos) {
    if (!remember_) {
      const std::size_t end = quick_match(pos);
      if (!remember_) return end;
    }
    return remembering_match(pos);
  }

  std::size_t quick_match(std::size_t pos) {
    const auto c = static_cast<unsigned char>(text_[pos]);
    std::uint64_t candidates = c < 128 ? regex_.first_[c] : ~0ULL;
    if (regex_.alternatives_.size() < 64) candidates &= (1ULL << regex_.alternatives_.size()) - 1;
    for (; candidates != 0; candidates &= candidates - 1) {
      const auto i = static_cast<std::size_t>(__builtin_ctzll(candidates));
      const std::size_t end = run(regex_.alternatives_[i], pos);
      if (end != kFailed || remember_) return end;
    }
    return kFailed;
  }

  // Backtracks from (pc, pos) through quick_. Gives up, and sets remember_, when the work done
  // exceeds a multiple of the text read so far.
  std::size_t run(std::uint32_t pc, std::size_t pos) {
    stack_.clear();
    for (;;) {
      if (work_ > kQuickWork + 32 * pos) {
        remember_ = true;
        return kFailed;
      }
      const std::size_t end = advance(pc, pos);
      if (end != kFailed) return end;
      if (stack_.empty()) return kFailed;
      ++work_;
      Frame& top = stack_.back();
      pc = top.pc;
      if (top.low < top.pos) top.pos = before(top.pos);
      pos = top.pos;
      if (top.low == top.pos) stack_.pop_back();
    }
  }

  // Steps from (pc, pos) until the match or the first failure; choices are pushed.
  std::size_t advance(std::uint32_t pc, std::size_t pos) {
    for (;; ++pc) {
      const RegexStep& step = regex_.quick_[pc];
      switch (step.op) {
        case RegexStep::kMatch:
          return pos;
        case RegexStep::kChar: {
          const std::uint32_t n = one_char(step.set, pos);
          if (n == 0) return kFailed;
          pos += n;
          break;
        }
        case RegexStep::kRun: {
          std::size_t low = pos;
          if (!take_run(step, pos, low)) return kFailed;
          if (low < pos) stack_.push_back({pc + 1, pos, low});
          break;
        }
        case RegexStep::kPossessive: {
          std::size_t low = pos;
          if (!take_run(step, pos, low)) return kFailed;
          break;
        }
        case RegexStep::kSplit:
          stack_.push_back({step.b, pos, pos});
          pc = step.a - 1;
          break;
        case RegexStep::kJump:
          pc = step.a - 1;
          break;
        default:
          if (!holds(step, pos)) return kFailed;
      }
    }
  }

  std::uint32_t one_char(std::uint16_t set, std::size_t pos) const {
    if (pos >= text_.size()) return 0;
    const DecodedChar c = decode_utf8(text_, pos);
    return regex_.sets_[set].has(c.code) ? c.size : 0;
  }

  // As many characters of the set as allowed; `low` becomes the end of the shortest run allowed.
  bool take_run(const RegexStep& step, std::size_t& pos, std::size_t& low) {
    std::uint32_t count = 0;
    while (count < step.b) {
      const std::uint32_t n = one_char(step.set, pos);
      if (n == 0) break;
      pos += n;
      if (++count == step.a) low = pos;
    }
    work_ += count;
    return count >= step.a;
  }

  bool holds(const RegexStep& step, std::size_t pos) const {
    if (step.op == RegexStep::kAhead) return (one_char(step.set, pos) != 0) == (step.a != 0);
    if (step.op == RegexStep::kLineStart) return pos == 0 || text_[pos - 1] == '\n';
    return pos == text_.size() || text_[pos] == '\n';
  }

  // Start of the character that ends at pos.
  std::size_t before(std::size_t pos) const {
    for (std::size_t back = 2; back <= 4 && back <= pos; ++back) {
      const auto b = static_cast<unsigned char>(text_[pos - back + 1]);
      if ((b & 0xC0) != 0x80) break;
      if (decode_utf8(text_, pos - back).size == back) return pos - back;
    }
    return pos - 1;
  }

  // The same on plain_, never entering a state (pc, pos) twice: it failed the first time. A failure
  // does not depend on where the match began, so the memory holds for later searches too.
  std::size_t remembering_match(std::size_t start) {
    forget_before(start);
    stack_.assign(1, {0, start, start});
    while (!stack_.empty()) {
      std::uint32_t pc = stack_.back().pc;
      std::size_t pos = stack_.back().pos;
      stack_.pop_back();
      while (enter(pc, pos)) {
        const RegexStep& step = regex_.plain_[pc];
        if (step.op == RegexStep::kMatch) {
          failed_[pos / kPage].reset_row(pos % kPage, row_words());  // these states did not fail
          return pos;
        }
        if (!plain_step(step, pc, pos)) break;
      }
    }
    return kFailed;
  }

  bool plain_step(const RegexStep& step, std::uint32_t& pc, std::size_t& pos) {
    switch (step.op) {
      case RegexStep::kSplit:
        stack_.push_back({step.b, pos, pos});
        pc = step.a;
        return true;
      case RegexStep::kJump:
        pc = step.a;
        return true;
      case RegexStep::kChar: {
        const std::uint32_t n = one_char(step.set, pos);
        pos += n;
        ++pc;
        return n != 0;
      }
      case RegexStep::kPossessive: {
        const bool taken = take_possessive(step, pos);
        ++pc;
        return taken;
      }
      default:
        ++pc;
        return holds(step, pos);
    }
  }

  // An endless run that starts inside the last one ends where that one ended.
  bool take_possessive(const RegexStep& step, std::size_t& pos) {
    std::size_t low = pos;
    if (step.b != Regex::kNoLimit) return take_run(step, pos, low);
    ByteRange& known = runs_[step.set];
    if (pos < known.begin || pos >= known.end) {
      known = {pos, pos};
      RegexStep all = step;
      all.a = 0;
      take_run(all, known.end, low);
    }
    if (known.end == pos) return step.a == 0;
    pos = known.end;
    return true;  // min is 0 or 1
  }

  // One bit for each state of kPage positions.
  static constexpr std::size_t kPage = 256;
  struct Page {
    std::vector<std::uint64_t> bits;
    void reset_row(std::size_t row, std::size_t words) {
      std::fill_n(bits.begin() + static_cast<std::ptrdiff_t>(row * words), words, 0);
    }
  };
  std::size_t row_words() const { return (regex_.plain_.size() + 63) / 64; }
  bool enter(std::uint32_t pc, std::size_t pos) {
    Page& page = failed_[pos / kPage];
    if (page.bits.empty()) page.bits.resize(kPage * row_words());
    std::uint64_t& word = page.bits[(pos % kPage) * row_words() + pc / 64];
    const std::uint64_t bit = 1ULL << (pc % 64);
    if ((word & bit) != 0) return false;
    word |= bit;
    return true;
  }
  void forget_before(std::size_t pos) {
    failed_.erase(failed_.begin(), failed_.lower_bound(pos / kPage));
  }

  static constexpr std::size_t kQuickWork = 4096;
  const Regex& regex_;
  std::string_view text_;
  std::vector<Frame> stack_;
  std::size_t work_ = 0;
  bool remember_ = false;
  std::map<std::size_t, Page> failed_;
  std::map<std::uint16_t, ByteRange> runs_;
};

void Regex::find_all(std::string_view text, std::vector<ByteRange>& matches) const {
  RegexSearch(*this, text).find_all(matches);
}

}  // namespace kogia
