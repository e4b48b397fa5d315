#pragma once
// How guesses at tokens went, for people and for programs.

#include <string>

#include <nlohmann/json.hpp>

#include "infer/generate.h"

namespace kogia::cli {

/// "drafted", "accepted", "steps", and the first two of each place in a step.
void add_drafts(nlohmann::ordered_json& object, const DraftStats& drafts);

/// "61 of 80 drafts accepted (82, 71 %), 2.41 tokens a step": shares of the first, the second … of
/// a step, where they are few. Empty where nothing was drafted.
std::string draft_line(const DraftStats& drafts, Index n_tokens);

}  // namespace kogia::cli
