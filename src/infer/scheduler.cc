#include "infer/scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace kogia {
namespace {

// Where a sequence of that id stands, or belongs, in the order of arrival.
template <class Sequences>
auto place_of(Sequences& sequences, SequenceId id) {
  return std::ranges::lower_bound(sequences, id, {}, [](const auto& s) { return s->given.id; });
}

}  // namespace

Scheduler::Scheduler(PagePool& pool, PrefixTree& tree, SchedulerLimits limits)
    : pool_(pool), tree_(tree), limits_(limits) {
  KOGIA_CHECK(limits.step_tokens > 0 && limits.max_sequences > 0);
}

// ---------------------------------------------------------------------------------------------------
// Coming and going

void Scheduler::add(NewSequence sequence) {
  KOGIA_CHECK(!sequence.tokens.empty() && pages_of(sequence.max_tokens) <= pool_.n_pages());
  auto s = std::make_unique<Sequence>();
  s->given = std::move(sequence);
  waiting_.push_back(std::move(s));
}

void Scheduler::remove(SequenceId id) {
  const auto same = [&](const SequencePtr& s) { return s->given.id == id; };
  if (const auto w = std::ranges::find_if(waiting_, same); w != waiting_.end()) {
    waiting_.erase(w);
    return;
  }
  const auto r = std::ranges::find_if(running_, same);
  KOGIA_CHECK(r != running_.end());
  publish(**r, /*with_tail=*/true);
  release_pages(**r);
  running_.erase(r);
}

void Scheduler::set_drafts(SequenceId id, std::vector<TokenId> drafts) {
  if (Sequence* s = find_running(id); s != nullptr && s->reads()) s->drafts = std::move(drafts);
}

Scheduler::Sequence* Scheduler::find_running(SequenceId id) {
  const auto s = place_of(running_, id);
  return s != running_.end() && (*s)->given.id == id ? s->get() : nullptr;
}

std::vector<SequenceId> Scheduler::readers() const {
  std::vector<SequenceId> ids;
  for (const auto& s : running_) {
    if (s->reads()) ids.push_back(s->given.id);
  }
  return ids;
}

std::span<const std::int32_t> Scheduler::pages(SequenceId id) {
  const Sequence* s = find_running(id);
  KOGIA_CHECK(s != nullptr);
  return s->pages;
}

Index Scheduler::n_readers() const {
  return std::ranges::count_if(running_, [](const SequencePtr& s) { return s->reads(); });
}

// ---------------------------------------------------------------------------------------------------
// Pages

std::int32_t Scheduler::take_page() {
  std::int32_t page = pool_.take();
  if (page < 0 && tree_.evict_one()) page = pool_.take();
  return page;
}

// Pages for n tokens of a running sequence; younger ones give theirs up. False: it is itself the
// youngest that has any.
bool Scheduler::grow(Sequence& s, Index n_tokens, StepPlan& plan) {
  while (static_cast<Index>(s.pages.size()) < pages_of(n_tokens)) {
    if (const std::int32_t page = take_page(); page >= 0) {
      s.pages.push_back(page);
      continue;
    }
    if (running_.back().get() == &s) return false;
    preempt(running_.size() - 1, plan);
  }
  return true;
}

void Scheduler::preempt(std::size_t index, StepPlan& plan) {
  SequencePtr s = std::move(running_[index]);
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  publish(*s, /*with_tail=*/true);
  release_pages(*s);
  s->drafts.clear();
  plan.preempted.push_back(s->given.id);
  waiting_.insert(place_of(waiting_, s->given.id), std::move(s));
}

void Scheduler::release_pages(Sequence& s) {
  for (const std::int32_t page : s.pages) pool_.release(page);
  s.pages.clear();
  s.n_cached = s.n_announced = 0;
}

// What the sequence has computed becomes visible to others: whole pages, or also the last one.
void Scheduler::publish(Sequence& s, bool with_tail) {
  const Index n_full = s.n_cached / limits_.page_tokens;
  const Index n = with_tail ? s.n_cached : n_full * limits_.page_tokens;
  const auto ids = std::span<const TokenId>(s.given.tokens).first(static_cast<std::size_t>(n));
  if (limits_.reuse_prefixes) {
    tree_.insert(s.given.tenant, ids,
                 std::span(s.pages).first(static_cast<std::size_t>(pages_of(n))));
  }
  if (n_full > s.n_announced) {
    if (on_full_pages) {
      on_full_pages(s.given.tenant,
                    ids.first(static_cast<std::size_t>(n_full * limits_.page_tokens)),
                    std::span<const std::int32_t>(s.pages).first(static_cast<std::size_t>(n_full)),
                    s.n_announced);
    }
    s.n_announced = n_full;
  }
}

void Scheduler::check_pages() const {
  std::vector<Index> holders(static_cast<std::size_t>(pool_.n_pages()), 0);
  const auto count = [&](std::int32_t page) { ++holders[static_cast<std::size_t>(page)]; };
  for (const auto& s : running_) {
    std::ranges::for_each(s->pages, count);
    KOGIA_CHECK(s->n_cached <= s->n_tokens() && pages_of(s->n_cached) <= pages_of(s->n_tokens()));
  }
  for (const auto& s : waiting_) KOGIA_CHECK(s->pages.empty());
  std::ranges::for_each(copied_, count);
  tree_.for_each_page(count);
  Index n_free = 0;
  for (Index page = 0; page < pool_.n_pages(); ++page) {
    const Index n = holders[static_cast<std::size_t>(page)];
    KOGIA_CHECK(n == pool_.n_holders(static_cast<std::int32_t>(page)));
    n_free += n == 0;
  }
  KOGIA_CHECK(n_free == pool_.n_free());
}

// ---------------------------------------------------------------------------------------------------
// A step

StepPlan Scheduler::plan() {
  for (const std::int32_t page : copied_) pool_.release(page);  // of a plan that never ran
  copied_.clear();
  StepPlan plan;
  plan_readers(plan);
  most_rows_ = limits_.step_tokens;
  if (plan.n_rows > 0) most_rows_ = std::min(most_rows_, plan.n_rows + limits_.beside_tokens);
  plan_prompts(plan);
  admit_waiting(plan);
  for (auto& rows : plan.rows) rows.pages = find_running(rows.id)->pages;
  for (const auto& s : running_) s->drafts.clear();
  return plan;
}

// The next n tokens of the sequence, drafts included. Its pages are there.
void Scheduler::schedule(Sequence& s, Index n, StepPlan& plan) {
  const Index known = std::min(n, s.n_tokens() - s.n_cached);
  const auto begin = s.given.tokens.begin() + s.n_cached;
  ScheduledRows rows{.id = s.given.id,
                     .first_pos = s.n_cached,
                     .ids = {begin, begin + known},
                     .pages = {},
                     .n_drafts = n - known,
                     .wants_logits = s.n_cached + n >= s.n_tokens()};
  rows.ids.insert(rows.ids.end(), s.drafts.begin(), s.drafts.begin() + rows.n_drafts);
  plan.rows.push_back(std::move(rows));
  plan.n_rows += n;
}

void Scheduler::plan_readers(StepPlan& plan) {
  Index n_left = n_readers();
  for (std::size_t i = 0; i < running_.size(); ++i) {  // grow() may shorten it from behind
    Sequence& s = *running_[i];
    if (!s.reads()) continue;
    --n_left;
    const Index room = limits_.step_tokens - plan.n_rows;
    if (room <= 0) continue;  // the oldest go first, and on until they are done
    if (!grow(s, s.n_cached + 1, plan)) {
      preempt(i, plan);
      break;
    }
    // Drafts take no page and no row away from anybody.
    Index n_drafts = std::min({static_cast<Index>(s.drafts.size()), room - 1 - n_left,
                               s.given.max_tokens - s.n_tokens()});
    n_drafts = std::max<Index>(n_drafts, 0);
    while (static_cast<Index>(s.pages.size()) < pages_of(s.n_cached + 1 + n_drafts) &&
           pool_.n_free() > 0) {
      s.pages.push_back(pool_.take());
    }
    const Index room_in_pages =
        static_cast<Index>(s.pages.size()) * limits_.page_tokens - s.n_cached - 1;
    schedule(s, 1 + std::min(n_drafts, room_in_pages), plan);
  }
}

// Rows of prompts that still go into the step.
Index Scheduler::room(const StepPlan& plan) const { return most_rows_ - plan.n_rows; }

void Scheduler::plan_prompts(StepPlan& plan) {
  for (const auto& s : running_) {
    if (s->reads()) continue;
    const Index n = std::min(room(plan), s->n_tokens() - s->n_cached);
    if (n > 0) schedule(*s, n, plan);  // its pages were taken when it was let in
  }
}

void Scheduler::computed(const StepPlan& plan) {
  for (const std::int32_t page : copied_) pool_.release(page);
  copied_.clear();
  for (const ScheduledRows& rows : plan.rows) {
    Sequence& s = *find_running(rows.id);
    const Index before = s.n_cached / limits_.page_tokens;
    s.n_cached += static_cast<Index>(rows.ids.size()) - rows.n_drafts;
    // At the end of the prompt what it shares with others is complete, the last page included.
    const bool prompt_ends = rows.wants_logits && rows.ids.size() > 1 && rows.n_drafts == 0;
    if (prompt_ends || s.n_cached / limits_.page_tokens > before) publish(s, prompt_ends);
  }
}

void Scheduler::append(SequenceId id, std::span<const TokenId> drawn) {
  Sequence& s = *find_running(id);
  KOGIA_CHECK(!drawn.empty() && s.n_cached == s.n_tokens());
  const Index before = s.n_cached / limits_.page_tokens;
  s.given.tokens.insert(s.given.tokens.end(), drawn.begin(), drawn.end());
  s.n_cached += static_cast<Index>(drawn.size()) - 1;
  if (s.n_cached / limits_.page_tokens > before) publish(s, false);
}

// ---------------------------------------------------------------------------------------------------
// Letting in

Index Scheduler::planned_pages(const Sequence& s) const {
  return pages_of(std::min(s.n_tokens() + limits_.planned_tokens, s.given.max_tokens));
}

// Whether one that runs is about to compute what this one could share. (A few tokens are no reason
// to wait.)
bool Scheduler::another_computes(const Sequence& s, Index n_matched) const {
  constexpr Index kWorthWaiting = 16;
  if (!limits_.reuse_prefixes) return false;
  for (const auto& other : running_) {
    if (other->reads() || other->given.tenant != s.given.tenant) continue;
    const auto end = std::ranges::mismatch(other->given.tokens, s.given.tokens).in1;
    const Index n_common = std::min<Index>(end - other->given.tokens.begin(), s.n_tokens() - 1);
    if (n_common >= n_matched + kWorthWaiting && other->n_cached < n_common) return true;
  }
  return false;
}

// What those that run are still going to take is not there for this one.
bool Scheduler::fits(const Sequence& s, Index n_matched_pages) const {
  if (running_.empty()) return true;
  Index wanted = planned_pages(s) - n_matched_pages;
  for (const auto& other : running_) {
    wanted += std::max<Index>(planned_pages(*other) - static_cast<Index>(other->pages.size()), 0);
  }
  return wanted <= pool_.n_free() + pool_.n_idle();
}

void Scheduler::admit_waiting(StepPlan& plan) {
  constexpr Index kMaxPassed = 32;  // bounds the search where a great many wait for one prompt
  Index n_passed = 0;
  for (auto w = waiting_.begin(); w != waiting_.end() && n_passed < kMaxPassed;) {
    if (n_running() >= limits_.max_sequences || room(plan) <= 0) return;
    Sequence& s = **w;
    const Index n_matched =
        limits_.reuse_prefixes ? tree_.match_length(s.given.tenant, s.before_last()) : 0;
    if (another_computes(s, n_matched)) {
      ++w;  // others may pass it
      ++n_passed;
      continue;
    }
    // Nobody passes one that waits for memory.
    if (!fits(s, n_matched / limits_.page_tokens) || !try_admit(s, plan)) return;
    schedule(s, std::min(room(plan), s.n_tokens() - s.n_cached), plan);
    running_.insert(place_of(running_, s.given.id), std::move(*w));
    w = waiting_.erase(w);
  }
}

// Takes the pages of all its tokens. False: they are not there, and nothing has changed.
bool Scheduler::try_admit(Sequence& s, StepPlan& plan) {
  PrefixMatch match;
  if (limits_.reuse_prefixes) {
    if (restore) restore(s.given.tenant, s.before_last());
    match = tree_.match(s.given.tenant, s.before_last());
  }
  s.pages = std::move(match.pages);
  s.n_announced = static_cast<Index>(s.pages.size());
  s.n_cached = s.n_announced * limits_.page_tokens;
  if (!fits(s, s.n_announced) || !take_prompt_pages(s, match)) {
    release_pages(s);
    if (match.tail_page >= 0) pool_.release(match.tail_page);
    return false;
  }
  if (match.tail_page >= 0) {
    const std::int32_t own = s.pages[static_cast<std::size_t>(s.n_announced)];
    plan.copies.push_back({.from = match.tail_page, .to = own});
    copied_.push_back(match.tail_page);
    s.n_cached += match.n_tail;
  }
  plan.admitted.push_back({.id = s.given.id, .n_cached = s.n_cached, .other = match.other});
  return true;
}

bool Scheduler::take_prompt_pages(Sequence& s, PrefixMatch& match) {
  while (static_cast<Index>(s.pages.size()) < pages_of(s.n_tokens())) {
    std::int32_t page = take_page();
    if (page < 0 && match.tail_page >= 0) {  // the page to copy from may be the very one that lacks
      pool_.release(match.tail_page);
      match.tail_page = -1;
      page = take_page();
    }
    if (page < 0) return false;
    s.pages.push_back(page);
  }
  return true;
}

}  // namespace kogia
