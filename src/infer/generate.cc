#include "infer/generate.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "infer/stop_matcher.h"

namespace kogia {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Ids in; thought and answer out, the answer up to the first stop string.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, std::span<const TokenId> prompt,
             const GenerateOptions& options)
      : decoder_(tokenizer, /*skip_special=*/true), stops_(options.stop) {
    if (options.split_reasoning) parser_.emplace(tokenizer, prompt);
  }

  ReasoningParser::Piece push(TokenId id) {
    auto piece = parser_ ? parser_->push(id) : ReasoningParser::Piece{{}, decoder_.push(id)};
    piece.content = stops_.push(piece.content);
    return piece;
  }
  ReasoningParser::Piece finish() {
    auto piece = parser_ ? parser_->finish() : ReasoningParser::Piece{{}, decoder_.finish()};
    piece.content = stops_.push(piece.content);
    piece.content += stops_.finish();
    return piece;
  }
  bool stopped() const { return stops_.stopped(); }

 private:
  StreamDecoder decoder_;
  std::optional<ReasoningParser> parser_;
  StopMatcher stops_;
};

float log_prob(Device& device, std::span<const float> logits, TokenId id) {
  float result = 0;
  const auto n = static_cast<Index>(logits.size());
  device.log_prob(
      {.logits = logits.data(), .stride = n, .n = n, .ids = {&id, 1}, .log_prob = &result});
  return result;
}

class Generator {
 public:
  Generator(Session& session, Engine& engine, std::span<const TokenId> prompt,
            const GenerateOptions& options, const GenerateEvents& events)
      : session_(session),
        engine_(engine),
        options_(options),
        events_(events),
        sampler_(options.sampling, engine.n_valid_ids()),
        history_(prompt.begin(), prompt.end()) {
    if (prompt.empty()) {
      throw Error(ErrorCode::kUsage, "the prompt has no tokens, expected at least one",
                  "give some text; a model predicts what follows something");
    }
    if (const Tokenizer* tokenizer = engine.tokenizer()) {
      text_.emplace(*tokenizer, prompt, options);
    } else if (!options.stop.empty()) {
      throw Error(ErrorCode::kUsage,
                  "stop strings need a tokenizer: " + engine.tokenizer_problem());
    }
    result_.n_prompt = static_cast<Index>(prompt.size());
  }

  Generation run() {
    try {
      prefill();
      const auto begin = Clock::now();
      result_.finish_reason = decode();
      result_.decode_s = seconds_since(begin);
    } catch (const Error& error) {  // thrown between chunks of the prompt
      if (error.code() != ErrorCode::kInterrupted) throw;
      result_.finish_reason = FinishReason::kInterrupted;
    }
    finish_text();
    return std::move(result_);
  }

 private:
  void prefill() {
    const auto begin = Clock::now();
    result_.n_prompt_computed = session_.set_tokens(history_, events_.on_prefill);
    result_.prefill_s = seconds_since(begin);
  }

  FinishReason decode() {
    while (true) {
      if (interrupted()) return FinishReason::kInterrupted;
      const auto n_new = static_cast<Index>(result_.ids.size());
      if (n_new == options_.max_tokens) return FinishReason::kLength;
      if (static_cast<Index>(history_.size()) >= engine_.ctx()) return FinishReason::kLength;
      // The token drawn last enters the cache only now, when what follows it is wanted.
      if (n_new > 0) session_.append(history_.back());

      const SampledToken token = sampler_.sample(session_.logits(), history_, result_.n_prompt,
                                                 options_.prompt_key, options_.sample_key);
      if (!options_.ignore_eos && is_eos(token.id)) return FinishReason::kStop;
      take(token.id);
      if (text_ && text_->stopped()) return FinishReason::kStop;
    }
  }

  bool is_eos(TokenId id) const {
    const auto& eos = engine_.defaults().eos;
    return std::find(eos.begin(), eos.end(), id) != eos.end();
  }

  void take(TokenId id) {
    GeneratedPiece piece{.id = id,
                         .logprob = log_prob(engine_.device(), session_.logits(), id),
                         .reasoning = {},
                         .content = {}};
    history_.push_back(id);
    result_.ids.push_back(id);
    result_.logprobs.push_back(piece.logprob);
    if (text_) {
      auto [reasoning, content] = text_->push(id);
      piece.reasoning = std::move(reasoning);
      piece.content = std::move(content);
    }
    show(piece);
  }

  void finish_text() {
    if (!text_) return;
    auto [reasoning, content] = text_->finish();
    if (reasoning.empty() && content.empty()) return;
    show(
        {.id = -1, .logprob = 0, .reasoning = std::move(reasoning), .content = std::move(content)});
  }

  void show(const GeneratedPiece& piece) {
    result_.reasoning += piece.reasoning;
    result_.content += piece.content;
    if (events_.on_piece) events_.on_piece(piece);
  }

  Session& session_;
  Engine& engine_;
  const GenerateOptions& options_;
  const GenerateEvents& events_;
  Sampler sampler_;
  std::vector<TokenId> history_;  // prompt, then output
  std::optional<TextStream> text_;
  Generation result_;
};

}  // namespace

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kInterrupted:
      return "interrupted";
  }
  return "";
}

Generation generate(Session& session, Engine& engine, std::span<const TokenId> prompt,
                    const GenerateOptions& options, const GenerateEvents& events) {
  if (options.max_tokens < -1) {
    throw_error(ErrorCode::kUsage, "max_tokens is {}, expected 0 or more, or -1 for no limit",
                options.max_tokens);
  }
  return Generator(session, engine, prompt, options, events).run();
}

}  // namespace kogia
