#include "text/pretokenizer.h"

#include "text/unicode.h"

namespace kogia {
namespace {

using Behavior = Pretokenizer::Behavior;

struct Match {
  ByteRange range;
  bool is_match;
};

void find_digits(std::string_view text, std::vector<ByteRange>& matches) {
  for (std::size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    if (char_info(c.code).numeric()) matches.push_back({pos, pos + c.size});
    pos += c.size;
  }
}

// `found` and the gaps between them, covering all of [0, size).
void with_gaps(const std::vector<ByteRange>& found, std::size_t size, bool invert,
               std::vector<Match>& all) {
  std::size_t pos = 0;
  for (const ByteRange& m : found) {
    if (m.begin > pos) all.push_back({{pos, m.begin}, invert});
    all.push_back({m, !invert});
    pos = m.end;
  }
  if (pos < size) all.push_back({{pos, size}, invert});
}

void merged_with_previous(const std::vector<Match>& parts, std::vector<ByteRange>& out) {
  bool after_match = false;
  const std::size_t first = out.size();
  for (const Match& p : parts) {
    if (p.is_match && !after_match && out.size() > first) {
      out.back().end = p.range.end;
    } else {
      out.push_back(p.range);
    }
    after_match = p.is_match;
  }
}

void merged_with_next(const std::vector<Match>& parts, std::vector<ByteRange>& out) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool joins_next = parts[i].is_match && i + 1 < parts.size() && !parts[i + 1].is_match;
    if (joins_next) {
      out.push_back({parts[i].range.begin, parts[i + 1].range.end});
      ++i;
    } else {
      out.push_back(parts[i].range);
    }
  }
}

void contiguous(const std::vector<Match>& parts, std::vector<ByteRange>& out) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0 && parts[i].is_match == parts[i - 1].is_match) {
      out.back().end = parts[i].range.end;
    } else {
      out.push_back(parts[i].range);
    }
  }
}

void arrange(const std::vector<Match>& parts, Behavior behavior, std::vector<ByteRange>& out) {
  switch (behavior) {
    case Behavior::kIsolated:
      for (const Match& p : parts) out.push_back(p.range);
      break;
    case Behavior::kRemoved:
      for (const Match& p : parts) {
        if (!p.is_match) out.push_back(p.range);
      }
      break;
    case Behavior::kMergedWithPrevious:
      merged_with_previous(parts, out);
      break;
    case Behavior::kMergedWithNext:
      merged_with_next(parts, out);
      break;
    case Behavior::kContiguous:
      contiguous(parts, out);
      break;
  }
}

// A space before each piece that begins with none; the text is written anew.
void add_prefix_spaces(std::string& text, std::vector<ByteRange>& pieces) {
  std::string spaced;
  spaced.reserve(text.size() + pieces.size());
  for (ByteRange& p : pieces) {
    const std::string_view piece = std::string_view(text).substr(p.begin, p.size());
    const std::size_t begin = spaced.size();
    if (!piece.starts_with(' ')) spaced.push_back(' ');
    spaced.append(piece);
    p = {begin, spaced.size()};
  }
  text = std::move(spaced);
}

}  // namespace

void Pretokenizer::add_split(std::string_view pattern, Behavior behavior, bool invert) {
  steps_.push_back({Step::kRegex, Regex::compile(pattern), behavior, invert});
}

void Pretokenizer::add_digits(bool individual) {
  steps_.push_back(
      {Step::kDigits, {}, individual ? Behavior::kIsolated : Behavior::kContiguous, false});
}

void Pretokenizer::add_byte_level(bool add_prefix_space, bool use_regex) {
  if (add_prefix_space) steps_.push_back({Step::kPrefixSpace, {}, Behavior::kIsolated, false});
  if (use_regex) add_split(kGpt2Pattern, Behavior::kIsolated, false);
  byte_level_ = true;
}

std::string_view Pretokenizer::cut(std::string_view text, std::vector<ByteRange>& pieces,
                                   std::string& storage) const {
  pieces.clear();
  if (text.empty()) return text;
  pieces.push_back({0, text.size()});
  std::vector<ByteRange> next;
  for (const Step& step : steps_) {
    if (step.kind == Step::kPrefixSpace) {
      if (storage.empty()) storage = text;
      add_prefix_spaces(storage, pieces);
      text = storage;
      continue;
    }
    next.clear();
    apply(step, text, pieces, next);
    pieces.swap(next);
  }
  return text;
}

void Pretokenizer::apply(const Step& step, std::string_view text,
                         const std::vector<ByteRange>& from, std::vector<ByteRange>& to) {
  std::vector<ByteRange> found;
  std::vector<Match> parts;
  for (const ByteRange& piece : from) {
    const std::string_view inside = text.substr(piece.begin, piece.size());
    found.clear();
    if (step.kind == Step::kDigits) {
      find_digits(inside, found);
    } else {
      step.regex.find_all(inside, found);
    }
    parts.clear();
    with_gaps(found, inside.size(), step.invert, parts);
    const std::size_t first = to.size();
    arrange(parts, step.behavior, to);
    for (std::size_t i = first; i < to.size(); ++i) {
      to[i].begin += piece.begin;
      to[i].end += piece.begin;
    }
  }
}

}  // namespace kogia
