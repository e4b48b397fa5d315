// The text of --help, from a command's table.

#include <fmt/format.h>

#include "cli/command_line.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

constexpr std::size_t kHelpColumn = 30, kWidth = 96;

void add_entry(std::string& out, const std::string& left, const std::string& help) {
  std::string line = "  " + left;
  if (line.size() + 2 > kHelpColumn) {
    out += line + "\n";
    line.clear();
  }
  line.resize(kHelpColumn, ' ');
  out += line + wrap(help, kWidth - kHelpColumn, kHelpColumn) + "\n";
}

std::string left_column(const OptionRow& row) {
  std::string flags = row.flags;
  for (std::size_t at = 0; (at = flags.find(',', at)) != std::string::npos; at += 2) {
    flags.replace(at, 1, ", ");
  }
  return row.value.empty() ? flags : flags + " " + row.value;
}

}  // namespace

bool is_required(const Positional& p) {
  return !std::holds_alternative<std::optional<std::string>*>(p.target);
}

std::string help_text(const CommandLine& line) {
  std::string usage = "usage: kogia " + line.name;
  for (const Positional& p : line.positionals) {
    usage += is_required(p) ? " " + p.name : " [" + p.name + "]";
    if (std::holds_alternative<std::vector<std::string>*>(p.target)) usage += "...";
  }
  std::string out = usage + " [FLAG...]\n\n" + wrap(line.summary, kWidth, 0) + "\n";
  if (!line.positionals.empty()) out += "\nArguments\n";
  for (const Positional& p : line.positionals) add_entry(out, p.name, p.help);
  for (const OptionGroup& group : line.groups) {
    out += "\n" + group.title + "\n";
    std::string unexplained;  // in one paragraph: their meaning is told elsewhere
    for (const OptionRow& row : group.rows) {
      if (row.help.empty()) {
        const std::string flag = row.flags.substr(0, row.flags.find(','));
        unexplained += fmt::format("{}{}", unexplained.empty() ? "" : ", ", flag);
      } else {
        add_entry(out, left_column(row), row.help);
      }
    }
    if (!unexplained.empty()) out += fmt::format("  {}\n", wrap(unexplained, kWidth - 2, 2));
  }
  out += "\n  --help, -h                  this text\n";
  out += line.examples.size() > 1 ? "\nExamples\n" : "\nExample\n";
  for (const std::string& example : line.examples) out += "  " + example + "\n";
  return out;
}

}  // namespace kogia::cli
