#include "infer/request_json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <limits>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/json.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;

constexpr Index kMostAnswers = 4096, kMostTopLogprobs = 20;
constexpr Index kMostTokens = Index{1} << 30;
constexpr std::size_t kMostShown = 60;  // bytes of a value in a message

[[noreturn]] void refuse(std::string_view key, const Json& found, std::string_view expected) {
  std::string text = found.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kMostShown) text = text.substr(0, kMostShown) + "…";
  throw_error(ErrorCode::kInvalid, "{} is {}, expected {}", key, text, expected);
}

double number(std::string_view key, const Json& value) {
  if (!value.is_number()) refuse(key, value, "a number");
  return value.get<double>();
}

// 8 and 8.0, as some writers have it.
Index whole(std::string_view key, const Json& value, Index low, Index high) {
  const std::string expected = fmt::format("a whole number from {} to {}", low, high);
  if (!value.is_number()) refuse(key, value, expected);
  const double x = value.get<double>();
  if (!(x >= static_cast<double>(low) && x <= static_cast<double>(high)) || x != std::floor(x)) {
    refuse(key, value, expected);
  }
  return static_cast<Index>(x);
}

std::uint64_t seed_value(std::string_view key, const Json& value) {
  if (!value.is_number_unsigned()) refuse(key, value, "a whole number from 0 to 2^64 - 1");
  return value.get<std::uint64_t>();
}

bool truth(std::string_view key, const Json& value) {
  if (!value.is_boolean()) refuse(key, value, "true or false");
  return value.get<bool>();
}

std::string text_value(std::string_view key, const Json& value) {
  if (!value.is_string()) refuse(key, value, "a text");
  return value.get<std::string>();
}

std::vector<std::string> stop_strings(const Json& value) {
  constexpr std::string_view kExpected = "a text, or a list of texts, none of them empty";
  std::vector<std::string> stops;
  const auto add = [&](const Json& item) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty()) {
      refuse("stop", value, kExpected);
    }
    stops.push_back(item.get<std::string>());
  };
  if (value.is_array()) {
    for (const Json& item : value) add(item);
  } else {
    add(value);
  }
  return stops;
}

std::map<TokenId, double> bias_of_tokens(const Json& value) {
  constexpr std::string_view kExpected = "an object of token ids and numbers, as {\"15043\": -5}";
  if (!value.is_object()) refuse("logit_bias", value, kExpected);
  std::map<TokenId, double> bias;
  for (const auto& [key, x] : value.items()) {
    TokenId id = 0;
    const char* end = key.data() + key.size();
    const auto [rest, status] = std::from_chars(key.data(), end, id);
    if (key.empty() || status != std::errc() || rest != end || id < 0 || !x.is_number()) {
      refuse("logit_bias", value, kExpected);
    }
    bias[id] = x.get<double>();
  }
  return bias;
}

// A chat says true and, beside it, how many; a completion says how many.
void read_logprobs(const Json& value, RequestSettings& s) {
  if (value.is_boolean()) {
    s.logprobs = value.get<bool>();
    return;
  }
  if (!value.is_number()) refuse("logprobs", value, "true, false or a number of tokens");
  s.n_top_logprobs = whole("logprobs", value, 0, kMostTopLogprobs);
  s.logprobs = true;
}

// The content of a message: a text, null, or OpenAI's list of parts, of which texts are joined.
std::string content_text(const std::string& key, const Json& value, bool& is_null) {
  is_null = value.is_null();
  if (is_null) return {};
  if (value.is_string()) return value.get<std::string>();
  constexpr std::string_view kExpected = "a text, null or a list of {\"type\": \"text\", …} parts";
  if (!value.is_array()) refuse(key, value, kExpected);
  std::string text;
  for (const Json& part : value) {
    const bool fits = part.is_object() && part.contains("type") && part["type"] == "text" &&
                      part.contains("text") && part["text"].is_string();
    if (!fits) refuse(key, part, kExpected);
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

std::vector<ChatMessage> messages_of(const Json& value) {
  if (!value.is_array() || value.empty()) refuse("messages", value, "a list of messages");
  std::vector<ChatMessage> messages;
  for (const Json& item : value) {
    const std::string at = fmt::format("messages[{}]", messages.size());
    if (!item.is_object()) refuse(at, item, "an object with role and content");
    const auto role = item.find("role");
    if (role == item.end() || !role->is_string()) refuse(at, item, "a role that is a text");
    ChatMessage message{.role = role->get<std::string>(), .content = {}, .extra_json = {}};
    Json extra = item;
    extra.erase("role");
    const auto content = item.find("content");
    if (content != item.end()) {
      bool is_null = false;
      message.content = content_text(at + ".content", *content, is_null);
      if (!is_null) extra.erase("content");
    } else if (!item.contains("tool_calls")) {
      refuse(at, item, "a content beside the role");
    }
    if (!extra.empty())
      message.extra_json = extra.dump(-1, ' ', false, Json::error_handler_t::replace);
    messages.push_back(std::move(message));
  }
  return messages;
}

void read_prompt(const Json& value, RequestBody& body) {
  if (value.is_string()) {
    body.text = value.get<std::string>();
    if (body.text->empty()) refuse("prompt", value, "a text that is not empty");
    return;
  }
  constexpr std::string_view kExpected = "a text or a list of token ids";
  if (!value.is_array() || value.empty()) refuse("prompt", value, kExpected);
  for (const Json& id : value) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 ||
        id.get<std::int64_t>() > std::numeric_limits<TokenId>::max()) {
      refuse("prompt", value, kExpected);
    }
    body.ids.push_back(id.get<TokenId>());
  }
}

struct Key {
  std::string_view name;
  void (*read)(const Json& value, RequestBody& body);
};

#define KOGIA_NUMBER(field)                                                             \
  Key {                                                                                 \
    #field, [](const Json& v, RequestBody& b) { b.settings.field = number(#field, v); } \
  }

constexpr std::array kKeys{
    Key{"messages", [](const Json& v, RequestBody& b) { b.messages = messages_of(v); }},
    Key{"prompt", read_prompt},
    Key{"text",
        [](const Json& v, RequestBody& b) {
          b.text = text_value("text", v);
          if (b.text->empty()) refuse("text", v, "a text that is not empty");
        }},
    Key{"tools",
        [](const Json& v, RequestBody& b) {
          if (!v.is_array()) refuse("tools", v, "a list");
          if (!v.empty())
            b.chat.tools_json = v.dump(-1, ' ', false, Json::error_handler_t::replace);
        }},
    Key{"chat_template_kwargs",
        [](const Json& v, RequestBody& b) {
          if (!v.is_object()) refuse("chat_template_kwargs", v, "an object");
          b.chat.kwargs_json = v.dump(-1, ' ', false, Json::error_handler_t::replace);
        }},
    Key{"n", [](const Json& v, RequestBody& b) { b.n = whole("n", v, 1, kMostAnswers); }},
    KOGIA_NUMBER(temperature),
    KOGIA_NUMBER(top_p),
    KOGIA_NUMBER(min_p),
    KOGIA_NUMBER(repetition_penalty),
    KOGIA_NUMBER(frequency_penalty),
    KOGIA_NUMBER(presence_penalty),
    Key{"top_k",  // -1: off, as vLLM has it
        [](const Json& v, RequestBody& b) {
          b.settings.top_k = std::max<Index>(whole("top_k", v, -1, kMostTokens), 0);
        }},
    Key{"max_tokens",
        [](const Json& v, RequestBody& b) {
          b.settings.max_tokens = whole("max_tokens", v, -1, kMostTokens);
        }},
    Key{"max_completion_tokens",
        [](const Json& v, RequestBody& b) {
          b.settings.max_tokens = whole("max_completion_tokens", v, -1, kMostTokens);
        }},
    Key{"seed", [](const Json& v, RequestBody& b) { b.settings.seed = seed_value("seed", v); }},
    Key{"stop", [](const Json& v, RequestBody& b) { b.settings.stop = stop_strings(v); }},
    Key{"logit_bias",
        [](const Json& v, RequestBody& b) { b.settings.logit_bias = bias_of_tokens(v); }},
    Key{"ignore_eos",
        [](const Json& v, RequestBody& b) { b.settings.ignore_eos = truth("ignore_eos", v); }},
    Key{"logprobs", [](const Json& v, RequestBody& b) { read_logprobs(v, b.settings); }},
    Key{"top_logprobs",
        [](const Json& v, RequestBody& b) {
          b.settings.n_top_logprobs = whole("top_logprobs", v, 0, kMostTopLogprobs);
          if (*b.settings.n_top_logprobs > 0) b.settings.logprobs = true;
        }},
};
#undef KOGIA_NUMBER

// Whose model it is, how it is told and what it is filed under: none of it changes an answer.
constexpr std::array<std::string_view, 13> kAccepted = {"id",
                                                        "custom_id",
                                                        "model",
                                                        "stream",
                                                        "user",
                                                        "metadata",
                                                        "service_tier",
                                                        "stream_options",
                                                        "store",
                                                        "prompt_cache_key",
                                                        "parallel_tool_calls",
                                                        "safety_identifier",
                                                        "verbosity"};

// Settings of others that would change the answer. False, zero and empty lists ask for nothing.
constexpr std::array<std::string_view, 24> kUnsupported = {"response_format",
                                                           "best_of",
                                                           "echo",
                                                           "suffix",
                                                           "functions",
                                                           "function_call",
                                                           "guided_json",
                                                           "guided_regex",
                                                           "guided_choice",
                                                           "guided_grammar",
                                                           "structured_outputs",
                                                           "grammar",
                                                           "json_schema",
                                                           "min_tokens",
                                                           "stop_token_ids",
                                                           "bad_words",
                                                           "length_penalty",
                                                           "use_beam_search",
                                                           "mirostat",
                                                           "typical_p",
                                                           "prompt_embeds",
                                                           "audio",
                                                           "continue_final_message",
                                                           "add_generation_prompt"};

bool asks_for_nothing(std::string_view key, const Json& value) {
  if (value == false || value == 0 || value == "" || (value.is_structured() && value.empty())) {
    return true;
  }
  if (key == "add_generation_prompt") return value == true;
  if (key == "best_of" || key == "length_penalty" || key == "typical_p") return value == 1;
  return key == "response_format" && value.is_object() && value.contains("type") &&
         value["type"] == "text";
}

// One letter more, less, changed or swapped with its neighbour; case, _ and - do not count.
bool is_slip_of(std::string_view word, std::string_view name) {
  std::string plain, wanted;
  const auto reduce = [](std::string_view text, std::string& to) {
    for (const char c : text) {
      if (c != '_' && c != '-') to += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  };
  reduce(word, plain);
  reduce(name, wanted);
  if (plain == wanted) return true;
  if (wanted.size() < 4) return false;
  std::string_view a = plain, b = wanted;
  while (!a.empty() && !b.empty() && a.front() == b.front()) a.remove_prefix(1), b.remove_prefix(1);
  while (!a.empty() && !b.empty() && a.back() == b.back()) a.remove_suffix(1), b.remove_suffix(1);
  const bool swapped = a.size() == 2 && b.size() == 2 && a[0] == b[1] && a[1] == b[0];
  return swapped || (a.size() <= 1 && b.size() <= 1);
}

void read_other_key(const std::string& key, const Json& value, RequestBody& body) {
  if (std::ranges::find(kAccepted, key) != kAccepted.end()) return;
  if (std::ranges::find(kUnsupported, key) != kUnsupported.end()) {
    if (asks_for_nothing(key, value)) return;
    throw_error(ErrorCode::kInvalid, "{} is given, and kogia cannot do that yet", key);
  }
  for (const Key& known : kKeys) {
    if (!is_slip_of(key, known.name)) continue;
    throw_error(ErrorCode::kInvalid, "there is no key '{}', did you mean {}?",
                key.substr(0, kMostShown), known.name);
  }
  body.ignored.push_back(key);
}

void check(const RequestBody& body) {
  const int n_prompts =
      (body.messages.empty() ? 0 : 1) + (body.text ? 1 : 0) + (body.ids.empty() ? 0 : 1);
  if (n_prompts != 1) {
    throw_error(ErrorCode::kInvalid, "{} of messages, prompt and text, expected one",
                n_prompts == 0 ? "none" : "more than one");
  }
  if (body.messages.empty() && !(body.chat.tools_json.empty() && body.chat.kwargs_json.empty())) {
    throw_error(ErrorCode::kInvalid, "tools and chat_template_kwargs need messages");
  }
  GenerateOptions options;
  body.settings.apply(options);
  try {
    validate(options.sampling);
  } catch (const Error& error) {
    throw_error(ErrorCode::kInvalid, "{}", error.what());
  }
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

// The body of a line of OpenAI's batch files.
const Json& body_of(const Json& line) {
  const auto is = [&](const char* key, std::initializer_list<std::string_view> known) {
    const auto at = line.find(key);
    if (at == line.end() || at->is_null()) return;
    const bool found =
        at->is_string() && std::ranges::find(known, at->get<std::string>()) != known.end();
    if (!found) refuse(key, *at, fmt::format("{}", fmt::join(known, " or ")));
  };
  is("method", {"POST"});
  is("url", {"/v1/chat/completions", "/v1/completions"});
  for (const auto& [key, value] : line.items()) {
    if (key == "custom_id" || key == "id" || key == "method" || key == "url" || key == "body")
      continue;
    throw_error(ErrorCode::kInvalid, "'{}' stands beside body, expected all settings inside it",
                key.substr(0, kMostShown));
  }
  return line["body"];
}

}  // namespace

void RequestSettings::apply(GenerateOptions& options) const {
  const auto replace = [](const auto& given, auto& target) {
    if (given) target = *given;
  };
  replace(temperature, options.sampling.temperature);
  replace(top_p, options.sampling.top_p);
  replace(min_p, options.sampling.min_p);
  replace(top_k, options.sampling.top_k);
  replace(repetition_penalty, options.sampling.repetition_penalty);
  replace(frequency_penalty, options.sampling.frequency_penalty);
  replace(presence_penalty, options.sampling.presence_penalty);
  replace(seed, options.sampling.seed);
  replace(logit_bias, options.sampling.logit_bias);
  replace(max_tokens, options.max_tokens);
  replace(stop, options.stop);
  replace(ignore_eos, options.ignore_eos);
  replace(n_top_logprobs, options.n_top_logprobs);
}

RequestBody parse_request(const Json& object) {
  if (!object.is_object()) refuse("the request", object, "a JSON object");
  RequestBody body;
  for (const auto& [key, value] : object.items()) {
    if (value.is_null()) continue;
    const auto known = std::ranges::find(kKeys, key, &Key::name);
    if (known == kKeys.end()) {
      read_other_key(key, value, body);
    } else {
      if (key == "text" && object.contains("prompt") && !object["prompt"].is_null()) {
        throw_error(ErrorCode::kInvalid, "prompt and text are two prompts, expected one");
      }
      known->read(value, body);
    }
  }
  check(body);
  return body;
}

RequestLine parse_request_line(std::string_view text, std::string_view where) {
  if (is_blank(text)) throw_error(ErrorCode::kInvalid, "{}: empty, expected a JSON object", where);
  const Json line = parse_json(text, where);
  RequestLine result;
  try {
    if (!line.is_object()) refuse("the line", line, "a JSON object");
    result.body = parse_request(line.contains("body") ? body_of(line) : line);
    for (const char* key : {"custom_id", "id"}) {
      const auto at = line.find(key);
      if (at == line.end() || at->is_null()) continue;
      if (!at->is_string() && !at->is_number_integer()) {
        refuse(key, *at, "a text or a whole number");
      }
      if (!result.id_key.empty()) refuse(key, *at, "no second name beside custom_id");
      result.id_key = key;
      result.id_json = at->dump(-1, ' ', false, Json::error_handler_t::replace);
    }
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", where, error.what()), error.help());
  }
  return result;
}

}  // namespace kogia
