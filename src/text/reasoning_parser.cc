// The thought of a reasoning model, apart from its answer.

#include <algorithm>

#include "text/chat.h"

namespace kogia {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";

// Bytes at the end of `text` that may be the beginning of `tag`.
std::size_t begun(std::string_view text, std::string_view tag) {
  for (std::size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == tag.substr(0, n)) return n;
  }
  return 0;
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_break(char c) { return c == '\n' || c == '\r'; }

}  // namespace

struct ReasoningParser::State {
  enum Phase { kStart, kReasoning, kAnswer } phase = kStart;
  std::optional<TokenId> open, close;  // set where both tags are tokens
  StreamDecoder decoder;
  std::string held;          // decoded, not given out yet
  bool skip_breaks = false;  // right after a tag

  explicit State(const Tokenizer& tokenizer) : decoder(tokenizer, /*skip_special=*/true) {
    const auto a = tokenizer.find(kOpen), b = tokenizer.find(kClose);
    if (a && b && tokenizer.is_added(*a) && tokenizer.is_added(*b)) open = a, close = b;
  }
  bool by_token() const { return open.has_value(); }

  void enter(Phase next) {
    phase = next;
    skip_breaks = true;
  }

  void skip_leading_breaks() {
    if (!skip_breaks) return;
    const auto first = std::ranges::find_if_not(held, is_break);
    held.erase(held.begin(), first);
    if (!held.empty()) skip_breaks = false;
  }

  // Gives out what of `held` can be decided. `last`: nothing follows.
  void drain(Piece& piece, bool last) {
    if (phase == kStart) drain_start(last);
    if (phase == kReasoning) drain_reasoning(piece, last);
    if (phase == kAnswer) {
      skip_leading_breaks();
      piece.content += held;
      held.clear();
    }
  }

  // White space, then <think>: a thought. Anything else: an answer.
  void drain_start(bool last) {
    const auto word =
        static_cast<std::size_t>(std::ranges::find_if_not(held, is_space) - held.begin());
    const std::string_view rest = std::string_view(held).substr(word);
    if (!by_token() && rest.starts_with(kOpen)) {
      held.erase(0, word + kOpen.size());
      enter(kReasoning);
    } else if (last || (!rest.empty() && (by_token() || !kOpen.starts_with(rest)))) {
      phase = kAnswer;
    }
  }

  void drain_reasoning(Piece& piece, bool last) {
    skip_leading_breaks();
    if (!by_token()) {
      if (const std::size_t at = held.find(kClose); at != std::string::npos) {
        close_thought(piece, at, kClose.size());
        return;
      }
    }
    std::size_t keep = 0;
    if (!last) {
      keep = by_token() ? 0 : begun(held, kClose);
      while (keep < held.size() && is_break(held[held.size() - keep - 1])) ++keep;
    }
    piece.reasoning += held.substr(0, held.size() - keep);
    held.erase(0, held.size() - keep);
  }

  // The thought ends at `at`; line breaks before the tag go with it.
  void close_thought(Piece& piece, std::size_t at, std::size_t tag_size) {
    std::size_t end = at;
    while (end > 0 && is_break(held[end - 1])) --end;
    piece.reasoning += held.substr(0, end);
    held.erase(0, at + tag_size);
    enter(kAnswer);
  }

  // A tag that is a token; true if `id` was one that counts here.
  bool take_tag(TokenId id, Piece& piece) {
    if (!by_token() || (id != *open && id != *close)) return false;
    if (phase == kStart && id == *open && std::ranges::all_of(held, is_space)) {
      held.clear();
      enter(kReasoning);
      return true;
    }
    if (phase == kReasoning && id == *close) {
      held += decoder.finish();
      skip_leading_breaks();
      close_thought(piece, held.size(), 0);
      return true;
    }
    return false;
  }
};

ReasoningParser::ReasoningParser(const Tokenizer& tokenizer, std::span<const TokenId> prompt)
    : state_(std::make_shared<State>(tokenizer)) {
  bool open = false;
  if (state_->by_token()) {
    for (const TokenId id : prompt) {
      if (id == *state_->open) open = true;
      if (id == *state_->close) open = false;
    }
  } else {
    // The last 64 tokens hold the tag and the white space after it.
    const std::string text = tokenizer.decode(prompt.last(std::min<std::size_t>(prompt.size(), 64)),
                                              /*skip_special=*/false);
    std::string_view end = text;
    while (!end.empty() && is_space(end.back())) end.remove_suffix(1);
    open = end.ends_with(kOpen);
  }
  if (open) state_->enter(State::kReasoning);
  in_reasoning_ = open;
}

ReasoningParser::Piece ReasoningParser::push(TokenId id) {
  Piece piece;
  if (!state_->take_tag(id, piece)) {
    state_->held += state_->decoder.push(id);
    state_->drain(piece, /*last=*/false);
  }
  in_reasoning_ = state_->phase == State::kReasoning;
  return piece;
}

ReasoningParser::Piece ReasoningParser::finish() {
  Piece piece;
  state_->held += state_->decoder.finish();
  state_->drain(piece, /*last=*/true);
  in_reasoning_ = state_->phase == State::kReasoning;
  return piece;
}

}  // namespace kogia
