#include "text/bpe_tokenizer.h"

#include <algorithm>

#include "text/byte_level.h"
#include "text/unicode.h"

namespace kogia {

BpeTokenizer::BpeTokenizer(TokenizerParts parts)
    : model_(std::move(parts.entries), parts.merges, parts.ignore_merges),
      pretokenizer_(std::move(parts.pretokenizer)),
      nfc_(parts.nfc),
      added_(std::move(parts.added)),
      added_ids_(added_.size()),
      prefix_(std::move(parts.prefix)),
      suffix_(std::move(parts.suffix)),
      bos_(parts.bos),
      eos_(parts.eos) {
  TokenId largest = static_cast<TokenId>(model_.entries().size()) - 1;
  for (const AddedToken& token : added_) largest = std::max(largest, token.id);
  kinds_.assign(static_cast<std::size_t>(largest) + 1, kNone);
  for (std::size_t id = 0; id < model_.entries().size(); ++id) {
    if (!model_.entries()[id].empty()) kinds_[id] = kEntry;
  }
  for (const AddedToken& token : added_) {
    kinds_[static_cast<std::size_t>(token.id)] = token.special ? kSpecial : kAdded;
    added_ids_.insert(token.content, token.id);
    if (token.normalized) {
      normalized_tokens_.add(token, nfc_ ? to_nfc(token.content) : token.content);
    } else {
      raw_tokens_.add(token, token.content);
    }
  }
  while (!kinds_.empty() && kinds_.back() == kNone) kinds_.pop_back();
  lay_out_bytes();
}

void BpeTokenizer::lay_out_bytes() {
  std::vector<std::string_view> spelt(kinds_.size());
  for (std::size_t id = 0; id < spelt.size() && id < model_.entries().size(); ++id)
    spelt[id] = model_.entries()[id];
  std::vector<std::string> normal_forms;  // which `tokenizers` shows for tokens it normalises
  normal_forms.reserve(added_.size());
  for (const AddedToken& token : added_) {
    normal_forms.push_back(token.normalized && nfc_ ? to_nfc(token.content) : token.content);
    spelt[static_cast<std::size_t>(token.id)] = normal_forms.back();
  }
  ends_.reserve(spelt.size());
  for (const std::string_view s : spelt) {
    // As the ByteLevel decoder does, also for added tokens: what is no spelling stands for itself.
    const auto bytes = spelt_bytes(s);
    bytes_.append(bytes ? std::string_view(*bytes) : s);
    ends_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  }
}

std::string_view BpeTokenizer::bytes_of(TokenId id) const {
  if (id < 0 || id >= n_tokens()) return {};
  const auto i = static_cast<std::size_t>(id);
  const std::uint32_t begin = i == 0 ? 0 : ends_[i - 1];
  return std::string_view(bytes_).substr(begin, ends_[i] - begin);
}

std::optional<TokenId> BpeTokenizer::find(std::string_view content) const {
  if (const TokenId id = added_ids_.find(content); id >= 0) return id;
  if (const TokenId id = model_.find_entry(content); id >= 0) return id;
  return {};
}

std::vector<std::string> BpeTokenizer::added_contents() const {
  std::vector<std::string> contents;
  for (const AddedToken& token : added_) contents.push_back(token.content);
  return contents;
}

std::vector<TokenId> BpeTokenizer::encode(std::string_view text,
                                          const EncodeOptions& options) const {
  std::vector<TokenId> out;
  if (options.add_special) out = prefix_;
  if (options.parse_added) {
    std::vector<FoundToken> found;
    raw_tokens_.find(text, {0, text.size()}, 0, found);
    std::size_t pos = 0;
    for (const FoundToken& token : found) {
      if (token.range.begin > pos) encode_text(text.substr(pos, token.range.begin - pos), out);
      out.push_back(token.id);
      pos = token.range.end;
    }
    encode_text(text.substr(pos), out);
  } else {
    encode_plain(nfc_ ? to_nfc(text) : std::string(text), out);
  }
  if (options.add_special) out.insert(out.end(), suffix_.begin(), suffix_.end());
  return out;
}

// Text without tokens of the first kind: normalise, then look for those of the second.
void BpeTokenizer::encode_text(std::string_view text, std::vector<TokenId>& out) const {
  if (text.empty()) return;
  std::string storage;
  if (nfc_) text = storage = to_nfc(text);
  std::vector<FoundToken> found;
  if (!normalized_tokens_.empty()) normalized_tokens_.find(text, {0, text.size()}, 0, found);
  std::size_t pos = 0;
  for (const FoundToken& token : found) {
    if (token.range.begin > pos) encode_plain(text.substr(pos, token.range.begin - pos), out);
    out.push_back(token.id);
    pos = token.range.end;
  }
  encode_plain(text.substr(pos), out);
}

void BpeTokenizer::encode_plain(std::string_view normalized, std::vector<TokenId>& out) const {
  pretokenizer_.split(normalized, [&](std::string_view piece) { model_.encode(piece, out); });
}

std::vector<TokenId> BpeTokenizer::encode_trusted(std::string_view text,
                                                  std::span<const ByteRange> trusted) const {
  std::vector<FoundToken> found, in_gap;
  std::size_t taken = 0;  // end of the last token found
  for (const ByteRange& range : trusted) {
    // The two kinds in turn, as above; template text is its own normal form.
    const std::size_t first = found.size();
    raw_tokens_.find(text, range, taken, found);
    if (!normalized_tokens_.empty()) {
      in_gap.clear();
      std::size_t begin = range.begin;
      const auto search = [&](std::size_t end) {
        if (begin < end)
          normalized_tokens_.find(text, {begin, end}, std::max(taken, begin), in_gap);
      };
      for (std::size_t i = first; i < found.size(); ++i) {
        search(found[i].range.begin);
        begin = found[i].range.end;
      }
      search(range.end);
      found.insert(found.end(), in_gap.begin(), in_gap.end());
      std::sort(found.begin() + static_cast<std::ptrdiff_t>(first), found.end(),
                [](const auto& a, const auto& b) { return a.range.begin < b.range.begin; });
    }
    if (found.size() > first) taken = std::max(taken, found.back().range.end);
  }
  std::vector<TokenId> out;
  std::string storage;
  std::size_t pos = 0;
  const auto plain_until = [&](std::size_t end) {
    if (end > pos)
      encode_plain(
          storage = nfc_ ? to_nfc(text.substr(pos, end - pos)) : text.substr(pos, end - pos), out);
  };
  for (const FoundToken& token : found) {
    plain_until(token.range.begin);
    out.push_back(token.id);
    pos = std::max(pos, token.range.end);
  }
  plain_until(text.size());
  return out;
}

std::string BpeTokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string out;
  for (const TokenId id : ids) {
    if (!(skip_special && is_special(id))) out.append(bytes_of(id));
  }
  return out;
}

std::string StreamDecoder::push(TokenId id) {
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  pending_ += tokenizer_->token_bytes(id);
  const std::size_t complete = pending_.size() - unfinished_utf8(pending_);
  std::string text = to_valid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = to_valid_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace kogia
