// GGUF files name their pre-tokenizer instead of carrying it. The patterns are those of the
// published tokenizer.json files behind the names.

#include <algorithm>
#include <array>
#include <functional>

#include "base/error.h"
#include "text/pretokenizer.h"

namespace kogia {
namespace {

using Behavior = Pretokenizer::Behavior;

constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeekV3Words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// DeepSeek LLM and V2 list their letters instead of saying \p{L}: cased alphabets only. (Letters
// that NFC would change are written as numbers, for editors' sake.)
constexpr std::string_view kDeepSeekLlmWords =
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";

/// A pre-tokenizer in the making, and how tokenizer.json spells it.
struct Building : GgufPretokenizer {
  std::vector<PretokenizerStep> steps;
};

void split(Building& p, std::string_view pattern) {
  p.pretokenizer.add_split(pattern, Behavior::kIsolated, false);
  p.steps.push_back({PretokenizerStep::kSplit, std::string(pattern)});
}
void digits(Building& p) {
  p.pretokenizer.add_digits(/*individual=*/true);
  p.steps.push_back({.kind = PretokenizerStep::kDigits});
}
void byte_level(Building& p, bool use_regex) {
  p.pretokenizer.add_byte_level(false, use_regex);
  p.steps.push_back({.kind = PretokenizerStep::kByteLevel, .use_regex = use_regex});
}

void llama3(Building& p) {
  split(p, kLlama3);
  p.ignore_merges = true;
  p.add_bos = true;
}
void llama3_without_bos(Building& p) { split(p, kLlama3); }
void qwen2(Building& p) {
  split(p, kQwen2);
  p.nfc = true;
}
void deepseek_v3(Building& p) {
  split(p, R"(\p{N}{1,3})");
  split(p, "[一-龥぀-ゟ゠-ヿ]+");
  split(p, kDeepSeekV3Words);
}
void deepseek_llm(Building& p) {
  split(p, R"([\r\n])");
  split(p, kDeepSeekLlmWords);
  split(p, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)");
  split(p, R"(\s+$)");
  split(p, "[一-龥ࠀ-一가-퟿]+");
  digits(p);
}
void deepseek_coder(Building& p) {
  split(p, R"([\r\n])");
  split(p, R"(\s?\p{L}+)");
  split(p, R"(\s?\p{P}+)");
  split(p, "[一-龥ࠀ-一가-퟿]+");
  digits(p);
}
void gpt2(Building& p) { byte_level(p, true); }

constexpr std::string_view kSmollm = "smollm";

struct Entry {
  std::string_view name;
  void (*build)(Building&);
};

constexpr std::array kEntries = {
    Entry{"deepseek-coder", deepseek_coder},
    Entry{"deepseek-llm", deepseek_llm},
    Entry{"deepseek-r1-qwen", qwen2},
    Entry{"deepseek-v3", deepseek_v3},
    Entry{"gpt-2", gpt2},
    Entry{"llama-bpe", llama3},
    Entry{"llama-v3", llama3},
    Entry{"llama3", llama3},
    Entry{"qwen2", qwen2},
    Entry{"smaug-bpe", llama3_without_bos},
    Entry{kSmollm, gpt2},  // as transformers reads SmolLM2: docs/decisions/0013

};

}  // namespace

namespace {

Building build(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name != name) continue;
    Building p;
    entry.build(p);
    if (!p.pretokenizer.ends_in_byte_level()) byte_level(p, false);
    // Published as digits, then GPT-2's pattern; only reading follows transformers (see above).
    if (name == kSmollm) p.steps.insert(p.steps.begin(), {.kind = PretokenizerStep::kDigits});
    return p;
  }
  std::string known;
  for (const Entry& entry : kEntries)
    known += fmt::format("{}{}", known.empty() ? "" : ", ", entry.name);
  throw Error(
      ErrorCode::kUnsupported,
      fmt::format("tokenizer.ggml.pre is '{}', a pre-tokenizer not known here; known are: {}", name,
                  known),
      "a wrong guess would change the numbers in every prompt; use a checkpoint with "
      "tokenizer.json");
}

}  // namespace

GgufPretokenizer gguf_pretokenizer(std::string_view name) { return build(name); }

std::vector<PretokenizerStep> gguf_pretokenizer_steps(std::string_view name) {
  return build(name).steps;
}

std::vector<std::string> gguf_pretokenizer_names(const std::vector<PretokenizerStep>& steps) {
  std::vector<std::string> names;
  for (const std::string_view usual : {"llama-bpe", "qwen2"}) {
    if (build(usual).steps == steps) names.emplace_back(usual);
  }
  for (const Entry& entry : kEntries) {
    if (build(entry.name).steps == steps && std::ranges::find(names, entry.name) == names.end()) {
      names.emplace_back(entry.name);
    }
  }
  return names;
}

}  // namespace kogia
