#include "cli/draft_report.h"

#include <fmt/format.h>

#include "cli/output.h"

namespace kogia::cli {
namespace {

std::string shares(const std::vector<DraftCount>& at) {
  constexpr std::size_t kMost = 4;
  if (at.empty() || at.size() > kMost) return {};
  std::string text;
  for (const auto& [n_drafted, n_accepted] : at) {
    text += fmt::format("{}{:.0f}", text.empty() ? " (" : ", ",
                        100 * static_cast<double>(n_accepted) / static_cast<double>(n_drafted));
  }
  return text + " %)";
}

}  // namespace

void add_drafts(nlohmann::ordered_json& object, const DraftStats& drafts) {
  object["drafted"] = drafts.all.n_drafted;
  object["accepted"] = drafts.all.n_accepted;
  object["steps"] = drafts.n_steps;
  auto drafted = nlohmann::ordered_json::array(), accepted = drafted;
  for (const DraftCount& at : drafts.at) {
    drafted.push_back(at.n_drafted);
    accepted.push_back(at.n_accepted);
  }
  object["drafted_at"] = std::move(drafted);
  object["accepted_at"] = std::move(accepted);
}

std::string draft_line(const DraftStats& drafts, Index n_tokens) {
  if (drafts.all.n_drafted == 0) return {};
  return fmt::format("{} of {} accepted{}, {:.2f} tokens a step",
                     with_commas(drafts.all.n_accepted), counted(drafts.all.n_drafted, "draft"),
                     shares(drafts.at),
                     static_cast<double>(n_tokens) / static_cast<double>(drafts.n_steps));
}

}  // namespace kogia::cli
