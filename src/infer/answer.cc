#include "infer/answer.h"

#include <algorithm>

#include "base/error.h"
#include "infer/stop_matcher.h"

namespace kogia {

// Ids in; thought and answer out, the answer up to the first stop string.
class Answer::TextStream {
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

namespace {

void check_prompt(const Engine& engine, std::span<const TokenId> prompt) {
  if (prompt.empty()) {
    throw Error(ErrorCode::kUsage, "the prompt has no tokens, expected at least one",
                "give some text; a model predicts what follows something");
  }
  const Index vocab_size = engine.vocab_size();
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= vocab_size) {
      throw_error(ErrorCode::kUsage, "token {} of the prompt has id {}, expected 0 to {}", i,
                  prompt[i], vocab_size - 1);
    }
  }
  if (static_cast<Index>(prompt.size()) > engine.ctx()) {
    throw Error(ErrorCode::kUsage,
                fmt::format("{} tokens do not fit the context of {}", prompt.size(), engine.ctx()),
                "shorten the text, or ask for more with --ctx");
  }
}

void check_options(const GenerateOptions& options) {
  constexpr Index kMaxTopLogprobs = 1000;
  if (options.max_tokens < -1) {
    throw_error(ErrorCode::kUsage, "max_tokens is {}, expected 0 or more, or -1 for no limit",
                options.max_tokens);
  }
  if (options.n_top_logprobs < 0 || options.n_top_logprobs > kMaxTopLogprobs) {
    throw_error(ErrorCode::kUsage, "top_logprobs is {}, expected 0 to {}", options.n_top_logprobs,
                kMaxTopLogprobs);
  }
}

}  // namespace

Answer::Answer(const Engine& engine, std::span<const TokenId> prompt,
               const GenerateOptions& options)
    : engine_(engine),
      options_(options),
      sampler_(options.sampling, engine.n_valid_ids()),
      history_(prompt.begin(), prompt.end()) {
  check_prompt(engine, prompt);
  check_options(options);
  if (const Tokenizer* tokenizer = engine.tokenizer()) {
    text_ = std::make_unique<TextStream>(*tokenizer, prompt, options);
  } else if (!options.stop.empty()) {
    throw Error(ErrorCode::kUsage, "stop strings need a tokenizer: " + engine.tokenizer_problem());
  }
  result_.n_prompt = static_cast<Index>(prompt.size());
  max_tokens_ = engine.ctx();
  if (options.max_tokens >= 0 && options.max_tokens < max_tokens_ - result_.n_prompt) {
    max_tokens_ = result_.n_prompt + options.max_tokens;
  }
  check_length();
}

Answer::~Answer() = default;

void Answer::check_length() {
  if (static_cast<Index>(history_.size()) >= max_tokens_) finished_ = FinishReason::kLength;
}

bool Answer::is_eos(TokenId id) const {
  const auto& eos = engine_.defaults().eos;
  return !options_.ignore_eos && std::find(eos.begin(), eos.end(), id) != eos.end();
}

std::optional<GeneratedPiece> Answer::draw(std::span<const float> logits, SamplerScratch& scratch) {
  KOGIA_CHECK(!finished_);
  const TokenId id = sampler_
                         .sample(logits, history_, result_.n_prompt, options_.prompt_key,
                                 options_.sample_key, scratch)
                         .id;
  if (is_eos(id)) {
    finished_ = FinishReason::kStop;
    return {};
  }
  history_.push_back(id);
  check_length();
  GeneratedPiece piece{.id = id};
  if (text_) {
    auto [reasoning, content] = text_->push(id);
    piece.reasoning = std::move(reasoning);
    piece.content = std::move(content);
    if (text_->stopped()) finished_ = FinishReason::kStop;
  }
  return piece;
}

std::optional<TokenId> Answer::guess(std::span<const float> logits, std::span<const TokenId> drafts,
                                     SamplerScratch& scratch) {
  const std::size_t n = history_.size();
  history_.insert(history_.end(), drafts.begin(), drafts.end());
  std::optional<TokenId> id;
  try {
    id = sampler_
             .sample(logits, history_, result_.n_prompt, options_.prompt_key, options_.sample_key,
                     scratch)
             .id;
  } catch (const Error&) {  // a guess that nobody can make is none
  }
  history_.resize(n);
  return id && is_eos(*id) ? std::nullopt : id;
}

void Answer::commit(const GeneratedPiece& piece) {
  result_.ids.push_back(piece.id);
  result_.logprobs.push_back(piece.logprob);
  if (options_.n_top_logprobs > 0) result_.top_logprobs.push_back(piece.top);
  result_.reasoning += piece.reasoning;
  result_.content += piece.content;
}

Generation Answer::finish(FinishReason reason, std::optional<GeneratedPiece>& piece) {
  piece.reset();
  if (text_) {
    auto [reasoning, content] = text_->finish();
    if (!reasoning.empty() || !content.empty()) {
      result_.reasoning += reasoning;
      result_.content += content;
      piece = GeneratedPiece{
          .id = -1, .reasoning = std::move(reasoning), .content = std::move(content)};
    }
  }
  result_.finish_reason = reason;
  return std::move(result_);
}

}  // namespace kogia
