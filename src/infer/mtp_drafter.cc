// Drafts by multi-token prediction (DeepSeek-V3, arXiv:2412.19437 §2.2): layer k of depth D takes
// for position i the state h of the layer before (k = 1: of the main model) and the embedding of
// token i + k, and predicts token i + k + 1. So from the last state of a text of n tokens, that of
// position n - 2, layer 1 predicts the token at n, layer 2 from there that at n + 1, and so on,
// each guess being the input of the next layer.
//
// Each layer attends to what it computed of the positions before, so it has a cache of its own, and
// every position has to pass it: with the tokens that came, not those that were guessed. A position
// that a layer computed with a guess counts once the guess turns out right, and is computed again
// where it does not. States of positions that a layer has not passed yet wait in its queue. While
// no drafts are wanted they may wait for a while, as many rows together are cheap.
//
// What a beginning that was found in memory left in the layers' caches is used; where it was
// computed without them, or comes from a disk, the layers begin behind it, as if the text began
// there: positions are relative. Drafts get worse by that, and the answer stays what it is.

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "base/error.h"
#include "infer/answer.h"
#include "infer/draft_governor.h"
#include "infer/drafter.h"
#include "infer/engine.h"
#include "infer/scheduler.h"

namespace kogia {
namespace {

constexpr Index kMostWaiting = 32;  // rows of a layer's queue while no drafts are wanted

/// States that a layer has not passed for good, of the positions from `begin` on.
class Queue {
 public:
  void start(Index begin) { begin_ = begin, n_rows_ = 0, values_.clear(); }
  Index begin() const { return begin_; }
  Index end() const { return begin_ + n_rows_; }
  Index size() const { return n_rows_; }

  void append(ConstMat rows) {
    for (Index r = 0; r < rows.rows; ++r) {
      values_.insert(values_.end(), rows.row(r), rows.row(r) + rows.cols);
    }
    n_rows_ += rows.rows;
    if (n_rows_ > 0) width_ = static_cast<Index>(values_.size()) / n_rows_;
  }
  void drop_before(Index pos) {
    const Index n = std::clamp<Index>(pos - begin_, 0, n_rows_);
    values_.erase(values_.begin(), values_.begin() + n * width_);
    begin_ += n;
    n_rows_ -= n;
  }
  void drop_from(Index pos) {
    n_rows_ = std::clamp<Index>(pos - begin_, 0, n_rows_);
    values_.resize(static_cast<std::size_t>(n_rows_ * width_));
  }
  const float* row(Index pos) const { return values_.data() + (pos - begin_) * width_; }

 private:
  Index begin_ = 0, n_rows_ = 0, width_ = 0;
  std::vector<float> values_;
};

/// A text. Of layer k (from 0 on) queues[k].begin() positions are done, and those up to ahead[k]
/// are computed with guesses.
struct Sequence {
  explicit Sequence(std::shared_ptr<DraftExperience> experience)
      : governor(std::move(experience), /*common_ledger=*/true) {}
  DraftGovernor governor;
  DepthChances chances{/*memory=*/32};
  Index origin = 0;  // the position that is the layers' first
  std::vector<Queue> queues;
  std::vector<Index> ahead;
};

/// Rows of one text that go through a layer, up to position `end`.
struct Passage {
  Sequence* sequence = nullptr;
  Index end = 0;
  std::span<const TokenId> history, drafts;
  std::span<const std::int32_t> pages;
};

class MtpDrafter final : public BatchDrafter {
 public:
  MtpDrafter(Engine& engine, const MtpDrafterOptions& options)
      : engine_(engine),
        options_(options),
        depth_(engine.model().n_mtp_layers()),
        filled_(static_cast<std::size_t>(engine.pages().n_pages())) {
    KOGIA_CHECK(depth_ > 0 && engine.cache().mtp() != nullptr);
  }

  void propose(std::span<Reader> readers) override;
  void begin(const StepPlan& plan) override;
  void computed(std::span<const Computed> rows) override;
  void record(SequenceId id, Index n_drafted, Index n_accepted, Index n_rows,
              double seconds) override;
  void remove(SequenceId id) override { sequences_.erase(id); }

 private:
  /// The page since it was taken last: up to where the first layer has come. Behind it lie zeros,
  /// which attention passes over.
  struct Filled {
    Index n_taken = 0, n = 0;
  };
  Index& filled(std::int32_t page);
  void fill(const Passage& passage, Index begin);
  void admit(const Admission& admission, std::span<const std::int32_t> pages);
  Index wanted(const Sequence& s, Index most, Index n_readers) const;
  void settle(Sequence& s, Index n_true) const;
  void catch_up(std::vector<Passage> passages);
  ConstMat pass(Index k, std::span<const Passage> passages, bool logits);

  Engine& engine_;
  MtpDrafterOptions options_;
  Index depth_;
  std::shared_ptr<DraftExperience> experience_ = make_draft_experience();
  std::map<SequenceId, Sequence> sequences_;
  std::vector<Filled> filled_;  // of each page
  Workspace workspace_;
  SamplerScratch scratch_;
  std::vector<float> hidden_;  // of a passage, end to end
};

// ---------------------------------------------------------------------------------------------------
// Texts come

void MtpDrafter::begin(const StepPlan& plan) {
  const PagedMemory& memory = *engine_.cache().mtp();
  for (const PageCopy& copy : plan.copies) {
    filled(copy.to) = filled(copy.from);
    const auto from = memory.page(copy.from);
    std::memcpy(memory.page(copy.to).data(), from.data(), from.size());
  }
  for (const SequenceId id : plan.preempted) sequences_.erase(id);
  for (const Admission& admission : plan.admitted) {
    const auto rows = std::ranges::find(plan.rows, admission.id, &ScheduledRows::id);
    KOGIA_CHECK(rows != plan.rows.end());
    admit(admission, rows->pages);
  }
}

void MtpDrafter::admit(const Admission& admission, std::span<const std::int32_t> pages) {
  Sequence s(experience_);
  for (Index first = 0; first < admission.n_cached; first += kPageTokens) {
    const std::int32_t page = pages[static_cast<std::size_t>(first / kPageTokens)];
    const Index n = std::min(kPageTokens, admission.n_cached - first);
    if (filled(page) + kMostWaiting < n) s.origin = n < kPageTokens ? first : first + kPageTokens;
  }
  s.queues.resize(static_cast<std::size_t>(depth_));
  for (Queue& queue : s.queues) queue.start(admission.n_cached);
  s.ahead.assign(static_cast<std::size_t>(depth_), admission.n_cached);
  sequences_.insert_or_assign(admission.id, std::move(s));
}

// ---------------------------------------------------------------------------------------------------
// Rows

// The queues' rows up to the end of each passage go through layer k. Their states go to the queue
// behind. Returns the logits of the last row of each, where they are wanted.
ConstMat MtpDrafter::pass(Index k, std::span<const Passage> passages, bool logits) {
  std::vector<TokenId> ids;
  std::vector<SequenceRows> sequences;
  std::vector<std::int32_t> last_rows;
  const Index width = engine_.model().config().hidden_size;
  hidden_.clear();
  for (const Passage& p : passages) {
    const Queue& queue = p.sequence->queues[static_cast<std::size_t>(k)];
    const Index origin = p.sequence->origin;
    if (k == 0) fill(p, queue.begin());
    sequences.push_back({.row_begin = static_cast<Index>(ids.size()),
                         .n_rows = p.end - queue.begin(),
                         .first_pos = queue.begin() - origin,
                         .pages = p.pages.data() + origin / kPageTokens});
    hidden_.insert(hidden_.end(), queue.row(queue.begin()),
                   queue.row(queue.begin()) + (p.end - queue.begin()) * width);
    for (Index pos = queue.begin(); pos < p.end; ++pos) {
      const auto next = static_cast<std::size_t>(pos + k + 1);
      ids.push_back(next < p.history.size() ? p.history[next] : p.drafts[next - p.history.size()]);
    }
    if (logits) last_rows.push_back(static_cast<std::int32_t>(ids.size()) - 1);
  }
  const Batch batch{.ids = ids,
                    .sequences = sequences,
                    .logit_rows = last_rows,
                    .cache = engine_.cache().mtp()->memory()};
  const ConstMat hidden(hidden_.data(), static_cast<Index>(ids.size()), width);
  const ForwardResult result = engine_.model().forward_mtp(k, ids, hidden, batch, workspace_);
  for (std::size_t i = 0; i < passages.size(); ++i) {
    Sequence& s = *passages[i].sequence;
    const SequenceRows& rows = sequences[i];
    const Index begin = s.queues[static_cast<std::size_t>(k)].begin();
    s.ahead[static_cast<std::size_t>(k)] = passages[i].end;
    if (k + 1 == depth_) continue;
    Queue& behind = s.queues[static_cast<std::size_t>(k) + 1];
    behind.drop_from(begin);
    behind.append({result.hidden.row(rows.row_begin), rows.n_rows, width, result.hidden.stride});
  }
  return result.logits;
}

Index& MtpDrafter::filled(std::int32_t page) {
  Filled& f = filled_[static_cast<std::size_t>(page)];
  if (const Index now = engine_.pages().n_taken(page); f.n_taken != now) {
    f = {.n_taken = now, .n = 0};
    std::ranges::fill(engine_.cache().mtp()->page(page), std::byte{0});
  }
  return f.n;
}

// The first layer is going to compute positions from `begin` to the end of the passage.
void MtpDrafter::fill(const Passage& passage, Index begin) {
  while (begin < passage.end) {
    const Index first = begin / kPageTokens * kPageTokens;
    const Index end = std::min(passage.end, first + kPageTokens);
    Index& n = filled(passage.pages[static_cast<std::size_t>(first / kPageTokens)]);
    n = std::max(n, end - first);
    begin = end;
  }
}

// The first n_true tokens are what the layers took them for.
void MtpDrafter::settle(Sequence& s, Index n_true) const {
  for (Index k = 0; k < depth_; ++k) {
    Queue& queue = s.queues[static_cast<std::size_t>(k)];
    Index& ahead = s.ahead[static_cast<std::size_t>(k)];
    queue.drop_before(std::min(ahead, n_true - k - 1));
    ahead = queue.begin();
    if (k + 1 < depth_) s.queues[static_cast<std::size_t>(k) + 1].drop_from(queue.begin());
  }
}

// All positions whose tokens are there pass the layers.
void MtpDrafter::catch_up(std::vector<Passage> passages) {
  for (Index k = 0; k < depth_; ++k) {
    std::vector<Passage> some;
    for (Passage& p : passages) {
      const Queue& queue = p.sequence->queues[static_cast<std::size_t>(k)];
      p.end = std::min(queue.end(), static_cast<Index>(p.history.size()) - k - 1);
      if (p.end > queue.begin()) some.push_back(p);
    }
    if (!some.empty()) pass(k, some, /*logits=*/false);
  }
  for (const Passage& p : passages) settle(*p.sequence, static_cast<Index>(p.history.size()));
}

void MtpDrafter::computed(std::span<const Computed> rows) {
  std::vector<Passage> behind;
  for (const Computed& c : rows) {
    const auto found = sequences_.find(c.id);
    KOGIA_CHECK(found != sequences_.end());
    Sequence& s = found->second;
    // Drafts that were wrong are what the text is not.
    const auto text = c.history.subspan(static_cast<std::size_t>(c.first_pos));
    const Index n = std::ranges::mismatch(c.ids, text).in1 - c.ids.begin();
    settle(s, c.first_pos + n);
    KOGIA_CHECK(s.queues[0].end() == c.first_pos);
    s.queues[0].append({c.hidden.data, n, c.hidden.cols, c.hidden.stride});
    // Other texts may begin with the prompt.
    const bool many = std::ranges::any_of(
        s.queues, [](const Queue& queue) { return queue.size() > kMostWaiting; });
    if (c.of_prompt || many) {
      behind.push_back({.sequence = &s, .history = c.history, .drafts = {}, .pages = c.pages});
    }
  }
  if (!behind.empty()) catch_up(std::move(behind));
}

// ---------------------------------------------------------------------------------------------------
// Drafts

Index MtpDrafter::wanted(const Sequence& s, Index most, Index n_readers) const {
  if (options_.n_drafts) return std::min({*options_.n_drafts, most, depth_});
  std::vector<double> chances;
  for (Index k = 0; k < std::min(most, depth_); ++k) {
    chances.push_back(s.chances.chance(k, &experience_->depths));
  }
  return s.governor.choose(chances, n_readers);
}

void MtpDrafter::propose(std::span<Reader> readers) {
  struct Chain {
    Reader* reader;
    Sequence* sequence;
    Index wanted;
  };
  std::vector<Chain> chains;
  const auto n_readers = static_cast<Index>(readers.size());
  for (Reader& r : readers) {
    const auto found = sequences_.find(r.id);
    if (found == sequences_.end()) continue;
    Sequence& s = found->second;
    // The state of the last position is not there where all of the text was found in memory.
    const auto n_tokens = static_cast<Index>(r.answer->history().size());
    if (s.queues[0].size() == 0 || s.queues[0].end() != n_tokens - 1) continue;
    if (const Index n = wanted(s, r.max_drafts, n_readers); n > 0) chains.push_back({&r, &s, n});
  }
  for (Index k = 0; k < depth_; ++k) {
    std::erase_if(chains, [&](const Chain& c) {
      return c.wanted <= k || static_cast<Index>(c.reader->drafts.size()) < k;
    });
    if (chains.empty()) return;
    std::vector<Passage> passages;
    for (const Chain& c : chains) {
      const auto history = c.reader->answer->history();
      passages.push_back({.sequence = c.sequence,
                          .end = static_cast<Index>(history.size()) - 1,
                          .history = history,
                          .drafts = c.reader->drafts,
                          .pages = c.reader->pages});
    }
    const ConstMat logits = pass(k, passages, /*logits=*/true);
    for (std::size_t i = 0; i < chains.size(); ++i) {
      Reader& r = *chains[i].reader;
      const auto row =
          std::span(logits.row(static_cast<Index>(i)), static_cast<std::size_t>(logits.cols));
      if (const auto id = r.answer->guess(row, r.drafts, scratch_)) r.drafts.push_back(*id);
    }
  }
}

void MtpDrafter::record(SequenceId id, Index n_drafted, Index n_accepted, Index n_rows,
                        double seconds) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  Sequence& s = found->second;
  s.governor.record(n_drafted, n_accepted, n_rows, seconds);
  s.chances.record(n_drafted, n_accepted);
  experience_->depths.record(n_drafted, n_accepted);
}

}  // namespace

std::unique_ptr<BatchDrafter> make_mtp_drafter(Engine& engine, const MtpDrafterOptions& options) {
  return std::make_unique<MtpDrafter>(engine, options);
}

}  // namespace kogia
