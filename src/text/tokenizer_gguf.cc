// The tokenizer inside a GGUF: the vocabulary is there, the pre-tokenizer only by name.

#include "base/error.h"
#include "text/bpe_tokenizer.h"

namespace kogia {
namespace {

// tokenizer.ggml.token_type
enum GgufTokenType : std::int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

void read_tokens(const GgufVocab& vocab, TokenizerParts& parts) {
  if (vocab.tokens.empty() || vocab.tokens.size() > static_cast<std::size_t>(kMaxTokenId)) {
    throw_error(ErrorCode::kInvalid, "tokenizer.ggml.tokens has {} entries, expected 1 to {}",
                vocab.tokens.size(), kMaxTokenId);
  }
  if (!vocab.token_types.empty() && vocab.token_types.size() != vocab.tokens.size()) {
    throw_error(ErrorCode::kInvalid,
                "tokenizer.ggml.token_type has {} entries, tokenizer.ggml.tokens {}",
                vocab.token_types.size(), vocab.tokens.size());
  }
  parts.entries.resize(vocab.tokens.size());
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id) {
    const std::int64_t type = vocab.token_types.empty() ? kNormal : vocab.token_types[id];
    if (type == kControl || type == kUserDefined) {
      if (vocab.tokens[id].empty()) continue;
      AddedToken token;
      token.content = vocab.tokens[id];
      token.id = static_cast<TokenId>(id);
      token.special = type == kControl;
      parts.added.push_back(std::move(token));
    } else if (type != kUnused) {  // unused rows only pad the table: nothing may produce them
      parts.entries[id] = vocab.tokens[id];
    }
  }
}

void read_merges(const GgufVocab& vocab, TokenizerParts& parts) {
  parts.merges.reserve(vocab.merges.size());
  for (std::size_t rank = 0; rank < vocab.merges.size(); ++rank) {
    const std::string_view merge = vocab.merges[rank];
    const std::size_t space = merge.find(' ');
    if (space == std::string_view::npos || merge.find(' ', space + 1) != std::string_view::npos) {
      throw_error(ErrorCode::kInvalid, "tokenizer.ggml.merges[{}] is '{}', not two parts", rank,
                  merge);
    }
    parts.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
}

std::optional<TokenId> checked_id(std::optional<TokenId> id, const GgufVocab& vocab,
                                  std::string_view key) {
  if (id && (*id < 0 || static_cast<std::size_t>(*id) >= vocab.tokens.size())) {
    throw_error(ErrorCode::kInvalid, "tokenizer.ggml.{} is {}, but there are {} tokens", key, *id,
                vocab.tokens.size());
  }
  return id;
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::from_gguf(const GgufVocab& vocab) {
  if (vocab.model != "gpt2") {
    throw_error(ErrorCode::kUnsupported,
                "tokenizer.ggml.model is '{}', only 'gpt2' (byte-level BPE) is supported",
                vocab.model);
  }
  TokenizerParts parts;
  GgufPretokenizer named = gguf_pretokenizer(vocab.pre);
  parts.pretokenizer = std::move(named.pretokenizer);
  parts.nfc = named.nfc;
  parts.ignore_merges = named.ignore_merges;
  read_tokens(vocab, parts);
  read_merges(vocab, parts);
  parts.bos = checked_id(vocab.bos, vocab, "bos_token_id");
  parts.eos = checked_id(vocab.eos, vocab, "eos_token_id");
  if (vocab.add_bos.value_or(named.add_bos) && parts.bos) parts.prefix.push_back(*parts.bos);
  if (vocab.add_eos.value_or(false) && parts.eos) parts.suffix.push_back(*parts.eos);
  return std::make_unique<BpeTokenizer>(std::move(parts));
}

}  // namespace kogia
