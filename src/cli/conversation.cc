#include "cli/conversation.h"

#include <span>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "cli/prompt.h"
#include "infer/session_pages.h"

namespace kogia::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxSavedBytes = std::size_t{64} << 20;

std::string extra_json(const std::string& reasoning) {
  return reasoning.empty() ? std::string() : Json{{"reasoning_content", reasoning}}.dump();
}

Json to_json(const ChatMessage& message) {
  Json object{{"role", message.role}, {"content", message.content}};
  if (!message.extra_json.empty()) object.update(Json::parse(message.extra_json));
  return object;
}

// One element of "messages"; `where` is for errors.
ChatMessage from_json(const Json& object, const std::string& where) {
  ChatMessage message;
  const auto text = [&](const char* key) {
    if (!object.is_object() || !object.contains(key) || !object[key].is_string()) {
      throw_error(ErrorCode::kInvalid, "{}: '{}' is missing or no string", where, key);
    }
    return object[key].get<std::string>();
  };
  message.role = text("role");
  message.content = text("content");
  if (object.contains("reasoning_content"))
    message.extra_json = extra_json(text("reasoning_content"));
  return message;
}

}  // namespace

Conversation::Conversation(Engine& engine, BatcherOptions batching, GenerateOptions options,
                           std::string system)
    : engine_(engine),
      batcher_(engine, std::move(batching)),
      options_(std::move(options)),
      system_(std::move(system)) {}

Generation Conversation::ask(const std::string& text, const GenerateEvents& events) {
  std::vector<ChatMessage> asked = turns_;
  asked.push_back({"user", text, {}});
  options_.sample_key = 0;
  return answer(asked, events);
}

Generation Conversation::regenerate(const GenerateEvents& events) {
  if (turns_.empty()) {
    throw Error(ErrorCode::kUsage, "there is no answer yet that could be drawn again");
  }
  std::vector<ChatMessage> asked(turns_.begin(), turns_.end() - 1);
  ++options_.sample_key;
  return answer(asked, events);
}

Generation Conversation::answer(const std::vector<ChatMessage>& asked,
                                const GenerateEvents& events) {
  std::vector<ChatMessage> messages;
  if (!system_.empty()) messages.push_back({"system", system_, {}});
  messages.insert(messages.end(), asked.begin(), asked.end());
  const std::vector<TokenId> prompt = chat_prompt(engine_, messages);
  if (static_cast<Index>(prompt.size()) >= engine_.ctx()) {
    throw Error(ErrorCode::kUsage,
                fmt::format("the conversation has {} tokens, and the context holds {}",
                            prompt.size(), engine_.ctx()),
                "/reset begins anew; --ctx N at the start gives more room");
  }
  const InterruptGuard ctrl_c;
  Generation g = generate(batcher_, prompt, options_, events);
  clear_interrupt();
  if (g.finish_reason == FinishReason::kInterrupted && g.content.empty()) return g;
  turns_ = asked;
  turns_.push_back({"assistant", g.content, extra_json(g.reasoning)});
  tokens_ = prompt;
  tokens_.insert(tokens_.end(), g.ids.begin(), g.ids.end());
  return g;
}

void Conversation::set_system(std::string text) {
  system_ = std::move(text);
  reset();
}

void Conversation::reset() {
  turns_.clear();
  tokens_.clear();
}

void Conversation::save(const std::filesystem::path& file) const {
  Json messages = Json::array();
  if (!system_.empty()) messages.push_back({{"role", "system"}, {"content", system_}});
  for (const ChatMessage& message : turns_) messages.push_back(to_json(message));
  write_file_atomically(
      file,
      Json{{"messages", messages}}.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void Conversation::save_cache(const std::filesystem::path& file) {
  if (turns_.empty()) {
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
  } else if (!tokens_.empty()) {
    // The last token was drawn and not computed.
    save_session(engine_, batcher_.prefixes(), file, {},
                 std::span<const TokenId>(tokens_).first(tokens_.size() - 1));
  }
}

void Conversation::load_cache(const std::filesystem::path& file) {
  tokens_ = load_session(engine_, batcher_.prefixes(), file, {});
}

void Conversation::load(const std::filesystem::path& file) {
  const std::string name = file.string();
  const std::string text = read_text(name);
  if (text.size() > kMaxSavedBytes) {
    throw_error(ErrorCode::kInvalid, "{}: {} bytes, expected a conversation of at most {}", name,
                text.size(), kMaxSavedBytes);
  }
  const Json saved = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!saved.is_object() || !saved.contains("messages") || !saved["messages"].is_array()) {
    throw_error(ErrorCode::kInvalid, "{}: not a conversation, expected {{\"messages\":[...]}}",
                name);
  }
  std::string system;
  std::vector<ChatMessage> turns;
  for (const Json& object : saved["messages"]) {
    const std::string where = fmt::format("{}: message {}", name, turns.size() + 1);
    ChatMessage message = from_json(object, where);
    if (message.role == "system" && turns.empty()) {
      system = message.content;
      continue;
    }
    const std::string expected = turns.size() % 2 == 0 ? "user" : "assistant";
    if (message.role != expected) {
      throw_error(ErrorCode::kInvalid, "{}: role is '{}', expected '{}'", where, message.role,
                  expected);
    }
    turns.push_back(std::move(message));
  }
  if (turns.size() % 2 != 0) {
    throw_error(ErrorCode::kInvalid, "{}: the last message is the user's, expected an answer",
                name);
  }
  system_ = std::move(system);
  turns_ = std::move(turns);
  tokens_.clear();
}

}  // namespace kogia::cli
