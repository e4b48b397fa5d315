#include "infer/damage.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <optional>
#include <string_view>
#include <vector>

namespace kogia::test {
namespace {

constexpr std::array<std::uint64_t, 22> kNumbers = {0,
                                                    1,
                                                    2,
                                                    3,
                                                    7,
                                                    8,
                                                    31,
                                                    127,
                                                    128,
                                                    255,
                                                    65535,
                                                    (1ULL << 31) - 1,
                                                    1ULL << 31,
                                                    (1ULL << 32) - 1,
                                                    1ULL << 32,
                                                    1ULL << 40,
                                                    (1ULL << 53) + 1,
                                                    (1ULL << 61) + 1,
                                                    1ULL << 62,
                                                    (1ULL << 63) - 1,
                                                    1ULL << 63,
                                                    ~0ULL};

/// One of the numbers that programs get wrong, or a neighbour of what was there.
std::uint64_t other_number(std::uint64_t now, Dice& dice) {
  switch (dice.below(6)) {
    case 0:
      return now + 1;
    case 1:
      return now - 1;
    case 2:
      return now * 2;
    case 3:
      return now ^ 1ULL << dice.below(64);
    default:
      return kNumbers[dice.below(kNumbers.size())];
  }
}

void flip_bytes(std::string& bytes, std::size_t begin, std::size_t end, Dice& dice) {
  if (begin >= end || end > bytes.size()) return;
  for (std::size_t n = 1 + dice.below(4); n > 0; --n) {
    const std::size_t at = begin + dice.below(end - begin);
    constexpr char kBytes[] = {0, 1, 127, static_cast<char>(128), static_cast<char>(255), '"', '{'};
    bytes[at] = dice.one_in(2) ? kBytes[dice.below(std::size(kBytes))]
                               : static_cast<char>(bytes[at] ^ (1 << dice.below(8)));
  }
}

/// Cut anywhere, or with bytes too many, or some missing in the middle.
void change_length(std::string& bytes, Dice& dice) {
  switch (dice.below(4)) {
    case 0:
      bytes.resize(bytes.size() - std::min(bytes.size(), 1 + dice.below(16)));
      break;
    case 1:
      bytes.append(1 + dice.below(70), 'x');
      break;
    case 2: {
      const std::size_t at = dice.below(bytes.size());
      bytes.erase(at, 1 + dice.below(40));
      break;
    }
    default:
      bytes.resize(dice.below(bytes.size() + 1));
  }
}

// --- JSON ----------------------------------------------------------------------------------------

struct Token {
  enum class Kind { kString, kNumber, kWord, kMark };
  Kind kind;
  std::size_t begin, end;
};

std::size_t end_of_string(std::string_view text, std::size_t i) {
  for (++i; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\') ++i;
  }
  return std::min(i + 1, text.size());
}

std::vector<Token> tokens_of(std::string_view text) {
  constexpr std::string_view kNumber = "+-.0123456789eE", kMarks = "{}[],:";
  std::vector<Token> out;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    std::size_t end = i + 1;
    auto kind = Token::Kind::kMark;
    if (c == '"') {
      kind = Token::Kind::kString, end = end_of_string(text, i);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
      kind = Token::Kind::kNumber;
      end = std::min(text.find_first_not_of(kNumber, i), text.size());
    } else if (c >= 'a' && c <= 'z') {
      kind = Token::Kind::kWord;
      while (end < text.size() && text[end] >= 'a' && text[end] <= 'z') ++end;
    } else if (kMarks.find(c) == std::string_view::npos) {
      ++i;
      continue;
    }
    out.push_back({kind, i, end});
    i = end;
  }
  return out;
}

std::string other_value(Dice& dice) {
  static const std::array<std::string, 22> kValues = {"-1",
                                                      "-9223372036854775808",
                                                      "9223372036854775808",
                                                      "1e308",
                                                      "1e999",
                                                      "-0.0",
                                                      "0.5",
                                                      "1e-300",
                                                      "null",
                                                      "true",
                                                      "false",
                                                      "[]",
                                                      "{}",
                                                      "[1, 2]",
                                                      "\"\"",
                                                      "\"x\"",
                                                      "\"\\u0000\"",
                                                      "\"é\"",
                                                      "\"../../x\"",
                                                      "[null]",
                                                      "{\"type\": \"yarn\"}",
                                                      "\"noaux_tc\""};
  if (dice.one_in(40)) return std::string(2000, '[');
  if (dice.one_in(40)) return '"' + std::string(100'000, 'a') + '"';
  return kValues[dice.below(kValues.size())];
}

std::string other_string(std::string_view text, const std::vector<Token>& tokens, Dice& dice) {
  static const std::array<std::string, 12> kTypes = {
      "\"F64\"",     "\"F32\"", "\"F16\"", "\"BF16\"", "\"F8_E4M3\"", "\"F8_E5M2\"",
      "\"F8_E8M0\"", "\"I8\"",  "\"I64\"", "\"U8\"",   "\"BOOL\"",    "\"F4\""};
  if (dice.one_in(3)) return kTypes[dice.below(kTypes.size())];
  for (int attempt = 0; attempt < 20; ++attempt) {  // what stands elsewhere in the file
    const Token& t = tokens[dice.below(tokens.size())];
    if (t.kind == Token::Kind::kString) return std::string(text.substr(t.begin, t.end - t.begin));
  }
  return other_value(dice);
}

std::string replacement(std::string_view text, const std::vector<Token>& tokens, const Token& token,
                        Dice& dice) {
  const std::string now(text.substr(token.begin, token.end - token.begin));
  if (dice.one_in(6)) return other_value(dice);
  switch (token.kind) {
    case Token::Kind::kNumber: {
      if (now.find_first_of(".eE") != std::string::npos) return other_value(dice);
      const std::uint64_t number = std::strtoull(now.c_str(), nullptr, 10);
      return std::to_string(other_number(number, dice));
    }
    case Token::Kind::kString:
      return other_string(text, tokens, dice);
    case Token::Kind::kWord:
      return other_value(dice);
    case Token::Kind::kMark:
      break;
  }
  return dice.one_in(2) ? "" : now + now;
}

/// The pair that the string `i` begins, to the comma after it: left out, or there twice.
bool drop_or_double_pair(std::string& text, const std::vector<Token>& tokens, std::size_t i,
                         Dice& dice) {
  const auto is = [&](std::size_t at, char mark) {
    return at < tokens.size() && tokens[at].kind == Token::Kind::kMark &&
           text[tokens[at].begin] == mark;
  };
  if (tokens[i].kind != Token::Kind::kString || !is(i + 1, ':')) return false;
  int depth = 0;
  for (std::size_t at = i + 2; at < tokens.size(); ++at) {
    if (is(at, '{') || is(at, '[')) ++depth;
    if (is(at, '}') || is(at, ']')) --depth;
    if (depth < 0) return false;  // the last pair of an object
    if (depth > 0 || !is(at, ',')) continue;
    const std::size_t begin = tokens[i].begin, n = tokens[at].end - begin;
    dice.one_in(4) ? text.insert(begin, text.substr(begin, n)) : text.erase(begin, n);
    return true;
  }
  return false;
}

// --- GGUF ----------------------------------------------------------------------------------------

/// A number of a GGUF header, or the bytes of a text.
struct Field {
  enum class Kind { kCount, kLength, kType, kValue, kText, kDimension, kOffset };
  Kind kind;
  std::size_t begin, size;
};

/// Walks an intact header.
class GgufFields {
 public:
  explicit GgufFields(std::string_view bytes) : bytes_(bytes) {
    at_ = 4;
    add(Field::Kind::kCount, 4);  // the version
    const std::uint64_t n_tensors = add(Field::Kind::kCount, 8);
    const std::uint64_t n_keys = add(Field::Kind::kCount, 8);
    for (std::uint64_t i = 0; i < n_keys; ++i) {
      text();
      value(add(Field::Kind::kType, 4));
    }
    for (std::uint64_t i = 0; i < n_tensors; ++i) tensor();
  }
  const std::vector<Field>& fields() const { return fields_; }
  std::size_t end() const { return at_; }

 private:
  static constexpr std::uint64_t kString = 8, kArray = 9;

  std::uint64_t add(Field::Kind kind, std::size_t size) {
    fields_.push_back({kind, at_, size});
    std::uint64_t number = 0;
    if (size <= 8) std::memcpy(&number, bytes_.data() + at_, size);
    at_ += size;
    return number;
  }
  void text() {
    const std::uint64_t n = add(Field::Kind::kLength, 8);
    if (n > 0) fields_.push_back({Field::Kind::kText, at_, n});
    at_ += n;
  }
  void value(std::uint64_t type) {
    constexpr std::size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == kString) return text();
    if (type != kArray) {
      add(Field::Kind::kValue, kSizes[type]);
      return;
    }
    const std::uint64_t of = add(Field::Kind::kType, 4), n = add(Field::Kind::kLength, 8);
    for (std::uint64_t i = 0; i < n; ++i) value(of);
  }
  void tensor() {
    text();
    const std::uint64_t rank = add(Field::Kind::kCount, 4);
    for (std::uint64_t i = 0; i < rank; ++i) add(Field::Kind::kDimension, 8);
    add(Field::Kind::kType, 4);
    add(Field::Kind::kOffset, 8);
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
  std::vector<Field> fields_;
};

/// Kinds by turns, so that the many words of a vocabulary do not hide the few counts.
Field any_field(const GgufFields& header, Dice& dice) {
  const auto kind = static_cast<Field::Kind>(dice.below(7));
  std::vector<Field> of_kind;
  for (const Field& f : header.fields()) {
    if (f.kind == kind) of_kind.push_back(f);
  }
  return of_kind.empty() ? header.fields()[0] : of_kind[dice.below(of_kind.size())];
}

void change_field(std::string& bytes, const Field& field, Dice& dice) {
  if (field.kind == Field::Kind::kText) {
    return flip_bytes(bytes, field.begin, field.begin + field.size, dice);
  }
  std::uint64_t number = 0;
  std::memcpy(&number, bytes.data() + field.begin, field.size);
  number = field.kind == Field::Kind::kType && dice.one_in(2) ? dice.below(42)
                                                              : other_number(number, dice);
  if (field.kind == Field::Kind::kValue && field.size == 4 && dice.one_in(4)) {
    constexpr float kFloats[] = {0.0F, -1.0F, 1e38F, 1e-45F, HUGE_VALF};
    std::memcpy(&number, &kFloats[dice.below(std::size(kFloats))], 4);
  }
  std::memcpy(bytes.data() + field.begin, &number, field.size);
}

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

std::string damaged_json(std::string text, Dice& dice) {
  for (std::size_t n = 1 + dice.below(3); n > 0; --n) {
    const std::vector<Token> tokens = tokens_of(text);
    if (tokens.empty() || dice.one_in(25)) {
      flip_bytes(text, 0, text.size(), dice);
      continue;
    }
    // Marks seldom: most of what they break is no JSON any more, and all alike.
    std::size_t i = dice.below(tokens.size());
    for (int k = 0; k < 4 && tokens[i].kind == Token::Kind::kMark; ++k) {
      i = dice.below(tokens.size());
    }
    if (dice.one_in(4) && drop_or_double_pair(text, tokens, i, dice)) continue;
    const std::string with = replacement(text, tokens, tokens[i], dice);
    text.replace(tokens[i].begin, tokens[i].end - tokens[i].begin, with);
  }
  return text;
}

std::string damaged_safetensors(const std::string& bytes, Dice& dice) {
  std::uint64_t n = 0;
  std::memcpy(&n, bytes.data(), sizeof(n));
  std::string out = bytes;
  const auto put_length = [&](std::uint64_t length) {
    std::memcpy(out.data(), &length, sizeof(length));
  };
  switch (dice.below(10)) {
    case 0:
      put_length(other_number(n, dice));
      break;
    case 1:
      change_length(out, dice);
      break;
    case 2:
      flip_bytes(out, 0, sizeof(n) + n, dice);
      break;
    case 3:
      flip_bytes(out, sizeof(n) + n, out.size(), dice);  // numbers of weights: these run
      break;
    default: {
      const std::string header = damaged_json(bytes.substr(sizeof(n), n), dice);
      out = bytes.substr(0, sizeof(n)) + header + bytes.substr(sizeof(n) + n);
      if (!dice.one_in(8)) put_length(header.size());
    }
  }
  return out;
}

std::string damaged_gguf(const std::string& bytes, Dice& dice) {
  const GgufFields header(bytes);
  std::string out = bytes;
  switch (dice.below(10)) {
    case 0:
      change_length(out, dice);
      break;
    case 1:
      flip_bytes(out, 0, header.end(), dice);
      break;
    case 2:
      flip_bytes(out, header.end(), out.size(), dice);
      break;
    default:
      for (std::size_t n = 1 + dice.below(2); n > 0; --n) {
        change_field(out, any_field(header, dice), dice);
      }
  }
  return out;
}

Files damaged(const Files& files, Dice& dice, std::string& what) {
  Files out = files;
  const auto at = std::next(out.begin(), static_cast<std::ptrdiff_t>(dice.below(out.size())));
  what = at->first;
  if (out.size() > 2 && dice.one_in(40)) {
    out.erase(at);
    what += " left out";
  } else if (ends_with(at->first, ".gguf")) {
    at->second = damaged_gguf(at->second, dice);
  } else if (ends_with(at->first, ".safetensors")) {
    at->second = damaged_safetensors(at->second, dice);
  } else {
    at->second = damaged_json(at->second, dice);
  }
  return out;
}

}  // namespace kogia::test
