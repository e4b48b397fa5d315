// Prompt lookup: what followed the same words before may follow them again. Texts that are edited,
// quoted, continued as a list or summed up repeat their prompt for long stretches.

#include <algorithm>

#include "infer/draft_governor.h"
#include "infer/drafter.h"
#include "infer/ngram_index.h"

namespace kogia {
namespace {

constexpr Index kMostDrafts = 32;

class PromptLookup final : public Drafter {
 public:
  explicit PromptLookup(std::shared_ptr<DraftExperience> experience)
      : experience_(experience), governor_(std::move(experience)) {}

  std::vector<TokenId> propose(std::span<const TokenId> tokens, Index max_tokens) override {
    compare_guess(tokens);
    guess(tokens);
    if (guess_.empty()) return {};
    std::vector<double> chances;
    for (Index j = 0; j < std::min(max_tokens, kMostDrafts); ++j) {
      chances.push_back(chances_.chance(match_length_ + j, &experience_->chances));
    }
    const Index n = governor_.choose(chances);
    return {guess_.begin(), guess_.begin() + n};
  }

  void record(Index n_drafted, Index n_accepted, Index n_rows, double seconds) override {
    governor_.record(n_drafted, n_accepted, n_rows, seconds);
  }

 private:
  // Each token that came tells of the guess at it, whether that was sent as a draft or not.
  void compare_guess(std::span<const TokenId> tokens) {
    for (std::size_t i = 0; i < guess_.size() && guess_pos_ + i < tokens.size(); ++i) {
      const bool right = tokens[guess_pos_ + i] == guess_[i];
      const Index length = match_length_ + static_cast<Index>(i);
      chances_.record(length, right);
      experience_->chances.record(length, right);
      if (!right) return;
    }
  }

  // What followed the match, and where that reaches the end of the text, the guess itself: so a
  // text that repeats itself is continued as a loop.
  void guess(std::span<const TokenId> tokens) {
    guess_.clear();
    guess_pos_ = tokens.size();
    const NgramIndex::Match match = index_.find(tokens);
    match_length_ = match.length;
    if (match.length == 0) return;
    for (auto at = static_cast<std::size_t>(match.next_pos);
         guess_.size() <= static_cast<std::size_t>(kMostDrafts); ++at) {
      guess_.push_back(at < tokens.size() ? tokens[at] : guess_[at - tokens.size()]);
    }
  }

  std::shared_ptr<DraftExperience> experience_;
  DraftGovernor governor_;
  GuessChances chances_{/*memory=*/32};
  NgramIndex index_;
  std::vector<TokenId> guess_;  // at guess_pos_ and after it
  std::size_t guess_pos_ = 0;
  Index match_length_ = 0;
};

}  // namespace

std::unique_ptr<Drafter> make_prompt_lookup(std::shared_ptr<DraftExperience> experience) {
  return std::make_unique<PromptLookup>(std::move(experience));
}

}  // namespace kogia
