#pragma once
// `kogia run MODEL --prompts FILE`: a file of requests becomes a file of answers.

#include <functional>
#include <string>
#include <vector>

#include "cli/answer_file.h"
#include "cli/prompt_file.h"
#include "infer/batcher.h"
#include "infer/engine.h"

namespace kogia::cli {

/// What the flags say about every request; each may say otherwise.
struct PromptDefaults {
  GenerateOptions options;
  bool logprobs = false;
};

/// The ids of a request, through the checkpoint's template or as they stand. Throws Error (no place
/// in it): no template, no tokenizer, what the template refuses, ids outside the vocabulary.
std::vector<TokenId> request_ids(const Engine& engine, const RequestBody& body);

/// How the answer to a slot begins: {"index":17,"sample":0,"key":"…" where the key is a hash of
/// the request's line, of `salt` (the settings) and of the sample.
std::string answer_head(const PromptFile& file, const PromptPlan& plan, const std::string& salt,
                        Index slot);
/// What every answer depends on beside its line: the defaults, and which model computes it how (of
/// the weights, their files' heads, ends and sizes).
std::string answer_salt(const Engine& engine, const PromptDefaults& defaults);

/// Where requests go: a Batcher, or what a test has for one.
struct RequestRunner {
  std::function<RequestId(Request, RequestEvents)> submit;
  std::function<bool()> step;
  std::function<void(FinishReason)> end_all;
};

struct PromptRunOptions {
  PromptDefaults defaults;
  std::string salt;
  Index max_sequences = 256;
  std::function<std::vector<TokenId>(const RequestBody&)> encode;
  const Tokenizer* tokenizer = nullptr;  // for the texts of likeliest tokens; may be null
  /// Told after each step: answers done and tokens drawn since the run began.
  std::function<void(Index n_answers, Index n_tokens)> on_step = {};
};

struct PromptRunResult {
  Index n_answers = 0, n_failed = 0;  // of this run
  Index n_prompt_tokens = 0, n_cached_tokens = 0, n_tokens = 0;
  DraftStats drafts;
  bool interrupted = false;
};

/// Every slot that has no answer yet gets one. Ctrl-C, seen through base/interrupt.h, ends the run;
/// what is done stays. A request whose logits cannot be drawn from has an "error" in its line.
PromptRunResult run_prompts(const PromptFile& file, const PromptPlan& plan, Answers& answers,
                            RequestRunner& runner, const PromptRunOptions& options);

/// What check_prompts() could not know, before anything runs: each prompt has its ids and fits the
/// context, settings suit the model. Throws Error that names the line.
void check_requests(const Engine& engine, const PromptFile& file, const PromptDefaults& defaults,
                    const std::function<void(Index n)>& on_checked);

}  // namespace kogia::cli
