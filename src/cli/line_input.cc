#include "cli/line_input.h"

#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <utility>

#include <histedit.h>
#include <langinfo.h>

#include "cli/output.h"

namespace kogia::cli {
namespace {

constexpr int kHistoryLines = 1000;

// libedit reads characters of the locale; a machine without one still has C.UTF-8.
void use_utf8_locale() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(::nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

struct LineInput::Editor {
  EditLine* line = nullptr;
  History* history = nullptr;
  std::filesystem::path history_file;
  std::string prompt;
  bool dropped = false;

  explicit Editor(std::filesystem::path file);
  ~Editor();
  std::optional<std::string> read(const std::string& text);
  void remember(const std::string& text);

  // Called by libedit.
  static Editor& of(EditLine* line) {
    void* self = nullptr;
    ::el_get(line, EL_CLIENTDATA, &self);
    return *static_cast<Editor*>(self);
  }
  static char* prompt_of(EditLine* line) { return of(line).prompt.data(); }
  static unsigned char drop_line(EditLine* line, int) {
    of(line).dropped = true;
    std::fputs("^C\n", stdout);
    std::fflush(stdout);
    return CC_NEWLINE;
  }
  static unsigned char ignore(EditLine*, int) { return CC_NORM; }
  static unsigned char suspend(EditLine* line, int) {
    ::el_set(line, EL_PREP_TERM, 0);
    ::raise(SIGTSTP);
    ::el_set(line, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
  }
};

LineInput::Editor::Editor(std::filesystem::path file) : history_file(std::move(file)) {
  use_utf8_locale();
  line = ::el_init("kogia", stdin, stdout, stderr);
  history = ::history_init();
  ::el_set(line, EL_CLIENTDATA, this);
  ::el_set(line, EL_PROMPT, &Editor::prompt_of);
  ::el_set(line, EL_EDITOR, "emacs");
  ::el_set(line, EL_SIGNAL, 1);  // window size, and a sane terminal when killed
  // While a line is typed Ctrl-C and Ctrl-Z are keys like others, not signals.
  ::el_set(line, EL_ADDFN, "kogia-drop-line", "Drop the line", &Editor::drop_line);
  ::el_set(line, EL_BIND, "^C", "kogia-drop-line", nullptr);
  // What a Ctrl-D pressed during an answer leaves behind.
  ::el_set(line, EL_ADDFN, "kogia-ignore", "Nothing", &Editor::ignore);
  ::el_set(line, EL_BIND, "^@", "kogia-ignore", nullptr);
  ::el_set(line, EL_ADDFN, "kogia-suspend", "Suspend", &Editor::suspend);
  ::el_set(line, EL_BIND, "^Z", "kogia-suspend", nullptr);
  ::el_set(line, EL_SETTY, "-d", "-isig", nullptr);
  ::el_set(line, EL_BIND, "^I", "ed-insert", nullptr);
  ::el_set(line, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  HistEvent event;
  ::history(history, &event, H_SETSIZE, kHistoryLines);
  ::history(history, &event, H_SETUNIQUE, 1);
  if (!history_file.empty()) ::history(history, &event, H_LOAD, history_file.c_str());
  ::el_set(line, EL_HIST, ::history, history);
  ::el_source(line, nullptr);  // ~/.editrc
}

LineInput::Editor::~Editor() {
  HistEvent event;
  std::error_code ignored;
  if (!history_file.empty()) {
    // A history that cannot be kept is no reason to fail.
    std::filesystem::create_directories(history_file.parent_path(), ignored);
    ::history(history, &event, H_SAVE, history_file.c_str());
  }
  ::history_end(history);
  ::el_end(line);
}

std::optional<std::string> LineInput::Editor::read(const std::string& text) {
  prompt = text;
  dropped = false;
  int n = 0;
  // libedit shows its prompt before it switches the terminal to its own mode; a Ctrl-D between the
  // two would become a NUL in the line.
  ::el_set(line, EL_PREP_TERM, 1);
  const char* typed = ::el_gets(line, &n);
  if (dropped) return std::string();
  if (typed == nullptr || n <= 0) return {};
  std::string result(typed, static_cast<std::size_t>(n));
  while (!result.empty() && (result.back() == '\n' || result.back() == '\r')) result.pop_back();
  return result;
}

void LineInput::Editor::remember(const std::string& text) {
  std::string one_line = text;
  for (char& c : one_line) c = c == '\n' ? ' ' : c;
  HistEvent event;
  ::history(history, &event, H_ENTER, one_line.c_str());
}

LineInput::LineInput(std::filesystem::path history) {
  if (in_is_terminal() && out_is_terminal()) {
    editor_ = std::make_unique<Editor>(std::move(history));
  }
}
LineInput::~LineInput() = default;

std::optional<std::string> LineInput::read(const std::string& prompt, bool& dropped) {
  dropped = false;
  if (editor_) {
    auto line = editor_->read(prompt);
    dropped = editor_->dropped;
    return line;
  }
  std::string line;
  if (!std::getline(std::cin, line)) return {};
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return line;
}

void LineInput::remember(const std::string& line) {
  if (editor_ && !line.empty()) editor_->remember(line);
}

std::filesystem::path history_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state != '\0')
    return std::filesystem::path(state) / "kogia/chat_history";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return {};
  return std::filesystem::path(home) / ".local/state/kogia/chat_history";
}

}  // namespace kogia::cli
