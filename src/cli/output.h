#pragma once
// Standard output for results, standard error for everything else.

#include <cstddef>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/progress.h"

namespace kogia::cli {

/// Writes to standard output and flushes. Throws Error where it cannot (a full disk, a closed
/// pipe).
void write_out(std::string_view text);
/// A line for people on standard error, dimmed on a terminal.
void write_note(std::string_view text);
/// One JSON object on a line of its own. Numbers that JSON does not have become null, bytes that
/// are no UTF-8 become U+FFFD.
void write_json(const nlohmann::ordered_json& object);

bool out_is_terminal();
bool in_is_terminal();
bool err_is_terminal();

/// Control characters other than line breaks and tabs become U+FFFD, so that what a file or a model
/// says cannot command the terminal.
std::string printable(std::string_view text);

/// Prints "error: …" and "help: …" on standard error and returns the exit code.
int report(const std::exception& error, std::string_view default_help);

/// Breaks lines at spaces; all but the first are indented.
std::string wrap(std::string_view text, std::size_t width, std::size_t indent);

/// 1234567 as "1,234,567".
std::string with_commas(long long n);
/// "1 token", "2 tokens", "1,234 tokens".
std::string counted(long long n, std::string_view noun);
/// 671026419200 as "671.0B", 134515008 as "134.5M".
std::string short_count(long long n);

/// "3 f32, 210 q8_0".
std::string counted_types(const std::map<std::string, Index>& tensors);

/// Draws bytes of a total, from the first call on, in a bar that the caller keeps.
std::function<void(Index done, Index total)> shown_bytes(std::optional<Progress>& progress,
                                                         std::string what);

bool is_utf8(std::string_view text);

}  // namespace kogia::cli
