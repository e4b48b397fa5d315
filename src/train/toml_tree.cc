// The one file that sees toml++. Headers alone, not Debian's shared library: one thing less to have
// installed where the program runs, and the limit on nesting is ours.

#include "train/toml_tree.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#define TOML_MAX_NESTED_VALUES 32
#include <toml++/toml.h>

#include "base/error.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;

static_assert(TOML_LIB_MAJOR == 3 && TOML_LIB_MINOR >= 3);

[[noreturn]] void refuse(const std::string& place, std::string_view what, std::string help = {}) {
  throw Error(ErrorCode::kUsage, fmt::format("{}: {}", place, what), std::move(help));
}

/// Keys joined by dots nest without the parser's limit, and its trees are freed by recursion.
void refuse_deep_keys(std::string_view text, const std::string& file) {
  constexpr std::ptrdiff_t kMaxDots = 64;
  for (std::size_t n_line = 1; !text.empty(); ++n_line) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t first = line.find_first_not_of(" \t");
    if (first == std::string_view::npos || line[first] == '#') continue;
    if (std::ranges::count(line, '.') > kMaxDots) {
      refuse(fmt::format("{}:{}", file, n_line), fmt::format("more than {} dots", kMaxDots));
    }
  }
}

// toml++ 3.3 has undefined behaviour where it asks of some characters (é, U+FDF7) whether they are
// white space, and it asks that also where none may stand. Of those behind the last plane's begin
// it knows at once that they are not: so each byte beyond ASCII is shown to it as U+10FF00 plus the
// byte, which are the characters of nobody.
constexpr std::string_view kHidden = "\xF4\x8F";

std::string hide(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out += c;
      continue;
    }
    out += kHidden;
    out += byte < 0xC0 ? '\xBE' : '\xBF';
    out += static_cast<char>(0x80 | (byte & 0x3F));
  }
  return out;
}

std::string show(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!text.substr(i).starts_with(kHidden) || i + 3 >= text.size()) {
      out += text[i];
      continue;
    }
    const int high = text[i + 2] == '\xBE' ? 0x80 : 0xC0;
    out += static_cast<char>(high | (static_cast<unsigned char>(text[i + 3]) & 0x3F));
    i += 3;
  }
  return out;
}

/// Whether an escape names one of the characters that hide() uses.
bool names_hidden(std::string_view text) {
  const auto same = [](char a, char b) { return std::toupper(static_cast<unsigned char>(a)) == b; };
  constexpr std::string_view kEscape = "\\U0010FF";
  return !std::ranges::search(text, kEscape, same).empty();
}

/// Copies toml++'s tree, where keys are sorted, into one in the order of the file.
class Copier {
 public:
  /// `line_of` makes the place of a line.
  Copier(TomlTree& tree, std::function<std::string(std::uint32_t)> line_of)
      : tree_(tree), line_of_(std::move(line_of)) {}

  Json copy(const toml::node& node, const std::string& path, std::uint32_t line) {
    if (node.source().begin.line > 0 && !node.is_table()) line = node.source().begin.line;
    tree_.places[path] = line_of_(line);
    if (const toml::table* table = node.as_table()) return copy_table(*table, path);
    if (const toml::array* array = node.as_array()) return copy_array(*array, path, line);
    if (const auto* x = node.as_string()) return show(x->get());
    if (const auto* x = node.as_integer()) return x->get();
    if (const auto* x = node.as_boolean()) return x->get();
    if (const auto* x = node.as_floating_point()) {
      if (!std::isfinite(x->get())) refuse(tree_.place(path), path + " is not a finite number");
      return x->get();
    }
    refuse(tree_.place(path), path + " is a date or a time; none is expected anywhere",
           "text stands in quotes");
  }

  Json copy_table(const toml::table& table, const std::string& path) {
    using Entry = std::pair<const toml::key*, const toml::node*>;
    std::vector<Entry> entries;
    for (const auto& [key, node] : table) entries.emplace_back(&key, &node);
    std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
      const toml::source_position x = a.first->source().begin, y = b.first->source().begin;
      return x.line != y.line ? x.line < y.line : x.column < y.column;
    });
    Json object = Json::object();
    auto& members = object.get_ref<Json::object_t&>();
    for (const auto& [key, node] : entries) {
      const std::string name = show(key->str()), below = path.empty() ? name : path + "." + name;
      // Keys differ, so nothing needs to look for the same one.
      static_cast<std::vector<Json::object_t::value_type>&>(members).emplace_back(
          name, copy(*node, below, key->source().begin.line));
    }
    return object;
  }

 private:
  Json copy_array(const toml::array& array, const std::string& path, std::uint32_t line) {
    Json list = Json::array();
    for (const toml::node& node : array) {
      const std::string below = fmt::format("{}.{}", path, list.size());
      const std::uint32_t at = node.source().begin.line;
      list.push_back(copy(node, below, at > 0 ? at : line));
    }
    return list;
  }

  TomlTree& tree_;
  std::function<std::string(std::uint32_t)> line_of_;
};

/// The value of "NAME=VALUE" as TOML reads it; nullopt where it is no TOML.
std::optional<toml::table> parse_value(const std::string& value) {
  if (names_hidden(value)) return {};
  try {
    toml::table table = toml::parse("value = " + hide(value));
    if (table.size() == 1 && table.contains("value")) return table;
  } catch (const toml::parse_error&) {
  }
  return {};
}

bool is_utf8(const std::string& text) {
  try {
    (void)Json(text).dump();
  } catch (const Json::exception&) {
    return false;
  }
  return true;
}

bool is_bare_key(std::string_view key) {
  return !key.empty() && std::ranges::all_of(key, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

/// The value that one step of a path leads to; made if it is not there.
Json& step_into(Json& value, const std::string& key, const std::string& place) {
  if (value.is_array()) {
    std::size_t i = 0;
    const auto [rest, status] = std::from_chars(key.data(), key.data() + key.size(), i);
    if (status != std::errc() || rest != key.data() + key.size() || i >= value.size()) {
      refuse(place, fmt::format("'{}' is none of the {} in the list", key, value.size()),
             "they are counted from 0");
    }
    return value[i];
  }
  if (!value.is_object()) refuse(place, fmt::format("'{}' is inside of something single", key));
  return value[key];
}

}  // namespace

TomlTree TomlTree::parse(std::string_view text, std::string file) {
  TomlTree tree;
  tree.file = std::move(file);
  if (text.size() > kMaxBytes) {
    refuse(tree.file, fmt::format("{} bytes, more than the {} that a run file may have",
                                  text.size(), kMaxBytes));
  }
  refuse_deep_keys(text, tree.file);
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (!is_utf8(std::string(text))) refuse(tree.file, "no TOML: it is no UTF-8");
  if (names_hidden(text)) refuse(tree.file, "no characters from U+10FF00 on are read");
  try {
    const toml::table table = toml::parse(hide(text));
    Copier copier(tree, [&](std::uint32_t n) { return fmt::format("{}:{}", tree.file, n); });
    tree.values = copier.copy_table(table, "");
  } catch (const toml::parse_error& error) {
    refuse(fmt::format("{}:{}", tree.file, error.source().begin.line),
           fmt::format("no TOML: {}", show(error.description())));
  }
  return tree;
}

void TomlTree::set(std::string_view assignment) {
  const std::string at = fmt::format("--set {}", assignment);
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    refuse(at, "expected NAME=VALUE", "for example: --set trainer.steps=60");
  }
  const std::string path(assignment.substr(0, equals)), value(assignment.substr(equals + 1));
  refuse_deep_keys(assignment, "--set");
  if (!is_utf8(value)) refuse(at, "the value is no UTF-8");

  Json* target = &values;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    const std::string key = path.substr(begin, end - begin);
    if (!is_bare_key(key)) refuse(at, fmt::format("'{}' is no name of a field", path));
    if (target->is_null()) *target = Json::object();
    target = &step_into(*target, key, at);
    begin = end + 1;
  }
  std::erase_if(places, [&](const auto& entry) {  // what stood there before
    return entry.first.starts_with(path + ".");
  });
  const auto parsed = parse_value(value);
  if (parsed) {
    Copier copier(*this, [&](std::uint32_t) { return at; });
    *target = copier.copy(*parsed->get("value"), path, 1);
    return;
  }
  if (!value.empty() && std::string_view("\"'[{").find(value[0]) != std::string_view::npos) {
    refuse(at, "the value begins like TOML and is none");
  }
  *target = value;
  places[path] = at;
}

std::string TomlTree::place(std::string_view path) const {
  while (!path.empty()) {
    if (const auto found = places.find(path); found != places.end()) return found->second;
    const std::size_t dot = path.rfind('.');
    path = path.substr(0, dot == std::string_view::npos ? 0 : dot);
  }
  return file;
}

std::string toml_key(std::string_view key) {
  return is_bare_key(key) ? std::string(key) : toml_value(Json(key));
}

std::string toml_value(const Json& value) {
  std::string out;
  if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      out += fmt::format("{}{} = {}", out.empty() ? "" : ", ", toml_key(key), toml_value(member));
    }
    return out.empty() ? "{}" : "{ " + out + " }";
  }
  if (value.is_array()) {
    for (const Json& member : value) out += (out.empty() ? "" : ", ") + toml_value(member);
    return "[" + out + "]";
  }
  KOGIA_CHECK(!value.is_null());
  if (value.is_string() && !is_utf8(value.get_ref<const std::string&>())) {
    throw_error(ErrorCode::kInvalid, "text that is no UTF-8 cannot be written as TOML");
  }
  out = value.dump();  // JSON's strings and numbers are TOML's, but for one character
  for (std::size_t at = 0; (at = out.find('\x7f', at)) != std::string::npos;) {
    out.replace(at, 1, "\\u007F");
  }
  return out;
}

}  // namespace kogia
