// Conversations to text and ids through the published template.

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/chat.h"
#include "text/json.h"
#include "text/template_engine.h"
#include "text/trusted_text.h"
#include "text/unicode.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;

Json message_json(const ChatMessage& message) {
  Json json = Json::object();
  json["role"] = to_valid_utf8(message.role);
  json["content"] = to_valid_utf8(message.content);
  if (message.extra_json.empty()) return json;
  const Json extra = parse_json(message.extra_json, "extra_json of a message");
  if (!extra.is_object())
    throw_error(ErrorCode::kInvalid, "extra_json of a message is not an object");
  for (const auto& [key, value] : extra.items()) json[key] = value;
  return json;
}

Json variables_json(std::span<const ChatMessage> messages, const ChatOptions& options) {
  Json variables = Json::object();
  variables["messages"] = Json::array();
  for (const ChatMessage& message : messages)
    variables["messages"].push_back(message_json(message));
  variables["tools"] =
      options.tools_json.empty() ? Json(nullptr) : parse_json(options.tools_json, "tools");
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = options.add_generation_prompt;
  if (options.kwargs_json.empty()) return variables;
  const Json kwargs = parse_json(options.kwargs_json, "the template's further variables");
  if (!kwargs.is_object())
    throw_error(ErrorCode::kInvalid, "the template's further variables are not an object");
  for (const auto& [key, value] : kwargs.items()) {
    if (variables.contains(key) || key == "bos_token" || key == "eos_token") {
      throw_error(ErrorCode::kUsage, "the template variable '{}' is set by the chat itself", key);
    }
    variables[key] = value;
  }
  return variables;
}

// Calls `visit` with the object that names the function of each tool call: {"function": {"name",
// …}}, or flat.
template <class Visit>
void for_each_call(Json& variables, Visit&& visit) {
  for (std::size_t m = 0; m < variables["messages"].size(); ++m) {
    Json& message = variables["messages"][m];
    if (!message.is_object() || !message.contains("tool_calls") ||
        !message["tool_calls"].is_array())
      continue;
    for (Json& call : message["tool_calls"]) {
      if (!call.is_object()) continue;
      Json& named =
          call.contains("function") && call["function"].is_object() ? call["function"] : call;
      if (named.contains("name") && named["name"].is_string()) visit(m, named["name"]);
    }
  }
}

class JinjaChatTemplate : public ChatTemplate {
 public:
  JinjaChatTemplate(std::string source, const Tokenizer& tokenizer, std::string bos_token,
                    std::string eos_token)
      : tokenizer_(&tokenizer),
        trusted_(std::move(source), tokenizer, std::move(bos_token), std::move(eos_token)) {
    check_template(trusted_.source());
  }

  RenderedChat render(std::span<const ChatMessage> messages,
                      const ChatOptions& options) const override {
    Json variables = variables_json(messages, options);
    const std::string json = dump(variables);
    RenderedChat chat;
    chat.text = render_json(json, options.max_bytes);
    chat.ids = tokenizer_->encode_trusted(chat.text, trusted_.find(chat.text, json));
    warn_of_dropped_calls(std::move(variables), options.max_bytes, chat.warnings);
    return chat;
  }

 private:
  static std::string dump(const Json& json) {
    try {
      return json.dump();
    } catch (const Json::exception& e) {
      throw_error(ErrorCode::kInvalid, "a message is not valid UTF-8: {}", e.what());
    }
  }

  std::string render_json(std::string_view json, std::size_t max_bytes) const {
    const TemplateVariables variables(trusted_.with_specials(json, trusted_.bos(), trusted_.eos()));
    return render_template(trusted_.source(), variables, max_bytes);
  }

  // Renders with each function's name made unmistakable and looks which are missing.
  void warn_of_dropped_calls(Json variables, std::size_t max_bytes,
                             std::vector<std::string>& warnings) const {
    constexpr std::size_t kFirst = 0xE000, kMarks = 6400;    // one private character for each call
    std::vector<std::pair<std::string, std::size_t>> marks;  // mark, message
    for_each_call(variables, [&](std::size_t message, Json& name) {
      std::string mark;
      append_utf8(mark, static_cast<char32_t>(kFirst + marks.size() % kMarks));
      name = mark = "kogia" + mark;
      marks.emplace_back(std::move(mark), message);
    });
    if (marks.empty() || marks.size() > kMarks) return;
    std::string text;
    try {
      text = render_json(dump(variables), max_bytes);
    } catch (const Error&) {
      return;  // the template knows its functions by name
    }
    std::vector<std::size_t> lost(variables["messages"].size(), 0);
    for (const auto& [mark, message] : marks) lost[message] += text.find(mark) == std::string::npos;
    for (std::size_t i = 0; i < lost.size(); ++i) {
      if (lost[i] == 0) continue;
      warnings.push_back(
          fmt::format("message {}: the chat template drops {} of its tool calls", i, lost[i]));
    }
  }

  const Tokenizer* tokenizer_;
  TrustedText trusted_;
};

}  // namespace

std::unique_ptr<ChatTemplate> ChatTemplate::create(std::string source, const Tokenizer& tokenizer,
                                                   std::string bos_token, std::string eos_token) {
  return std::make_unique<JinjaChatTemplate>(std::move(source), tokenizer, to_valid_utf8(bos_token),
                                             to_valid_utf8(eos_token));
}

std::string find_chat_template(std::string_view jinja_file,
                               std::string_view tokenizer_config_json) {
  if (!jinja_file.empty()) return std::string(jinja_file);
  if (tokenizer_config_json.empty()) return {};
  const Json config = parse_json(tokenizer_config_json, "tokenizer_config.json");
  if (!config.is_object() || !config.contains("chat_template")) return {};
  const Json& found = config["chat_template"];
  if (found.is_string()) return found.get<std::string>();
  if (!found.is_array()) return {};
  for (const Json& named : found) {
    if (named.is_object() && named.value("name", Json()) == "default" &&
        named.contains("template") && named["template"].is_string()) {
      return named["template"].get<std::string>();
    }
  }
  return {};
}

}  // namespace kogia
