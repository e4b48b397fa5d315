#pragma once
// Text to token ids and back: byte-level BPE, exact to the id with Hugging Face `tokenizers`.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kogia {

using TokenId = std::int32_t;

/// The tokenizer inside a GGUF, as plain data (the text folder does not know file formats).
struct GgufVocab {
  std::string model;  // tokenizer.ggml.model: "gpt2" is BPE; others are refused by name
  std::string pre;    // tokenizer.ggml.pre: an unknown name is refused, never guessed
  std::vector<std::string> tokens;
  std::vector<std::int64_t>
      token_types;  // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
  std::vector<std::string> merges;
  std::optional<TokenId> bos, eos, eot, pad;
  std::optional<bool> add_bos, add_eos;
};

struct EncodeOptions {
  bool add_special = false;  // BOS (and what else the post-processor adds), once
  /// Read added tokens inside the text as tokens, as Hugging Face does. Off for the content of a
  /// chat message: there the text of a control token stays text.
  bool parse_added = true;
};

/// Bytes [begin, end) of a text.
struct ByteRange {
  std::size_t begin = 0, end = 0;
  std::size_t size() const { return end - begin; }
  bool operator==(const ByteRange&) const = default;
};

/// Immutable after loading; safe to share between threads.
/// Errors: loading throws Error that names the field; encode takes any bytes (invalid UTF-8 too)
/// and does not fail; ids without a token decode to nothing.
class Tokenizer {
 public:
  /// `config` is the text of tokenizer_config.json or empty.
  static std::unique_ptr<Tokenizer> from_json(std::string_view tokenizer_json,
                                              std::string_view config);
  static std::unique_ptr<Tokenizer> from_gguf(const GgufVocab& vocab);

  virtual ~Tokenizer() = default;
  virtual std::vector<TokenId> encode(std::string_view text,
                                      const EncodeOptions& options) const = 0;
  /// Reads added tokens only where they lie wholly inside one of the `trusted` ranges (ascending,
  /// apart); everywhere else their text stays text. Adds nothing.
  virtual std::vector<TokenId> encode_trusted(std::string_view text,
                                              std::span<const ByteRange> trusted) const = 0;
  /// Exact bytes of the ids; special tokens are left out when asked. May end inside a character:
  /// use StreamDecoder for text that must be valid at every step.
  virtual std::string decode(std::span<const TokenId> ids, bool skip_special) const = 0;
  /// Bytes of one token as they appear in text; empty for an id without a token.
  virtual std::string token_bytes(TokenId id) const = 0;

  virtual TokenId n_tokens() const = 0;  // largest id + 1
  virtual bool has_token(TokenId id) const = 0;
  virtual bool is_special(TokenId id) const = 0;  // control token: hidden from decoded text
  virtual bool is_added(TokenId id) const = 0;    // any added token, special or not
  /// Id of an added token or vocabulary entry by its exact content.
  virtual std::optional<TokenId> find(std::string_view content) const = 0;
  /// Contents of all added tokens.
  virtual std::vector<std::string> added_contents() const = 0;
  virtual std::optional<TokenId> bos() const = 0;
  virtual std::optional<TokenId> eos() const = 0;
  virtual bool adds_bos() const = 0;  // what add_special will do
};

/// Ids in, valid UTF-8 out: holds back the bytes of an unfinished character.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  /// Text that became complete with this token (may be empty). A byte sequence that cannot become
  /// valid is replaced by U+FFFD, as Hugging Face's decoder does, at most three bytes late.
  std::string push(TokenId id);
  /// The rest at the end: unfinished bytes become U+FFFD.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;
};

}  // namespace kogia
