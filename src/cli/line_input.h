#pragma once
// Lines from a person or from a pipe.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace kogia::cli {

/// Line editing and history (libedit) where standard input is a terminal, plain lines elsewhere.
/// Ctrl-C drops the line that is being typed; Ctrl-D on an empty line ends the input.
class LineInput {
 public:
  /// `history` is read now and written at the end; empty: none is kept.
  explicit LineInput(std::filesystem::path history);
  ~LineInput();
  LineInput(const LineInput&) = delete;
  LineInput& operator=(const LineInput&) = delete;

  /// Without the line break; nullopt at the end of the input. `dropped` tells of a Ctrl-C.
  std::optional<std::string> read(const std::string& prompt, bool& dropped);
  /// What up-arrow brings back. A text of several lines becomes one.
  void remember(const std::string& line);
  bool is_terminal() const { return editor_ != nullptr; }

 private:
  struct Editor;
  std::unique_ptr<Editor> editor_;
};

/// ${XDG_STATE_HOME:-~/.local/state}/kogia/chat_history; empty where there is no home.
std::filesystem::path history_path();

}  // namespace kogia::cli
