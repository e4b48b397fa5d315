#pragma once
// Reads turns and commands of a chat and answers them.

#include <optional>
#include <string>
#include <vector>

#include "cli/conversation.h"
#include "cli/line_input.h"

namespace kogia::cli {

struct ChatLoopOptions {
  bool json = false, quiet = false, keep_history = true;
};

class ChatLoop {
 public:
  ChatLoop(Conversation& conversation, ChatLoopOptions options);
  /// Until Ctrl-D, the end of input, or /quit. An Error ends a turn, not the chat, on a terminal;
  /// elsewhere it is thrown on.
  void run();

 private:
  struct SlashCommand {
    std::string name, argument, help;
    void (ChatLoop::*action)(const std::string& argument);
  };
  static const std::vector<SlashCommand>& commands();

  std::optional<std::string> read_turn(bool& dropped);
  std::optional<std::string> read_block(bool& dropped);
  void take(const std::string& turn);
  void obey(const std::string& line);
  template <class Ask>
  void answer(Ask&& ask);
  void print_json(const Generation& generation);
  std::string n_messages() const;

  void help(const std::string&);
  void system(const std::string& text);
  void reset(const std::string&);
  void regenerate(const std::string&);
  void temperature(const std::string& text);
  void top_p(const std::string& text);
  void top_k(const std::string& text);
  void min_p(const std::string& text);
  void seed(const std::string& text);
  void max_tokens(const std::string& text);
  void tokens(const std::string&);
  void save(const std::string& file);
  void load(const std::string& file);
  void quit(const std::string&) { done_ = true; }

  Conversation& chat_;
  ChatLoopOptions options_;
  LineInput input_;
  bool done_ = false;
};

}  // namespace kogia::cli
