#include "text/regex_parse.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"

namespace kogia {
namespace {

constexpr std::array<std::string_view, kCategories> kCategoryNames = {
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cn", "Co", "Cs"};
constexpr std::uint32_t kAllCategories = (1U << kCategories) - 1;
constexpr int kMaxDepth = 50;
constexpr std::uint32_t kMaxRepeat = 1000;

// The categories that "L", "Lu", … name; 0 if it is no category.
std::uint32_t category_mask(std::string_view name) {
  std::uint32_t mask = 0;
  for (std::size_t i = 0; i < kCategoryNames.size(); ++i) {
    if (name == kCategoryNames[i] || (name.size() == 1 && name[0] == kCategoryNames[i][0]))
      mask |= 1U << i;
  }
  return mask;
}

class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) {
    if (!is_valid_utf8(pattern)) refuse("bytes that are not UTF-8");
  }

  ParsedRegex parse() {
    ParsedRegex parsed;
    parsed.root = alternation(0);
    if (!at_end()) refuse("an unmatched ')'");
    parsed.sets = std::move(sets_);
    return parsed;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw_error(ErrorCode::kUnsupported, "pattern '{}' of the pre-tokenizer uses {} (at byte {})",
                pattern_, what, pos_);
  }
  bool at_end() const { return pos_ >= pattern_.size(); }
  bool looking_at(std::string_view s) const { return pattern_.substr(pos_).starts_with(s); }
  bool take(std::string_view s) {
    if (!looking_at(s)) return false;
    pos_ += s.size();
    return true;
  }
  char32_t next_char() {
    if (at_end()) refuse("an unfinished construct");
    const DecodedChar c = decode_utf8(pattern_, pos_);
    pos_ += c.size;
    return c.code;
  }

  RegexNode alternation(int depth) {
    if (depth > kMaxDepth) refuse("groups nested too deep");
    RegexNode node;
    node.kind = RegexNode::kAlternation;
    do node.children.push_back(sequence(depth));
    while (take("|"));
    if (node.children.size() == 1) return std::move(node.children[0]);
    return node;
  }

  RegexNode sequence(int depth) {
    RegexNode node;
    while (!at_end() && !looking_at("|") && !looking_at(")")) {
      const std::optional<RegexNode> part = atom(depth);
      if (part) node.children.push_back(repeated(*part));
    }
    return node;
  }

  std::optional<RegexNode> atom(int depth) {
    if (looking_at("(")) return group(depth);
    RegexNode node;
    node.kind = RegexNode::kSet;
    CharSet set;
    if (take("[")) {
      read_class(set);
    } else if (take(".")) {
      set.add('\n', '\n');
      set.finish(true);
    } else if (take("^")) {
      node.kind = RegexNode::kLineStart;
      return node;
    } else if (take("$")) {
      node.kind = RegexNode::kLineEnd;
      return node;
    } else if (looking_at("*") || looking_at("+") || looking_at("?")) {
      refuse("a repetition of nothing");
    } else {
      if (const auto c = read_char_or_set(set)) add_literal(set, *c);
      set.finish(false);
    }
    node.set = add_set(std::move(set));
    return node;
  }

  std::optional<RegexNode> group(int depth) {
    const bool was_ignoring_case = ignore_case_;
    RegexNode node;
    if (take("(?=")) {
      node = ahead(false, depth);
    } else if (take("(?!")) {
      node = ahead(true, depth);
    } else if (take("(?:")) {
      node = alternation(depth + 1);
    } else if (take("(?i:")) {
      ignore_case_ = true;
      node = alternation(depth + 1);
    } else if (looking_at("(?")) {
      refuse("a group of a kind that is not supported here");
    } else {
      take("(");
      node = alternation(depth + 1);
    }
    if (!take(")")) refuse("a group without ')'");
    ignore_case_ = was_ignoring_case;
    return node;
  }

  RegexNode ahead(bool negated, int depth) {
    const RegexNode inner = alternation(depth + 1);
    const RegexNode* set = &inner;
    while (set->kind == RegexNode::kSequence && set->children.size() == 1) set = &set->children[0];
    if (set->kind != RegexNode::kSet) refuse("a lookahead of other than one character");
    RegexNode node;
    node.kind = RegexNode::kAhead;
    node.set = set->set;
    node.negated = negated;
    return node;
  }

  RegexNode repeated(RegexNode inner) {
    RegexNode node;
    node.kind = RegexNode::kRepeat;
    if (take("?")) {
      node.min = 0, node.max = 1;
    } else if (take("*")) {
      node.min = 0, node.max = Regex::kNoLimit;
    } else if (take("+")) {
      node.min = 1, node.max = Regex::kNoLimit;
    } else if (looking_at("{")) {
      read_bounds(node);
    } else {
      return inner;
    }
    const bool counted = pattern_[pos_ - 1] == '}';
    if (take("?")) {
      if (counted && node.min == node.max) refuse("'{n}?', which Oniguruma reads in its own way");
      node.mode = RegexNode::kLazy;
    } else if (looking_at("+")) {
      if (counted) refuse("'{n,m}+', which Oniguruma reads in its own way");
      take("+");
      node.mode = RegexNode::kPossessive;
      if (inner.kind != RegexNode::kSet) refuse("a possessive repetition of a group");
    }
    if (looking_at("*") || looking_at("+") || looking_at("?") || looking_at("{"))
      refuse("a repetition repeated");
    if (inner.kind != RegexNode::kSet && node.max == Regex::kNoLimit && inner.can_be_empty()) {
      refuse("an endless repetition of something that can be empty");
    }
    node.children.push_back(std::move(inner));
    return node;
  }

  void read_bounds(RegexNode& node) {
    take("{");
    node.min = read_number();
    node.max = node.min;
    if (take(",")) node.max = looking_at("}") ? Regex::kNoLimit : read_number();
    if (!take("}") || node.max < node.min) refuse("a malformed repetition");
  }
  std::uint32_t read_number() {
    std::uint32_t n = 0;
    const std::size_t begin = pos_;
    while (!at_end() && pattern_[pos_] >= '0' && pattern_[pos_] <= '9' && n <= kMaxRepeat) {
      n = n * 10 + static_cast<std::uint32_t>(pattern_[pos_++] - '0');
    }
    if (pos_ == begin) refuse("a '{' that is no repetition");
    if (n > kMaxRepeat) refuse("a repetition count above 1000");
    return n;
  }

  // A literal character (returned), or an escape that stands for a set (added to `set`).
  std::optional<char32_t> read_char_or_set(CharSet& set) {
    if (!take("\\")) return next_char();
    const char32_t c = next_char();
    switch (c) {
      case 'n':
        return U'\n';
      case 'r':
        return U'\r';
      case 't':
        return U'\t';
      case 'f':
        return U'\f';
      case 'v':
        return U'\v';
      case 's':
        set.add_white_space(true);
        return {};
      case 'S':
        set.add_white_space(false);
        return {};
      case 'd':
        set.add_categories(category_mask("Nd"));
        return {};
      case 'p':
      case 'P':
        set.add_categories(read_property(c == 'P'));
        return {};
      case 'x':
      case 'u':
        return read_code_point(c == 'u' ? 4 : 2);
      default:
        break;
    }
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (word) refuse(fmt::format("'\\{}'", static_cast<char>(c)));
    return c;
  }

  std::uint32_t read_property(bool negated) {
    const std::size_t close = pattern_.find('}', pos_);
    if (!take("{") || close == std::string_view::npos) refuse("a malformed \\p{..}");
    if (take("^")) negated = !negated;
    const std::string_view name = pattern_.substr(pos_, close - pos_);
    const std::uint32_t mask = category_mask(name);
    if (mask == 0) refuse(fmt::format("\\p{{{}}}, which is no general category", name));
    pos_ = close + 1;
    return negated ? kAllCategories & ~mask : mask;
  }

  char32_t read_code_point(std::size_t digits) {
    const bool braces = digits == 2 && take("{");
    char32_t code = 0;
    std::size_t n = 0;
    for (; !at_end() && n < (braces ? 6 : digits); ++n) {
      const char c = pattern_[pos_];
      const int value = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (value < 0) break;
      code = code * 16 + static_cast<char32_t>(value);
      ++pos_;
    }
    if (n == 0 || (braces && !take("}")) || (!braces && n != digits) || code > 0x10FFFF) {
      refuse("a malformed code point");
    }
    return code;
  }

  // After '[' up to and with ']'.
  void read_class(CharSet& set) {
    const bool negated = take("^");
    if (looking_at("]")) refuse("an empty class");
    while (!take("]")) {
      if (looking_at("[") || looking_at("&&")) refuse("a class within a class");
      const auto first = read_char_or_set(set);
      const bool range = looking_at("-") && !looking_at("-]");
      if (!first) {
        if (range) refuse("a range that begins with a set");
        continue;
      }
      if (!range) {
        add_literal(set, *first);
        continue;
      }
      take("-");
      const auto last = read_char_or_set(set);
      if (!last || *last < *first) refuse("a malformed range");
      if (ignore_case_) refuse("a range in a case-insensitive group");
      set.add(*first, *last);
    }
    set.finish(negated);
  }

  // With (?i:..) a letter stands for both cases, and for the two letters outside ASCII that fold to
  // one.
  void add_literal(CharSet& set, char32_t c) {
    set.add(c, c);
    if (!ignore_case_) return;
    if (c >= 0x80) refuse("a letter beyond ASCII in a case-insensitive group");
    const char32_t lower = c >= 'A' && c <= 'Z' ? c + 32 : c;
    if (lower < 'a' || lower > 'z') return;
    set.add(lower, lower);
    set.add(lower - 32, lower - 32);
    if (lower == 's') set.add(0x17F, 0x17F);
    if (lower == 'k') set.add(0x212A, 0x212A);
  }

  std::uint16_t add_set(CharSet set) {
    if (sets_.size() >= 1000) refuse("more than 1000 classes");
    sets_.push_back(std::move(set));
    return static_cast<std::uint16_t>(sets_.size() - 1);
  }

  std::string_view pattern_;
  std::size_t pos_ = 0;
  bool ignore_case_ = false;
  std::vector<CharSet> sets_;
};

}  // namespace

bool RegexNode::can_be_empty() const {
  const auto empty = [](const RegexNode& n) { return n.can_be_empty(); };
  switch (kind) {
    case kSet:
      return false;
    case kSequence:
      return std::ranges::all_of(children, empty);
    case kAlternation:
      return std::ranges::any_of(children, empty);
    case kRepeat:
      return min == 0 || empty(children[0]);
    default:
      return true;
  }
}

ParsedRegex parse_regex(std::string_view pattern) { return Parser(pattern).parse(); }

}  // namespace kogia
