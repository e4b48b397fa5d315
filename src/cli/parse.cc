// The one file that sees CLI11, whose headers are slow to compile. CLI11 takes the command line
// apart (--flag value, --flag=value, --); values are read and refused here, with our own sentences.

#include <algorithm>
#include <charconv>
#include <cmath>

#include <CLI/CLI.hpp>
#include <fmt/ranges.h>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "cli/command_line.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

std::string main_flag(const OptionRow& row) { return row.flags.substr(0, row.flags.find(',')); }

template <class... Args>
[[noreturn]] void usage_error(const std::string& help, fmt::format_string<Args...> format,
                              Args&&... args) {
  throw Error(ErrorCode::kUsage, fmt::format(format, std::forward<Args>(args)...), help);
}

std::string range_words(const OptionRow& row) {
  const bool low = std::isfinite(row.low), high = std::isfinite(row.high);
  if (low && high) return fmt::format(" from {} to {}", row.low, row.high);
  if (low) return fmt::format(" of {} or more", row.low);
  return {};
}

// Reads one value into the target that a row holds.
class Reader {
 public:
  Reader(const OptionRow& row, const std::string& text) : row_(row), text_(text) {}

  void operator()(bool*) const {}  // switches have no value
  void operator()(Index* target) const { *target = index(); }
  void operator()(std::optional<Index>* target) const { *target = index(); }
  void operator()(double* target) const { *target = number(); }
  void operator()(std::optional<double>* target) const { *target = number(); }
  void operator()(std::string* target) const { *target = word(); }
  void operator()(std::optional<std::string>* target) const { *target = word(); }
  void operator()(std::vector<std::string>* target) const { target->push_back(word()); }
  void operator()(std::vector<Index>* target) const {
    std::vector<Index> values;
    for (std::size_t begin = 0; begin <= text_.size();) {
      const std::size_t end = std::min(text_.find(',', begin), text_.size());
      const auto value = parse_index(std::string_view(text_).substr(begin, end - begin));
      if (!value) refuse(list_words());
      check_range(static_cast<double>(*value), list_words());
      values.push_back(*value);
      begin = end + 1;
    }
    *target = std::move(values);
  }
  void operator()(std::uint64_t* target) const {
    const char* end = text_.data() + text_.size();
    const auto [rest, status] = std::from_chars(text_.data(), end, *target);
    if (status != std::errc() || rest != end) refuse("a whole number from 0 to 2^64 - 1");
  }

 private:
  [[noreturn]] void refuse(const std::string& expected) const {
    usage_error({}, "{} is '{}', expected {}", main_flag(row_), text_, expected);
  }
  void check_range(double value, const std::string& expected) const {
    if (!(value >= row_.low && value <= row_.high)) refuse(expected);
  }
  Index index() const {
    const std::string expected = "a whole number" + range_words(row_);
    const auto value = parse_index(text_);
    if (!value) refuse(expected);
    check_range(static_cast<double>(*value), expected);
    return *value;
  }
  double number() const {
    const std::string expected = "a number" + range_words(row_);
    const auto value = parse_double(text_);
    if (!value) refuse(expected);
    check_range(*value, expected);
    return *value;
  }
  std::string list_words() const {
    return "whole numbers" + range_words(row_) + " with single commas between";
  }
  const std::string& word() const {
    if (!row_.choices.empty() && std::ranges::find(row_.choices, text_) == row_.choices.end()) {
      refuse(fmt::format("{}", fmt::join(row_.choices, ", ")));
    }
    return text_;
  }

  const OptionRow& row_;
  const std::string& text_;
};

void add_row(CLI::App& app, const OptionRow& row) {
  if (bool* const* on = std::get_if<bool*>(&row.target)) {
    app.add_flag_callback(row.flags, [target = *on] { *target = true; });
    return;
  }
  CLI::Option* option = app.add_option(row.flags, [&row](const CLI::results_t& values) {
    for (const std::string& value : values) std::visit(Reader(row, value), row.target);
    return true;
  });
  option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  option->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args(false);
}

// CLI11 tells flags from words; what it could not place is left over in order.
std::vector<std::string> take_apart(const CommandLine& line, Arguments arguments) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  for (const OptionGroup& group : line.groups) {
    for (const OptionRow& row : group.rows) add_row(app, row);
  }
  std::vector<std::string> reversed;
  for (const std::string& word : arguments) {
    if (word.starts_with("--") && word.ends_with('=')) {  // CLI11 knows no empty value in this form
      reversed.push_back(word.substr(0, word.size() - 1));
      reversed.emplace_back();
    } else {
      reversed.push_back(word);
    }
  }
  std::ranges::reverse(reversed);
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ArgumentMismatch&) {
    usage_error({}, "{} needs a value after it", arguments.back());
  } catch (const CLI::ParseError& error) {
    usage_error({}, "{}", error.what());
  }
  return app.remaining();
}

std::vector<std::string> all_flags(const CommandLine& line) {
  std::vector<std::string> flags{"--help"};
  for (const OptionGroup& group : line.groups) {
    for (const OptionRow& row : group.rows) flags.push_back(main_flag(row));
  }
  return flags;
}

[[noreturn]] void refuse_flag(const CommandLine& line, const std::string& word) {
  const std::string flag = word.substr(0, word.find('='));
  const auto meant = did_you_mean(flag, all_flags(line));
  usage_error(meant ? fmt::format("did you mean {}?", *meant)
                    : fmt::format("`kogia {} --help` lists its flags; put -- before text that "
                                  "begins with a dash",
                                  line.name),
              "kogia {} has no flag '{}'", line.name, flag);
}

bool takes_many(const Positional& p) {
  return std::holds_alternative<std::vector<std::string>*>(p.target);
}

void place_words(const CommandLine& line, const std::vector<std::string>& words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    // A list takes all that is left.
    const bool rest = i >= line.positionals.size() && !line.positionals.empty() &&
                      takes_many(line.positionals.back());
    if (i >= line.positionals.size() && !rest) {
      usage_error("put quotes around a text that holds spaces",
                  "kogia {} takes {} argument{}, found one more: '{}'", line.name,
                  line.positionals.size(), line.positionals.size() == 1 ? "" : "s", words[i]);
    }
    const Positional& place = rest ? line.positionals.back() : line.positionals[i];
    const OptionRow row{.flags = place.name, .value = {}, .help = {}, .target = place.target};
    std::visit(Reader(row, words[i]), row.target);
  }
  for (std::size_t i = words.size(); i < line.positionals.size(); ++i) {
    const Positional& missing = line.positionals[i];
    if (!is_required(missing)) continue;
    usage_error(line.examples.empty() ? std::string() : "for example: " + line.examples[0],
                "kogia {} needs {}: {}", line.name, missing.name, missing.help);
  }
}

}  // namespace

bool parse(const CommandLine& line, Arguments arguments) {
  // What follows -- is words only; CLI11 would hand flags and words back mixed.
  const auto dashes = std::ranges::find(arguments, "--");
  const Arguments before(arguments.begin(), dashes);
  if (std::ranges::find(before, "--help") != before.end() ||
      std::ranges::find(before, "-h") != before.end()) {
    write_out(help_text(line));
    return false;
  }
  std::vector<std::string> words;
  for (const std::string& word : take_apart(line, before)) {
    if (word.size() > 1 && word[0] == '-') refuse_flag(line, word);
    words.push_back(word);
  }
  if (dashes != arguments.end()) words.insert(words.end(), dashes + 1, arguments.end());
  place_words(line, words);
  return true;
}

std::optional<Index> parse_index(std::string_view text) {
  Index value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, status] = std::from_chars(text.data(), end, value);
  if (text.empty() || status != std::errc() || rest != end) return {};
  return value;
}

std::optional<double> parse_double(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, status] = std::from_chars(text.data(), end, value);
  if (text.empty() || status != std::errc() || rest != end || !std::isfinite(value)) return {};
  return value;
}

}  // namespace kogia::cli
