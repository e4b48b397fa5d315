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

void split(GgufPretokenizer& p, std::string_view pattern) {
  p.pretokenizer.add_split(pattern, Behavior::kIsolated, false);
}

void llama3(GgufPretokenizer& p) {
  split(p, kLlama3);
  p.ignore_merges = true;
  p.add_bos = true;
}
void llama3_without_bos(GgufPretokenizer& p) { split(p, kLlama3); }
void qwen2(GgufPretokenizer& p) {
  split(p, kQwen2);
  p.nfc = true;
}
void deepseek_v3(GgufPretokenizer& p) {
  split(p, R"(\p{N}{1,3})");
  split(p, "[一-龥぀-ゟ゠-ヿ]+");
  split(p, kDeepSeekV3Words);
}
void deepseek_llm(GgufPretokenizer& p) {
  split(p, R"([\r\n])");
  split(p, kDeepSeekLlmWords);
  split(p, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)");
  split(p, R"(\s+$)");
  split(p, "[一-龥ࠀ-一가-퟿]+");
  p.pretokenizer.add_digits(/*individual=*/true);
}
void deepseek_coder(GgufPretokenizer& p) {
  split(p, R"([\r\n])");
  split(p, R"(\s?\p{L}+)");
  split(p, R"(\s?\p{P}+)");
  split(p, "[一-龥ࠀ-一가-퟿]+");
  p.pretokenizer.add_digits(/*individual=*/true);
}
void gpt2(GgufPretokenizer& p) { p.pretokenizer.add_byte_level(false, /*use_regex=*/true); }

struct Entry {
  std::string_view name;
  void (*build)(GgufPretokenizer&);
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
    Entry{"smollm", gpt2},  // as transformers reads SmolLM2: docs/decisions/0013

};

}  // namespace

GgufPretokenizer gguf_pretokenizer(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name != name) continue;
    GgufPretokenizer p;
    entry.build(p);
    if (!p.pretokenizer.ends_in_byte_level()) p.pretokenizer.add_byte_level(false, false);
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

}  // namespace kogia
