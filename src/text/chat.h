#pragma once
// Conversations to token ids: the published Jinja template, rendered exactly as transformers
// renders it.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace kogia {

struct ChatMessage {
  std::string role;  // system, user, assistant, tool
  std::string content;
  /// Everything else of an OpenAI-style message (tool_calls, name, reasoning_content, …) as a JSON
  /// object; empty or "{}" for none. A key `content` inside wins over the field above (so null
  /// stays null).
  std::string extra_json;
};

struct ChatOptions {
  bool add_generation_prompt = true;
  std::string tools_json;   // JSON array, or empty
  std::string kwargs_json;  // further template variables (enable_thinking, thinking, …), or empty
  /// What the template may write, besides 16 times the messages: what a model could never read need
  /// not be made.
  std::size_t max_bytes = std::size_t{16} << 20;
};

/// What the prompt became: ids with control tokens only where the template itself wrote them.
struct RenderedChat {
  std::string text;          // as transformers' apply_chat_template(tokenize=False) gives it
  std::vector<TokenId> ids;  // no special tokens added beyond the template's own
  std::vector<std::string> warnings;  // e.g. tool calls that the published template drops
};

/// Immutable; safe to share between threads.
/// Errors: a template that does not parse or that raises throws Error with the template's line.
class ChatTemplate {
 public:
  /// `tokenizer` gives bos/eos texts and must outlive the template.
  static std::unique_ptr<ChatTemplate> create(std::string source, const Tokenizer& tokenizer,
                                              std::string bos_token, std::string eos_token);
  virtual ~ChatTemplate() = default;
  virtual RenderedChat render(std::span<const ChatMessage> messages,
                              const ChatOptions& options) const = 0;
};

/// Where the template text lies: chat_template.jinja, else `chat_template` of tokenizer_config.json
/// (a string, or a list of named ones: "default" is taken). Empty if there is none.
std::string find_chat_template(std::string_view jinja_file, std::string_view tokenizer_config_json);

/// Splits what a reasoning model says into the thought and the answer, by token where <think> and
/// </think> are tokens and by text otherwise; never emits fragments of a tag. Line breaks right
/// after <think>, right before </think> and after </think> are trimmed, the same streamed or not.
class ReasoningParser {
 public:
  struct Piece {
    std::string reasoning, content;
  };
  /// The start state comes from the end of the rendered prompt: open iff its last <think> is not
  /// closed.
  ReasoningParser(const Tokenizer& tokenizer, std::span<const TokenId> prompt);
  Piece push(TokenId id);
  Piece finish();
  bool in_reasoning() const { return in_reasoning_; }

 private:
  bool in_reasoning_ = false;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace kogia
