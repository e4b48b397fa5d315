#include "text/trusted_text.h"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/json.h"
#include "text/template_engine.h"
#include "text/unicode.h"

namespace kogia {
namespace {

// Renderings with one place changed are made for this many places at most, and begun within this
// time; beyond, texts in doubt stay text.
constexpr std::size_t kMaxSingleSites = 256;
constexpr auto kMaxSearch = std::chrono::seconds(10);

std::set<char32_t> chars_of(std::string_view text) {
  std::set<char32_t> chars;
  for (std::size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    chars.insert(c.code);
    pos += c.size;
  }
  return chars;
}

// Private use first, then planes without characters. Noncharacters are left alone.
char32_t next_candidate(char32_t c) {
  ++c;
  if ((c & 0xFFFF) == 0xFFFE) c += 2;
  if (c == 0x110000) return 0x40000;
  return c;
}

char32_t twin_of(char32_t c, const std::vector<std::pair<char32_t, char32_t>>& shadow) {
  const auto it = std::ranges::lower_bound(shadow, c, {}, &std::pair<char32_t, char32_t>::first);
  return it != shadow.end() && it->first == c ? it->second : c;
}

std::string shadowed(std::string_view text,
                     const std::vector<std::pair<char32_t, char32_t>>& shadow) {
  std::string out;
  for (std::size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    append_utf8(out, twin_of(c.code, shadow));
    pos += c.size;
  }
  return out;
}

}  // namespace

TrustedText::TrustedText(std::string source, const Tokenizer& tokenizer, std::string bos_token,
                         std::string eos_token)
    : source_(std::move(source)), bos_(std::move(bos_token)), eos_(std::move(eos_token)) {
  for (const std::string& content : tokenizer.added_contents()) {
    AddedToken token;
    token.content = content;
    tokens_.add(token, content);
  }
  std::vector<FoundToken> found;
  tokens_.find(source_, {0, source_.size()}, 0, found);
  for (const FoundToken& f : found) {
    sites_.push_back({Site::kSource, f.range, source_.substr(f.range.begin, f.range.size())});
  }
  if (!bos_.empty()) sites_.push_back({Site::kBos, {}, bos_});
  if (!eos_.empty()) sites_.push_back({Site::kEos, {}, eos_});
}

std::string TrustedText::with_specials(std::string_view variables_json, std::string_view bos,
                                       std::string_view eos) const {
  // An object, never empty: a member put in front keeps it one.
  std::string out = "{";
  const auto add = [&](std::string_view key, std::string_view value) {
    if (value.empty()) return;  // as transformers leaves out what the tokenizer lacks
    out += nlohmann::json(key).dump() + ":" + nlohmann::json(value).dump() + ",";
  };
  add("bos_token", bos);
  add("eos_token", eos);
  return out.append(variables_json.substr(1));
}

TrustedText::Shadow TrustedText::choose_shadow(std::string_view variables_json) const {
  std::set<char32_t> wanted, taken = chars_of(variables_json);
  taken.merge(chars_of(source_));
  for (const Site& site : sites_) wanted.merge(chars_of(site.token));
  taken.insert(wanted.begin(), wanted.end());
  Shadow shadow;
  char32_t twin = 0xEFFFF;
  for (const char32_t c : wanted) {
    do {
      twin = next_candidate(twin);
      if (twin == 0xE0000) {
        throw_error(ErrorCode::kInvalid, "the messages use up all private characters of Unicode");
      }
    } while (taken.contains(twin));
    shadow.emplace_back(c, twin);
  }
  return shadow;
}

// Renders with `sites` in private characters; marks the bytes of `text` under them. False if the
// rendering differs in more than these characters: then a place took part in a decision.
bool TrustedText::mark(const std::string& text, std::string_view variables_json,
                       const Shadow& shadow, const std::vector<const Site*>& sites,
                       std::vector<bool>& trusted) const {
  std::string source, bos = bos_, eos = eos_;
  std::size_t pos = 0;
  for (const Site* site : sites) {
    if (site->where == Site::kBos) bos = shadowed(bos_, shadow);
    if (site->where == Site::kEos) eos = shadowed(eos_, shadow);
    if (site->where != Site::kSource) continue;
    source += source_.substr(pos, site->range.begin - pos) + shadowed(site->token, shadow);
    pos = site->range.end;
  }
  source += source_.substr(pos);
  std::string changed;
  try {
    // A twin has four bytes at most.
    changed = render_template(source, TemplateVariables(with_specials(variables_json, bos, eos)),
                              4 * text.size());
  } catch (const Error&) {
    return false;
  }

  std::vector<ByteRange> found;
  std::size_t i = 0, j = 0;
  while (i < text.size() && j < changed.size()) {
    const DecodedChar a = decode_utf8(text, i), b = decode_utf8(changed, j);
    if (a.code != b.code) {
      if (twin_of(a.code, shadow) != b.code) return false;
      found.push_back({i, i + a.size});
    }
    i += a.size;
    j += b.size;
  }
  if (i != text.size() || j != changed.size()) return false;
  for (const ByteRange& r : found) {
    std::fill(trusted.begin() + static_cast<std::ptrdiff_t>(r.begin),
              trusted.begin() + static_cast<std::ptrdiff_t>(r.end), true);
  }
  return true;
}

// Contents of added tokens that stand in `text` and are not wholly trusted.
std::set<std::string> TrustedText::still_unknown(const std::string& text,
                                                 const std::vector<bool>& trusted) const {
  std::vector<FoundToken> found;
  tokens_.find(text, {0, text.size()}, 0, found);
  std::set<std::string> unknown;
  for (const FoundToken& f : found) {
    const auto begin = trusted.begin() + static_cast<std::ptrdiff_t>(f.range.begin);
    if (!std::all_of(begin, begin + static_cast<std::ptrdiff_t>(f.range.size()),
                     [](bool b) { return b; })) {
      unknown.insert(text.substr(f.range.begin, f.range.size()));
    }
  }
  return unknown;
}

std::vector<ByteRange> TrustedText::find(const std::string& text,
                                         std::string_view variables_json) const {
  std::vector<bool> trusted(text.size(), false);
  if (!sites_.empty()) {
    const Shadow shadow = choose_shadow(variables_json);
    std::vector<const Site*> all;
    for (const Site& site : sites_) all.push_back(&site);
    mark(text, variables_json, shadow, all, trusted);
    // What remains came from a message, or from a place that takes part in a decision: ask one by
    // one.
    const std::set<std::string> unknown = still_unknown(text, trusted);
    const auto deadline = std::chrono::steady_clock::now() + kMaxSearch;
    std::size_t n = 0;
    for (const Site& site : sites_) {
      if (!unknown.contains(site.token)) continue;
      if (n++ >= kMaxSingleSites || std::chrono::steady_clock::now() > deadline) break;
      mark(text, variables_json, shadow, {&site}, trusted);
    }
  }
  std::vector<ByteRange> ranges;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!trusted[i]) continue;
    if (!ranges.empty() && ranges.back().end == i) {
      ++ranges.back().end;
    } else {
      ranges.push_back({i, i + 1});
    }
  }
  return ranges;
}

}  // namespace kogia
