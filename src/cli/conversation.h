#pragma once
// The state of a chat: what was said, how answers are drawn, and the batcher that has it cached.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "infer/batcher.h"
#include "infer/engine.h"
#include "infer/generate.h"

namespace kogia::cli {

/// Turns are user and assistant messages by turns; the system message stands apart.
class Conversation {
 public:
  Conversation(Engine& engine, BatcherOptions batching, GenerateOptions options,
               std::string system);

  /// Asks and remembers both sides. What Ctrl-C cut short is kept as far as it came; without a word
  /// of answer the question is forgotten too. Throws Error (usage) where the conversation no longer
  /// fits the context; then nothing has changed.
  Generation ask(const std::string& text, const GenerateEvents& events);
  /// Drops the last answer and draws another for the same question: the same seed, the next sample.
  /// Throws Error (usage) where there is none.
  Generation regenerate(const GenerateEvents& events);

  void set_system(std::string text);  // begins anew
  void reset();
  /// Messages as an OpenAI-style JSON object {"messages":[...]}.
  void save(const std::filesystem::path& file) const;
  /// Replaces the conversation. Errors name the file and what is wrong; then nothing has changed.
  void load(const std::filesystem::path& file);
  /// What is cached of the conversation, beside its messages: it would be computed again without.
  /// Errors as those of infer/session_pages.h. An empty conversation removes the file; one to which
  /// nothing was said since load() leaves it as it is.
  void save_cache(const std::filesystem::path& file);
  void load_cache(const std::filesystem::path& file);

  GenerateOptions& options() { return options_; }
  Engine& engine() const { return engine_; }
  const std::vector<ChatMessage>& turns() const { return turns_; }
  const std::string& system() const { return system_; }
  /// Prompt and answer of the last turn, in tokens.
  Index n_tokens() const { return static_cast<Index>(tokens_.size()); }

 private:
  Generation answer(const std::vector<ChatMessage>& asked, const GenerateEvents& events);

  Engine& engine_;
  Batcher batcher_;
  GenerateOptions options_;
  std::string system_;
  std::vector<ChatMessage> turns_;
  std::vector<TokenId> tokens_;
};

}  // namespace kogia::cli
