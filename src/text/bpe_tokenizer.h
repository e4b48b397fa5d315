#pragma once
// The one tokenizer: added tokens, normaliser, pre-tokenizer, merges. Loaders fill its parts.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"

namespace kogia {

/// What a loader found in a file.
struct TokenizerParts {
  std::vector<std::string> entries;  // by id, as spelt in the file; empty for none
  std::vector<std::pair<std::string_view, std::string_view>>
      merges;  // may point into the file's text
  bool ignore_merges = false;
  bool nfc = false;
  Pretokenizer pretokenizer;
  std::vector<AddedToken> added;
  std::vector<TokenId> prefix, suffix;  // what add_special puts around the text
  std::optional<TokenId> bos, eos;
};

/// Ids above this are refused: no model has four million tokens, and tables are sized by the
/// largest id.
constexpr TokenId kMaxTokenId = (1 << 22) - 1;

class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerParts parts);

  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const override;
  std::vector<TokenId> encode_trusted(std::string_view text,
                                      std::span<const ByteRange> trusted) const override;
  std::string decode(std::span<const TokenId> ids, bool skip_special) const override;
  std::string token_bytes(TokenId id) const override { return std::string(bytes_of(id)); }

  TokenId n_tokens() const override { return static_cast<TokenId>(kinds_.size()); }
  bool has_token(TokenId id) const override { return kind(id) != kNone; }
  bool is_special(TokenId id) const override { return kind(id) == kSpecial; }
  bool is_added(TokenId id) const override { return kind(id) >= kAdded; }
  std::optional<TokenId> find(std::string_view content) const override;
  std::vector<std::string> added_contents() const override;
  std::optional<TokenId> bos() const override { return bos_; }
  std::optional<TokenId> eos() const override { return eos_; }
  bool adds_bos() const override { return bos_ && !prefix_.empty() && prefix_.front() == *bos_; }

 private:
  enum Kind : std::uint8_t { kNone, kEntry, kAdded, kSpecial };
  Kind kind(TokenId id) const {
    return id < 0 || id >= n_tokens() ? kNone : kinds_[static_cast<std::size_t>(id)];
  }
  std::string_view bytes_of(TokenId id) const;
  void lay_out_bytes();
  void encode_text(std::string_view text, std::vector<TokenId>& out) const;
  void encode_plain(std::string_view normalized, std::vector<TokenId>& out) const;

  BpeModel model_;
  Pretokenizer pretokenizer_;
  bool nfc_;
  std::vector<AddedToken> added_;
  StringTable added_ids_;
  AddedTokenMatcher raw_tokens_, normalized_tokens_;
  std::vector<Kind> kinds_;          // by id
  std::vector<std::uint32_t> ends_;  // by id: where its bytes end in bytes_
  std::string bytes_;
  std::vector<TokenId> prefix_, suffix_;
  std::optional<TokenId> bos_, eos_;
};

}  // namespace kogia
