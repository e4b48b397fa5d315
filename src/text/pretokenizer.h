#pragma once
// Cutting text into the pieces inside which merges happen.

#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace kogia {

/// A sequence of splits, each applied to the pieces that the one before left.
class Pretokenizer {
 public:
  /// What becomes of a match, in the words of tokenizer.json.
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

  void add_split(std::string_view pattern, Behavior behavior, bool invert);
  void add_digits(bool individual);
  /// The step that must be last: a space before pieces that have none, then GPT-2's pattern, if
  /// asked.
  void add_byte_level(bool add_prefix_space, bool use_regex);
  bool ends_in_byte_level() const { return byte_level_; }

  /// Calls piece(std::string_view) for each piece of `text`, in order.
  template <class Piece>
  void split(std::string_view text, Piece&& piece) const {
    std::string storage;
    std::vector<ByteRange> pieces;
    const std::string_view source = cut(text, pieces, storage);
    for (const ByteRange& p : pieces) piece(source.substr(p.begin, p.size()));
  }

  /// GPT-2's pattern, which ByteLevel applies when use_regex is true.
  static constexpr std::string_view kGpt2Pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

 private:
  struct Step {
    enum Kind { kRegex, kDigits, kPrefixSpace } kind;
    Regex regex;
    Behavior behavior;
    bool invert;
  };
  std::string_view cut(std::string_view text, std::vector<ByteRange>& pieces,
                       std::string& storage) const;
  static void apply(const Step& step, std::string_view text, const std::vector<ByteRange>& from,
                    std::vector<ByteRange>& to);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

/// A step of a pre-tokenizer as tokenizer.json spells it.
struct PretokenizerStep {
  enum Kind { kSplit, kDigits, kByteLevel } kind = kSplit;
  std::string pattern = {};  // kSplit, isolated
  bool use_regex = false;    // kByteLevel
  bool operator==(const PretokenizerStep&) const = default;
};

/// The splits that a GGUF names in tokenizer.ggml.pre.
struct GgufPretokenizer {
  Pretokenizer pretokenizer;
  bool ignore_merges = false;  // a piece that is a token is that token
  bool nfc = false;
  bool add_bos = false;  // where the file does not say
};

/// What a tokenizer.json has behind a name, byte level last.
std::vector<PretokenizerStep> gguf_pretokenizer_steps(std::string_view name);
/// The names that GGUFs use for these steps; the first of several with the same is the usual one.
std::vector<std::string> gguf_pretokenizer_names(const std::vector<PretokenizerStep>& steps);

/// Throws Error(kUnsupported) that lists the known names.
GgufPretokenizer gguf_pretokenizer(std::string_view name);

}  // namespace kogia
