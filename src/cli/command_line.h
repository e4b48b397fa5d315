#pragma once
// One table describes a command: the parser, --help and the error messages are made from it.

#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/index.h"

namespace kogia::cli {

/// Where a value goes. A bool is a switch; a vector of words takes the flag as often as it is
/// given; of all others the last one counts. A vector of numbers is one value with commas in it:
/// "32,512".
using Target = std::variant<bool*, Index*, std::optional<Index>*, double*, std::optional<double>*,
                            std::uint64_t*, std::string*, std::optional<std::string>*,
                            std::vector<std::string>*, std::vector<Index>*>;

struct OptionRow {
  std::string flags;  // "--output,-o": the first is the one in messages
  std::string value;  // what stands for the value in --help: "N"; empty for a switch
  std::string help;
  Target target;
  /// Numbers outside are refused by name.
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};  // words that are allowed; empty: any
};

struct Positional {
  std::string name;  // "MODEL"
  std::string help;
  /// std::string*: must be given; std::optional<std::string>*: may be left out;
  /// std::vector<std::string>*, of the last one: all words that are left, at least one
  Target target;
};
bool is_required(const Positional& positional);

struct OptionGroup {
  std::string title;  // "Sampling"
  std::vector<OptionRow> rows;
};

struct CommandLine {
  std::string name;     // "run"
  std::string summary;  // a sentence or more, wrapped when printed
  std::vector<Positional> positionals;
  std::vector<OptionGroup> groups;
  std::vector<std::string> examples;  // whole command lines
};

using Arguments = std::span<const std::string>;  // what follows the command's name

/// Fills the targets. Returns false where --help was asked for and has been printed: then the
/// command has nothing more to do. Throws Error (usage) that names the flag, what was found and
/// what was expected.
[[nodiscard]] bool parse(const CommandLine& line, Arguments arguments);

/// The text of --help.
std::string help_text(const CommandLine& line);

// Numbers as people write them on a command line; nothing may follow them.
std::optional<Index> parse_index(std::string_view text);
std::optional<double> parse_double(std::string_view text);

}  // namespace kogia::cli
