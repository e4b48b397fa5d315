#include "infer/draft_governor.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace kogia {
namespace {

constexpr Index kExactRows = 16;        // up to here each number of rows has a bucket of its own
constexpr double kPerOctave = 8;        // beyond it so many for twice the rows
constexpr Index kForgetSteps = 512;     // then a longer step may be tried again
constexpr double kUntriedRow = 0.1;     // of the average row's seconds, for a row never tried
constexpr double kManyRows = 8;         // from here on a further row …
constexpr double kLeastRow = 0.25;      // … takes at least this share of the average one
constexpr double kDoubt = 0.9;          // of the tokens that drafts are expected to bring
constexpr double kMayLose = 0.01;       // of the time
constexpr double kCredit = 4;           // and so many plain steps, where all requests have a ledger
constexpr double kRememberSteps = 512;  // of which that is a share

std::size_t bucket_of(Index rows) {
  if (rows <= kExactRows) return static_cast<std::size_t>(rows);
  const double octaves = std::log2(static_cast<double>(rows) / kExactRows);
  return static_cast<std::size_t>(kExactRows) + 1 + static_cast<std::size_t>(kPerOctave * octaves);
}

}  // namespace

void StepCosts::record(Index n_rows, double seconds) {
  KOGIA_CHECK(n_rows > 0);
  if (!(seconds > 0)) return;
  if (seconds == newest_) return;
  newest_ = seconds;
  ++now_;
  const std::size_t i = bucket_of(n_rows);
  if (buckets_.size() <= i) buckets_.resize(i + 1);
  Bucket& bucket = buckets_[i];
  if (now_ - bucket.when > kForgetSteps) bucket.n = 0;
  bucket.last[bucket.n++ % kKept] = seconds;
  bucket.when = now_;
  const auto rows = static_cast<double>(n_rows);
  bucket.rows = bucket.n == 1 ? rows : bucket.rows + (rows - bucket.rows) / kKept;
  // Of two the smaller: a step that was disturbed is no reason to give up.
  auto sorted = bucket.last;
  const auto n = static_cast<std::ptrdiff_t>(std::min(bucket.n, kKept));
  const auto middle = sorted.begin() + (n - 1) / 2;
  std::nth_element(sorted.begin(), middle, sorted.begin() + n);
  bucket.median = *middle;
}

// In order of rows, never falling: a step takes no longer than one with more rows.
std::vector<StepCosts::Point> StepCosts::points(Index base) const {
  std::vector<Point> points;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    const Bucket& b = buckets_[i];
    const bool old = now_ - b.when > kForgetSteps;
    if (b.n == 0 || (old && i > bucket_of(base))) continue;
    // Once seen to take more than its rows one by one: it may have been disturbed, so try again.
    const bool odd = !points.empty() && b.median * points[0].rows > points[0].seconds * b.rows;
    if (b.n == 1 && odd) continue;
    points.push_back({b.rows, b.median});
  }
  for (std::size_t i = points.size(); i-- > 1;) {
    points[i - 1].seconds = std::min(points[i - 1].seconds, points[i].seconds);
  }
  return points;
}

std::vector<double> StepCosts::seconds(Index base, Index most) const {
  const std::vector<Point> known = points(base);
  // Half a row of slack: a bucket's rows are an average.
  if (known.empty() || known.front().rows > static_cast<double>(base) + 0.5) return {};
  const Point first = known.front(), last = known.back();
  double slope = known.size() > 1 && last.rows > first.rows
                     ? (last.seconds - first.seconds) / (last.rows - first.rows)
                     : kUntriedRow * last.seconds / last.rows;
  slope = std::max(slope, 0.0);

  std::vector<double> seconds;
  std::size_t next = 0;  // the first known point with more rows
  const double leap = 2 * last.rows + 2;
  for (Index k = 0; k <= most; ++k) {
    const auto rows = static_cast<double>(base + k);
    while (next < known.size() && known[next].rows <= rows) ++next;
    if (next == known.size()) {
      if (k > 0 && rows > leap) break;
      seconds.push_back(last.seconds + slope * (rows - last.rows));
    } else if (next == 0) {
      seconds.push_back(first.seconds);
    } else {
      const Point a = known[next - 1], b = known[next];
      seconds.push_back(a.seconds + (b.seconds - a.seconds) * (rows - a.rows) / (b.rows - a.rows));
    }
  }
  // Differences between steps of many rows drown in noise.
  if (static_cast<double>(base) >= kManyRows) {
    const double row = kLeastRow * seconds[0] / static_cast<double>(base);
    for (std::size_t k = 1; k < seconds.size(); ++k) {
      seconds[k] = std::max(seconds[k], seconds[0] + row * static_cast<double>(k));
    }
  }
  return seconds;
}

std::size_t GuessChances::class_of(Index match_length) {
  constexpr std::array<Index, kClasses - 1> kBelow = {3, 4, 6, 8, 12, 16, 24, 32};
  return static_cast<std::size_t>(std::ranges::upper_bound(kBelow, match_length) - kBelow.begin());
}

void GuessChances::record(Index match_length, bool right) {
  const std::size_t c = class_of(match_length);
  const double keep = 1 - 1 / memory_;
  right_[c] = keep * right_[c] + (right ? 1 : 0);
  all_[c] = keep * all_[c] + 1;
}

double GuessChances::chance(Index match_length, const GuessChances* common) const {
  constexpr std::array kAtFirst = {0.15, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9};
  static_assert(kAtFirst.size() == kClasses);
  constexpr double kWeight = 4;  // guesses that what was known before counts for
  const std::size_t c = class_of(match_length);
  const double before = common == nullptr ? kAtFirst[c] : common->chance(match_length, nullptr);
  return (right_[c] + kWeight * before) / (all_[c] + kWeight);
}

void DepthChances::record(Index n_drafted, Index n_accepted) {
  const auto n = static_cast<std::size_t>(std::min(n_drafted, n_accepted + 1));
  if (shares_.size() < n) shares_.resize(n);
  const double keep = 1 - 1 / memory_;
  for (std::size_t i = 0; i < n; ++i) {
    const bool right = static_cast<Index>(i) < n_accepted;
    shares_[i] = {keep * shares_[i].right + (right ? 1 : 0), keep * shares_[i].all + 1};
  }
}

double DepthChances::chance(Index depth, const DepthChances* common) const {
  constexpr double kAtFirst = 0.7;
  constexpr double kWeight = 4;  // guesses that what was known before counts for
  const double before = common == nullptr ? kAtFirst : common->chance(depth, nullptr);
  const auto i = static_cast<std::size_t>(depth);
  if (i >= shares_.size()) return before;
  return (shares_[i].right + kWeight * before) / (shares_[i].all + kWeight);
}

DraftGovernor::DraftGovernor(std::shared_ptr<DraftExperience> experience, bool common_ledger)
    : experience_(std::move(experience)), common_ledger_(common_ledger) {
  KOGIA_CHECK(experience_ != nullptr);
}

Index DraftGovernor::choose(std::span<const double> chances, Index n_readers) const {
  const Index base = base_rows_ > 0 ? base_rows_ : n_readers;
  if (base == 0 || chances.empty()) return 0;
  const auto seconds = experience_->costs.seconds(base, static_cast<Index>(chances.size()));
  if (seconds.empty()) return 0;
  const double credit = common_ledger_ ? kCredit * seconds[0] : 0;
  if (ledger().gained < -kMayLose * ledger().elapsed - credit) return 0;
  const auto rows = static_cast<double>(base);
  double best = rows / seconds[0], expected = 0, all_right = 1;
  Index chosen = 0;
  for (std::size_t k = 1; k < seconds.size(); ++k) {
    all_right *= chances[k - 1];
    expected += all_right;
    const double rate = (rows + kDoubt * expected) / seconds[k];
    if (rate > best) {
      best = rate;
      chosen = static_cast<Index>(k);
    }
  }
  return chosen;
}

void DraftGovernor::record(Index n_drafted, Index n_accepted, Index n_rows, double seconds) {
  KOGIA_CHECK(n_accepted >= 0 && n_accepted <= n_drafted && n_drafted < n_rows);
  StepCosts& costs = experience_->costs;
  costs.record(n_rows, seconds);
  base_rows_ = n_rows - n_drafted;
  const double keep = 1 - 1 / kRememberSteps;
  DraftLedger& book = ledger();
  book.elapsed = keep * book.elapsed + seconds;
  book.gained *= keep;
  if (n_drafted == 0) return;
  const auto usual = costs.seconds(base_rows_, n_drafted);
  if (usual.empty()) return;
  // A step that was disturbed took as long as it did for other reasons than its drafts.
  const auto rows = static_cast<double>(base_rows_);
  const double one_by_one = usual[0] * (rows + static_cast<double>(n_drafted)) / rows;
  const double took = std::min({seconds, usual.back(), one_by_one});
  book.gained += usual[0] * (rows + static_cast<double>(n_accepted)) / rows - took;
}

std::shared_ptr<DraftExperience> make_draft_experience() {
  return std::make_shared<DraftExperience>();
}

}  // namespace kogia
