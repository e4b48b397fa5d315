#pragma once
// What somebody meant to type.

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kogia {

/// The closest of `candidates` if it is close enough to be a slip of the fingers.
std::optional<std::string> did_you_mean(std::string_view word,
                                        std::span<const std::string> candidates);

}  // namespace kogia
