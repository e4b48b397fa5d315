#pragma once
// How many drafts pay: measured, not believed.
//
// A step of R rows that takes T(R) brings R tokens. With k drafts of one request it has R + k rows
// and brings R + E(k), where E(k) = Σ_j p_1 … p_j and p_j is the chance that draft j is right if
// those before it are. The length that is chosen makes (R + E(k)) / T(R + k) largest. (Rows of
// prompts count as tokens too: where a step computes as much as the machine can, a draft takes the
// place of a row that is sure to be wanted.)
//
// T is measured in every step, p wherever a guess meets the token that came, drafted or not: it
// costs nothing to see that guesses would have been right. Only what a longer step takes has to be
// tried out, and what all drafts of a request may lose together, measured too, is bounded: one
// step and one percent of the time.

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/index.h"
#include "infer/drafter.h"

namespace kogia {

/// What steps take, by their rows: medians of the last few. What was measured long ago is used only
/// where nothing else is known.
class StepCosts {
 public:
  /// The same seconds twice in a row are one step, told of by the drafters of several requests.
  void record(Index n_rows, double seconds);

  /// Seconds of steps of `base` rows and of up to `most` more: [0] that of `base`. Empty where
  /// nothing tells what `base` rows take. Ends early where more rows would be a leap into the
  /// unknown; what lies a little beyond the largest measured step is taken for cheap, to be tried.
  std::vector<double> seconds(Index base, Index most) const;

 private:
  static constexpr std::size_t kKept = 7;
  struct Bucket {
    std::array<double, kKept> last{};
    std::size_t n = 0;  // measured so far
    double median = 0, rows = 0;
    Index when = 0;
  };
  struct Point {
    double rows, seconds;
  };
  std::vector<Point> points(Index base) const;

  std::vector<Bucket> buckets_;
  Index now_ = 0;
  double newest_ = 0;
};

/// Shares of guesses that were right, by how long the match was that they were made from.
class GuessChances {
 public:
  /// After `memory` guesses one counts for a third of what it did.
  explicit GuessChances(double memory) : memory_(memory) {}
  void record(Index match_length, bool right);
  /// Mixed with what `common` (null: nothing) has seen, as far as little was seen here.
  double chance(Index match_length, const GuessChances* common) const;

 private:
  static constexpr std::size_t kClasses = 9;
  static std::size_t class_of(Index match_length);

  double memory_;
  std::array<double, kClasses> right_{}, all_{};
};

/// Shares of guesses that were right where those before them were, by their place in the chain.
class DepthChances {
 public:
  explicit DepthChances(double memory) : memory_(memory) {}
  /// Of a chain of n_drafted guesses the first n_accepted were right, and the next one, if there
  /// was one, was not.
  void record(Index n_drafted, Index n_accepted);
  /// Of the guess at `depth`, from 0 on; mixed with what `common` (null: nothing) has seen.
  double chance(Index depth, const DepthChances* common) const;

 private:
  struct Shares {
    double right = 0, all = 0;
  };
  double memory_;
  std::vector<Shares> shares_;
};

/// What drafts gained.
struct DraftLedger {
  double elapsed = 0;  // of the last few hundred steps
  double gained = 0;   // by drafts, against plain steps for as many tokens; may be negative
};

class DraftExperience {
 public:
  StepCosts costs;
  DraftLedger ledger;  // of all requests
  GuessChances chances{/*memory=*/256};
  DepthChances depths{/*memory=*/256};
};

/// Of one request.
class DraftGovernor {
 public:
  /// common_ledger: what drafts may lose they may lose for all requests together, not for each.
  explicit DraftGovernor(std::shared_ptr<DraftExperience> experience, bool common_ledger = false);

  /// How many drafts to send, 0 to chances.size(); chances[j]: that draft j + 1 is right if those
  /// before it are. n_readers: rows of the step without drafts, if no step was told of yet.
  Index choose(std::span<const double> chances, Index n_readers = 0) const;
  /// As Drafter::record.
  void record(Index n_drafted, Index n_accepted, Index n_rows, double seconds);

 private:
  DraftLedger& ledger() { return common_ledger_ ? experience_->ledger : ledger_; }
  const DraftLedger& ledger() const { return common_ledger_ ? experience_->ledger : ledger_; }

  std::shared_ptr<DraftExperience> experience_;
  bool common_ledger_;
  Index base_rows_ = 0;  // of the last step, without this request's drafts; 0: none yet
  DraftLedger ledger_;
};

}  // namespace kogia
