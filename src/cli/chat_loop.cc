#include "cli/chat_loop.h"

#include <charconv>

#include <nlohmann/json.hpp>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "cli/answer_printer.h"
#include "cli/command_line.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

constexpr std::string_view kBlock = "\"\"\"";

std::string trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

const std::string& required(const std::string& argument, std::string_view what) {
  if (argument.empty()) throw_error(ErrorCode::kUsage, "{} is missing after the command", what);
  return argument;
}

double number_of(const std::string& argument, std::string_view name) {
  const auto value = parse_double(required(argument, "a number"));
  if (!value) throw_error(ErrorCode::kUsage, "{} is '{}', expected a number", name, argument);
  return *value;
}
Index index_of(const std::string& argument, std::string_view name) {
  const auto value = parse_index(required(argument, "a number"));
  if (!value) throw_error(ErrorCode::kUsage, "{} is '{}', expected a whole number", name, argument);
  return *value;
}

}  // namespace

ChatLoop::ChatLoop(Conversation& conversation, ChatLoopOptions options)
    : chat_(conversation),
      options_(options),
      input_(options.keep_history ? history_path() : std::filesystem::path()) {}

const std::vector<ChatLoop::SlashCommand>& ChatLoop::commands() {
  static const std::vector<SlashCommand> table{
      {"/help", "", "this list", &ChatLoop::help},
      {"/system", "[TEXT]", "sets the system message and begins anew; alone: shows it",
       &ChatLoop::system},
      {"/reset", "", "begins anew; the system message stays", &ChatLoop::reset},
      {"/regenerate", "", "draws another answer to the last question", &ChatLoop::regenerate},
      {"/temperature", "[X]", "0: the likeliest token each time; alone: shows it",
       &ChatLoop::temperature},
      {"/top-p", "X", "only the likeliest tokens that reach this probability", &ChatLoop::top_p},
      {"/top-k", "N", "only the N likeliest tokens; 0: off", &ChatLoop::top_k},
      {"/min-p", "X", "only tokens with this share of the likeliest one's probability",
       &ChatLoop::min_p},
      {"/seed", "[N]", "the same seed, the same answer; alone: shows it", &ChatLoop::seed},
      {"/max-tokens", "N", "tokens of an answer at most; -1: no limit", &ChatLoop::max_tokens},
      {"/tokens", "", "how full the context is", &ChatLoop::tokens},
      {"/save", "FILE", "writes the conversation as JSON", &ChatLoop::save},
      {"/load", "FILE", "goes on with a saved conversation", &ChatLoop::load},
      {"/quit", "", "leaves (Ctrl-D too)", &ChatLoop::quit},
  };
  return table;
}

void ChatLoop::run() {
  while (!done_) {
    bool dropped = false;
    const auto turn = read_turn(dropped);
    if (dropped) continue;
    if (!turn) break;
    try {
      take(*turn);
    } catch (const Error& error) {
      if (!input_.is_terminal() || error.code() == ErrorCode::kBrokenOutput) throw;
      report(error, {});
    }
  }
  if (input_.is_terminal() && !done_) write_out("\n");
}

// One turn: a line, lines that end in a backslash, or what stands between lines of """.
std::optional<std::string> ChatLoop::read_turn(bool& dropped) {
  std::string turn;
  while (true) {
    auto line = input_.read(turn.empty() ? "> " : ". ", dropped);
    if (dropped) return {};
    if (!line) return turn.empty() ? std::nullopt : std::optional(turn);
    if (turn.empty() && trim(*line) == kBlock) return read_block(dropped);
    if (line->empty() || line->back() != '\\') {
      turn += *line;
      input_.remember(turn);
      return turn;
    }
    line->back() = '\n';
    turn += *line;
  }
}

std::optional<std::string> ChatLoop::read_block(bool& dropped) {
  std::string turn;
  while (true) {
    const auto line = input_.read(". ", dropped);
    if (dropped) return {};
    if (!line || trim(*line) == kBlock) break;
    turn += (turn.empty() ? "" : "\n") + *line;
  }
  input_.remember(turn);
  return turn;
}

void ChatLoop::take(const std::string& turn) {
  if (trim(turn).empty()) return;
  if (turn[0] == '/') return obey(turn);
  // A blank in front makes text of what would be a command.
  const std::string text = turn.starts_with(" /") ? turn.substr(1) : turn;
  answer([&](const GenerateEvents& events) { return chat_.ask(text, events); });
}

void ChatLoop::obey(const std::string& line) {
  const std::size_t space = line.find_first_of(" \t\n");
  const std::string name = line.substr(0, space);
  const std::string argument = space == std::string::npos ? "" : trim(line.substr(space));
  std::vector<std::string> names;
  for (const SlashCommand& command : commands()) {
    if (command.name == name || (name == "/exit" && command.name == "/quit")) {
      return (this->*command.action)(argument);
    }
    names.push_back(command.name);
  }
  const auto meant = did_you_mean(name, names);
  throw Error(ErrorCode::kUsage, fmt::format("the chat has no command '{}'", name),
              meant ? fmt::format("did you mean {}?", *meant)
                    : "/help lists them; a text that begins with / needs a blank before it");
}

template <class Ask>
void ChatLoop::answer(Ask&& ask) {
  AnswerPrinter printer(out_is_terminal());
  PrefillProgress progress(options_.quiet);
  GenerateEvents events;
  events.on_prefill = [&](Index done, Index total) { progress(done, total); };
  if (!options_.json) events.on_piece = [&](const GeneratedPiece& piece) { printer.print(piece); };
  const Generation g = ask(events);
  progress.finish();  // Ctrl-C may have come before the end of the prompt
  if (options_.json) return print_json(g);
  printer.finish();
  if (g.finish_reason == FinishReason::kInterrupted && g.content.empty()) {
    write_note("[stopped before an answer; the question is forgotten]");
  } else if (g.n_prompt + static_cast<Index>(g.ids.size()) >= chat_.engine().ctx()) {
    write_note(
        fmt::format("[the context of {} tokens is full: /reset begins anew, --ctx N at the start "
                    "gives more room]",
                    chat_.engine().ctx()));
  }
  if (input_.is_terminal() && !options_.quiet) write_note(fmt::format("[{}]\n", speed_line(g)));
}

void ChatLoop::print_json(const Generation& g) {
  nlohmann::ordered_json object;
  object["text"] = g.content;
  if (!g.reasoning.empty()) object["reasoning"] = g.reasoning;
  object["finish_reason"] = name(g.finish_reason);
  object["prompt_tokens"] = g.n_prompt;
  object["computed_tokens"] = g.n_prompt_computed;
  object["completion_tokens"] = g.ids.size();
  object["prefill_s"] = g.prefill_s;
  object["decode_s"] = g.decode_s;
  write_json(object);
}

void ChatLoop::help(const std::string&) {
  std::string out;
  for (const SlashCommand& command : commands()) {
    out += fmt::format("{:<22}{}\n", command.name + " " + command.argument, command.help);
  }
  write_note(
      out +
      "A line that ends in \\ goes on. A line of \"\"\" begins and ends a text of several lines.\n"
      "Ctrl-C stops an answer, Ctrl-D leaves, up-arrow brings back what you typed.");
}

void ChatLoop::system(const std::string& text) {
  if (text.empty()) {
    return write_note(chat_.system().empty() ? "no system message"
                                             : "system: " + printable(chat_.system()));
  }
  chat_.set_system(text);
  write_note("system message set, conversation begun anew");
}

void ChatLoop::reset(const std::string&) {
  chat_.reset();
  write_note("conversation begun anew");
}

void ChatLoop::regenerate(const std::string&) {
  answer([&](const GenerateEvents& events) { return chat_.regenerate(events); });
}

void ChatLoop::temperature(const std::string& text) {
  SamplingParams params = chat_.options().sampling;
  if (!text.empty()) params.temperature = number_of(text, "/temperature");
  validate(params);
  chat_.options().sampling = params;
  write_note(fmt::format("temperature {}", params.temperature));
}

void ChatLoop::top_p(const std::string& text) {
  SamplingParams params = chat_.options().sampling;
  params.top_p = number_of(text, "/top-p");
  validate(params);
  chat_.options().sampling = params;
}

void ChatLoop::top_k(const std::string& text) {
  SamplingParams params = chat_.options().sampling;
  params.top_k = index_of(text, "/top-k");
  validate(params);
  chat_.options().sampling = params;
}

void ChatLoop::min_p(const std::string& text) {
  SamplingParams params = chat_.options().sampling;
  params.min_p = number_of(text, "/min-p");
  validate(params);
  chat_.options().sampling = params;
}

void ChatLoop::seed(const std::string& text) {
  std::uint64_t& seed = chat_.options().sampling.seed;
  if (!text.empty()) {
    std::uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [rest, status] = std::from_chars(text.data(), end, value);
    if (status != std::errc() || rest != end) {
      throw_error(ErrorCode::kUsage, "/seed is '{}', expected a whole number from 0 to 2^64 - 1",
                  text);
    }
    seed = value;
  }
  write_note(fmt::format("seed {}", seed));
}

void ChatLoop::max_tokens(const std::string& text) {
  const Index n = index_of(text, "/max-tokens");
  if (n < -1) throw_error(ErrorCode::kUsage, "/max-tokens is {}, expected -1 or more", n);
  chat_.options().max_tokens = n;
}

void ChatLoop::tokens(const std::string&) {
  write_note(fmt::format("{} of {}, {}", with_commas(chat_.n_tokens()),
                         counted(chat_.engine().ctx(), "token"), n_messages()));
}

std::string ChatLoop::n_messages() const {
  return counted(static_cast<Index>(chat_.turns().size()), "message");
}

void ChatLoop::save(const std::string& file) {
  chat_.save(required(file, "a file name"));
  write_note(fmt::format("{} written to {}", n_messages(), printable(file)));
}

void ChatLoop::load(const std::string& file) {
  chat_.load(required(file, "a file name"));
  write_note(fmt::format("{} read from {}", n_messages(), printable(file)));
}

}  // namespace kogia::cli
