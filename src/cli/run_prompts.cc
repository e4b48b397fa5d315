#include "cli/run_prompts.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <span>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/mapped_file.h"
#include "cli/draft_report.h"
#include "cli/prompt.h"
#include "formats/checkpoint.h"
#include "infer/answer.h"

namespace kogia::cli {
namespace {

using Json = nlohmann::ordered_json;

std::uint64_t hash_text(std::string_view text, std::uint64_t seed = 0) {
  return hash_bytes(std::as_bytes(std::span(text)), seed);
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A new fine-tune of the same shapes differs in its last bytes, if in nothing before.
void describe_files(const Checkpoint& checkpoint, Json& json) {
  constexpr std::size_t kEnd = std::size_t{1} << 20;
  for (const MappedFile& file : checkpoint.files()) {
    const auto bytes = file.bytes();
    const std::size_t n = std::min(kEnd, bytes.size());
    json.push_back({file.size(), hash_bytes(bytes.first(n)), hash_bytes(bytes.last(n))});
  }
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json",
                           "generation_config.json", "chat_template.jinja"}) {
    const auto text = checkpoint.text_file(name);
    json.push_back(text ? Json(hash_text(*text)) : Json());
  }
}

[[noreturn]] void throw_at(const std::string& where, const Error& error) {
  throw Error(error.code(), fmt::format("{}: {}", where, error.what()), error.help());
}

// What a line asks for, as the batcher takes it.
struct Prepared {
  RequestLine line;
  GenerateOptions options;
  bool logprobs = false;
};

Prepared prepare(const PromptFile& file, Index i, const PromptDefaults& defaults) {
  Prepared p{.line = file.parse(i), .options = defaults.options, .logprobs = defaults.logprobs};
  const RequestSettings& settings = p.line.body.settings;
  settings.apply(p.options);
  // As `kogia run --raw`: what continues a text has no answer apart from a thought.
  p.options.split_reasoning = !p.line.body.messages.empty();
  p.logprobs = settings.logprobs.value_or(p.logprobs);
  if (!p.logprobs) p.options.n_top_logprobs = 0;
  return p;
}

Json top_logprobs_json(const Generation& g, const Tokenizer* tokenizer) {
  Json all = Json::array();
  for (const auto& position : g.top_logprobs) {
    Json list = Json::array();
    for (const TokenLogprob& token : position) {
      Json item = {{"id", token.id}};
      if (tokenizer != nullptr) item["token"] = tokenizer->token_bytes(token.id);
      item["logprob"] = token.logprob;
      list.push_back(std::move(item));
    }
    all.push_back(std::move(list));
  }
  return all;
}

void add_answer(Json& line, const Generation& g, bool logprobs, const Tokenizer* tokenizer) {
  if (tokenizer != nullptr) {
    line["text"] = g.content;
    if (!g.reasoning.empty()) line["reasoning"] = g.reasoning;
  }
  if (logprobs || tokenizer == nullptr) line["ids"] = g.ids;
  if (logprobs) {
    line["logprobs"] = g.logprobs;
    if (!g.top_logprobs.empty()) line["top_logprobs"] = top_logprobs_json(g, tokenizer);
  }
  line["finish_reason"] = name(g.finish_reason);
  const auto n = static_cast<Index>(g.ids.size());
  line["usage"] = {
      {"prompt_tokens", g.n_prompt},
      {"completion_tokens", n},
      {"total_tokens", g.n_prompt + n},
      {"prompt_tokens_details", {{"cached_tokens", g.n_prompt - g.n_prompt_computed}}}};
  line["timings"] = {{"wait_s", g.wait_s}, {"prefill_s", g.prefill_s}, {"decode_s", g.decode_s}};
  add_drafts(line["timings"], g.drafts);
}

class PromptRun {
 public:
  PromptRun(const PromptFile& file, const PromptPlan& plan, Answers& answers, RequestRunner& runner,
            const PromptRunOptions& options)
      : file_(file), plan_(plan), answers_(answers), runner_(runner), options_(options) {}

  PromptRunResult run() {
    while (true) {
      if (interrupted()) {
        result_.interrupted = true;
        runner_.end_all(FinishReason::kInterrupted);
        return result_;
      }
      submit_more();
      if (n_open_ == 0 && next_slot_ == plan_.n_slots()) break;
      const bool more = runner_.step();
      KOGIA_CHECK(more || n_open_ == 0);
      if (options_.on_step) options_.on_step(result_.n_answers + result_.n_failed, n_drawn_);
    }
    answers_.finish();
    return result_;
  }

 private:
  // Enough that the scheduler always has a choice; not so many that a long answer makes all after
  // it wait in memory.
  void submit_more() {
    const Index most_open = 2 * options_.max_sequences;
    const Index most_ahead = 1024 + 16 * options_.max_sequences;
    for (; next_slot_ < plan_.n_slots() && n_open_ < most_open &&
           next_slot_ - answers_.first_missing() < most_ahead;
         ++next_slot_) {
      if (!answers_.has(next_slot_)) submit(next_slot_);
    }
  }

  void submit(Index slot) {
    const Index i = plan_.request_of(slot);
    if (i != prepared_for_) {  // the answers to one request come one after the other
      prepared_ = prepare(file_, i, options_.defaults);
      prompt_ = options_.encode(prepared_.line.body);
      prepared_for_ = i;
    }
    Request request{.prompt = prompt_, .options = prepared_.options};
    request.options.sample_key =
        static_cast<std::uint64_t>(slot - plan_.first_slot[static_cast<std::size_t>(i)]);
    RequestEvents events;
    events.on_piece = [this](const GeneratedPiece& piece) { n_drawn_ += piece.id >= 0 ? 1 : 0; };
    Json line = Json::parse(answer_head(file_, plan_, options_.salt, slot) + "}");
    if (!prepared_.line.id_key.empty()) {
      line[prepared_.line.id_key] = Json::parse(prepared_.line.id_json);
    }
    events.on_done = [this, slot, line, logprobs = prepared_.logprobs](const Generation& g) {
      done(slot, line, g, logprobs);
    };
    events.on_error = [this, slot, line](const Error& error) {
      Json told = line;
      told["error"] = error.what();
      --n_open_;
      ++result_.n_failed;
      answers_.put(slot, dump(told));
    };
    ++n_open_;
    try {
      runner_.submit(std::move(request), std::move(events));
    } catch (const Error& error) {
      throw_at(file_.where(i), error);
    }
  }

  void done(Index slot, Json line, const Generation& g, bool logprobs) {
    --n_open_;
    if (g.finish_reason == FinishReason::kInterrupted ||
        g.finish_reason == FinishReason::kCancelled) {
      return;
    }
    add_answer(line, g, logprobs, options_.tokenizer);
    answers_.put(slot, dump(line));
    ++result_.n_answers;
    result_.n_prompt_tokens += g.n_prompt;
    result_.n_cached_tokens += g.n_prompt - g.n_prompt_computed;
    result_.n_tokens += static_cast<Index>(g.ids.size());
    result_.drafts.add(g.drafts);
  }

  const PromptFile& file_;
  const PromptPlan& plan_;
  Answers& answers_;
  RequestRunner& runner_;
  const PromptRunOptions& options_;
  PromptRunResult result_;
  Index next_slot_ = 0, n_open_ = 0, n_drawn_ = 0;
  Index prepared_for_ = -1;
  Prepared prepared_;
  std::vector<TokenId> prompt_;
};

}  // namespace

std::vector<TokenId> request_ids(const Engine& engine, const RequestBody& body) {
  if (!body.ids.empty()) {
    const Index vocab_size = engine.model().config().vocab_size;
    for (const TokenId id : body.ids) {
      if (id < vocab_size) continue;
      throw_error(ErrorCode::kInvalid, "prompt holds id {}, expected 0 to {}", id, vocab_size - 1);
    }
    return body.ids;
  }
  require_tokenizer(engine, "give token ids instead: {\"prompt\": [1, 2, 3]}");
  if (body.text) return raw_prompt(engine, *body.text);
  require_chat_template(engine, "{\"prompt\": \"text\"} does without it");
  return chat_prompt(engine, body.messages, body.chat);
}

std::string answer_head(const PromptFile& file, const PromptPlan& plan, const std::string& salt,
                        Index slot) {
  const Index i = plan.request_of(slot);
  const std::uint64_t key = hash_text(file.line(i), hash_text(salt));
  return fmt::format("{{\"index\":{},\"sample\":{},\"key\":\"{:016x}\"", i,
                     slot - plan.first_slot[static_cast<std::size_t>(i)], key);
}

std::string answer_salt(const Engine& engine, const PromptDefaults& defaults) {
  const GenerateOptions& o = defaults.options;
  const SamplingParams& s = o.sampling;
  Json json = {s.temperature,
               s.top_k,
               s.top_p,
               s.min_p,
               s.repetition_penalty,
               s.frequency_penalty,
               s.presence_penalty,
               s.seed,
               s.logit_bias,
               o.max_tokens,
               o.stop,
               o.ignore_eos,
               defaults.logprobs,
               o.n_top_logprobs};
  const EngineOptions& e = engine.options();
  json.push_back({engine.device().name(), e.compute ? name(*e.compute) : "",
                  static_cast<int>(e.mla), static_cast<int>(engine.cache().memory().spec.dtype)});
  describe_files(engine.checkpoint(), json);
  return dump(json);
}

void check_requests(const Engine& engine, const PromptFile& file, const PromptDefaults& defaults,
                    const std::function<void(Index n)>& on_checked) {
  for (Index i = 0; i < file.size(); ++i) {
    throw_if_interrupted();
    const Prepared p = prepare(file, i, defaults);
    try {
      const Answer accepted(engine, request_ids(engine, p.line.body), p.options);
    } catch (const Error& error) {
      throw_at(file.where(i), error);
    }
    if (on_checked) on_checked(1);
  }
}

PromptRunResult run_prompts(const PromptFile& file, const PromptPlan& plan, Answers& answers,
                            RequestRunner& runner, const PromptRunOptions& options) {
  return PromptRun(file, plan, answers, runner, options).run();
}

}  // namespace kogia::cli
