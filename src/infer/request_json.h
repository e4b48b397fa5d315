#pragma once
// A request as the field writes it: a JSON object of OpenAI's shape, with messages or a prompt and
// any settings. Files of prompts hold one a line; a server gets the same in a body.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "infer/generate.h"
#include "text/chat.h"

namespace kogia {

/// What a request says about its answer; what it leaves out (or says null) is the caller's choice.
struct RequestSettings {
  std::optional<double> temperature, top_p, min_p;
  std::optional<double> repetition_penalty, frequency_penalty, presence_penalty;
  std::optional<Index> top_k, max_tokens;
  std::optional<std::uint64_t> seed;
  std::optional<std::map<TokenId, double>> logit_bias;
  std::optional<std::vector<std::string>> stop;
  std::optional<bool> ignore_eos, logprobs;
  std::optional<Index> n_top_logprobs;

  /// Replaces what is given here.
  void apply(GenerateOptions& options) const;
};

/// One of messages, text and ids is what is asked.
struct RequestBody {
  std::vector<ChatMessage> messages;
  ChatOptions chat;                 // tools and chat_template_kwargs
  std::optional<std::string> text;  // continued as it stands
  std::vector<TokenId> ids;         // not checked against a vocabulary
  RequestSettings settings;
  Index n = 1;                       // answers
  std::vector<std::string> ignored;  // keys that say nothing to us
};

/// {"messages": [{"role": …, "content": …}, …]} or {"prompt": "text" or [ids]} or {"text": …}, and
/// settings by the names of OpenAI, vLLM and Hugging Face: temperature, top_p, top_k, min_p, seed,
/// n, max_tokens (max_completion_tokens), stop, logprobs, top_logprobs, repetition_penalty,
/// frequency_penalty, presence_penalty, logit_bias, ignore_eos; tools, chat_template_kwargs.
///
/// Errors   Error (kInvalid) that names the key, what it is and what was expected: a wrong type or
///          range, a key that would change the answer and is not supported (response_format, …),
///          and one that looks like a slip of the fingers (temprature). Other keys are `ignored`.
RequestBody parse_request(const nlohmann::ordered_json& object);

/// A line of a file: parse_request()'s object, with "id" or "custom_id" if wanted; or one of
/// OpenAI's batch files, {"custom_id": …, "method": "POST", "url": …, "body": {…}}.
struct RequestLine {
  std::string id_key;   // "id", "custom_id" or empty
  std::string id_json;  // its value, as JSON: a text or a whole number
  RequestBody body;
};
/// `where` begins each message: "prompts.jsonl:17".
RequestLine parse_request_line(std::string_view text, std::string_view where);

}  // namespace kogia
