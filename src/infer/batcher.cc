#include "infer/batcher.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <utility>

#include "base/interrupt.h"
#include "base/log.h"
#include "infer/answer.h"
#include "infer/drafter.h"
#include "infer/lower_tier.h"
#include "infer/prefix_tree.h"
#include "infer/runner.h"
#include "infer/scheduler.h"

namespace kogia {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

/// A request from submit() to its end.
struct Active {
  Active(const Engine& engine, const Request& request, RequestEvents e)
      : answer(engine, request.prompt, request.options), events(std::move(e)) {}

  Answer answer;
  RequestEvents events;
  std::unique_ptr<Drafter> drafter;
  bool admitted = false;
  std::optional<FinishReason> ended;  // from outside
  Clock::time_point submitted = Clock::now(), admitted_at{}, first_logits{};

  // Of the step at hand:
  std::vector<GeneratedPiece> pieces;
  std::size_t first_row = 0;  // of the logits
  std::optional<Error> failure;
};

std::vector<TokenLogprob> top_logprobs(Device& device, std::span<const float> logits,
                                       Index n_valid_ids, Index n_top) {
  const auto n = static_cast<std::size_t>(std::min(n_top, n_valid_ids));
  std::vector<TokenId> ids(static_cast<std::size_t>(n_valid_ids));
  std::iota(ids.begin(), ids.end(), 0);
  const auto likelier = [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n), ids.end(), likelier);
  ids.resize(n);
  std::vector<float> logprobs(n);
  device.log_prob({.logits = logits.data(),
                   .stride = 0,  // each from the same row
                   .n = static_cast<Index>(logits.size()),
                   .ids = ids,
                   .log_prob = logprobs.data()});
  std::vector<TokenLogprob> top;
  for (std::size_t i = 0; i < n; ++i) top.push_back({.id = ids[i], .logprob = logprobs[i]});
  return top;
}

SchedulerLimits limits_of(const Engine& engine, const BatcherOptions& o) {
  const Index step = o.step_tokens > 0 ? o.step_tokens : std::max<Index>(engine.options().chunk, 1);
  return {.page_tokens = kPageTokens,
          .step_tokens = step,
          .beside_tokens = o.beside_tokens > 0 ? o.beside_tokens : step,
          .max_sequences = std::max<Index>(o.max_sequences, 1),
          .planned_tokens = std::max<Index>(o.planned_tokens, 1),
          .reuse_prefixes = o.reuse_prefixes};
}

// The token after the last draft is drawn too, and the answer ends there at the latest.
Index most_drafts(const Answer& answer) {
  return answer.max_tokens() - static_cast<Index>(answer.history().size()) - 1;
}

}  // namespace

struct Batcher::Parts {
  Parts(Engine& e, BatcherOptions o)
      : engine(e),
        options(std::move(o)),
        tree(e.pages(), kPageTokens),
        scheduler(e.pages(), tree, limits_of(e, options)),
        runner(e),
        scratch(static_cast<std::size_t>(std::max(e.device().n_threads(), 1))) {
    // With --mla auto one row and several are different sums, so drafts would change what is said.
    drafts_allowed = e.options().mla != MlaForm::kAuto;
    if (drafts_allowed && options.make_batch_drafter) {
      batch_drafter = options.make_batch_drafter(engine);
    }
    LowerTier* const lower = options.lower_tier;
    if (lower == nullptr || !options.reuse_prefixes) return;
    scheduler.restore = [this, lower](auto tenant, auto ids) { lower->restore(tree, tenant, ids); };
    scheduler.on_full_pages = [lower](auto tenant, auto ids, auto pages, Index first) {
      lower->save(tenant, ids, pages, first);
    };
  }

  RequestId submit(Request request, RequestEvents events);
  bool step();
  void end(RequestId id, FinishReason reason);
  BatcherStats stats_now() const;

  void propose_drafts();
  void propose_together();
  void tell_batch_drafter(const StepPlan& plan, ConstMat hidden);
  void note_admissions(const StepPlan& plan);
  void tell_miss(const Admission& admission);
  void note_prefill(const StepPlan& plan);
  void draw(const StepPlan& plan, const ConstMat& logits);
  void draw_rows(Active& a, const ScheduledRows& rows, const ConstMat& logits,
                 SamplerScratch& scratch);
  void fill_logprobs(const StepPlan& plan, const ConstMat& logits);
  void tell_drafters(const StepPlan& plan, double seconds);
  void deliver(const StepPlan& plan);
  void fail(RequestId id, const Error& error);
  Active* find(RequestId id) {
    const auto a = active.find(id);
    return a == active.end() ? nullptr : a->second.get();
  }

  Engine& engine;
  BatcherOptions options;
  PrefixTree tree;
  Scheduler scheduler;
  Runner runner;
  std::vector<SamplerScratch> scratch;  // one a thread of the device
  bool drafts_allowed = true;
  std::unique_ptr<BatchDrafter> batch_drafter;
  std::map<RequestId, std::unique_ptr<Active>> active;
  std::vector<std::pair<RequestId, Error>> failed;  // in the step at hand
  RequestId next_id = 1;
  bool stepping = false;
  BatcherStats stats;
};

// ---------------------------------------------------------------------------------------------------
// Coming and going

RequestId Batcher::Parts::submit(Request request, RequestEvents events) {
  auto a = std::make_unique<Active>(engine, request, std::move(events));
  if (drafts_allowed && options.make_drafter) a->drafter = options.make_drafter(request);
  const RequestId id = next_id++;
  stats.n_prompt_tokens += a->answer.n_prompt();
  if (a->answer.finished()) {
    a->ended = a->answer.finished();  // nothing to draw: it ends with the next step
  } else {
    scheduler.add({.id = id,
                   .tenant = std::move(request.tenant),
                   .tokens = std::move(request.prompt),
                   .max_tokens = a->answer.max_tokens()});
  }
  active.emplace(id, std::move(a));
  return id;
}

void Batcher::Parts::end(RequestId id, FinishReason reason) {
  const auto place = active.find(id);
  const std::unique_ptr<Active> a = std::move(place->second);
  active.erase(place);
  const bool never_scheduled = !a->admitted && a->answer.finished();
  if (batch_drafter) batch_drafter->remove(id);
  if (!never_scheduled) scheduler.remove(id);
  const auto now = Clock::now();
  Generation& g = a->answer.result();
  if (!a->admitted) {
    g.wait_s = seconds_between(a->submitted, now);
  } else {
    const bool began = a->first_logits != Clock::time_point{};
    g.wait_s = seconds_between(a->submitted, a->admitted_at);
    g.prefill_s = seconds_between(a->admitted_at, began ? a->first_logits : now);
    g.decode_s = began ? seconds_between(a->first_logits, now) : 0;
  }
  std::optional<GeneratedPiece> rest;
  Generation done = a->answer.finish(reason, rest);
  if (rest && a->events.on_piece) a->events.on_piece(*rest);
  if (a->events.on_done) a->events.on_done(std::move(done));
}

void Batcher::Parts::fail(RequestId id, const Error& error) {
  const auto place = active.find(id);
  const std::unique_ptr<Active> a = std::move(place->second);
  active.erase(place);
  if (batch_drafter) batch_drafter->remove(id);
  scheduler.remove(id);
  if (!a->events.on_error) throw error;
  a->events.on_error(error);
}

// ---------------------------------------------------------------------------------------------------
// A step

void Batcher::Parts::propose_drafts() {
  if (batch_drafter) return propose_together();
  if (!options.make_drafter) return;
  Index room = scheduler.draft_room();
  for (const SequenceId id : scheduler.readers()) {
    Active& a = *find(id);
    const Index most = std::min(room, most_drafts(a.answer));
    if (a.drafter == nullptr || most <= 0) continue;
    auto drafts = a.drafter->propose(a.answer.history(), most);
    room -= static_cast<Index>(drafts.size());
    scheduler.set_drafts(id, std::move(drafts));
  }
}

// Where the room does not suffice for all, the oldest have it.
void Batcher::Parts::propose_together() {
  std::vector<BatchDrafter::Reader> readers;
  for (const SequenceId id : scheduler.readers()) {
    Answer& answer = find(id)->answer;
    const Index most = std::min(scheduler.draft_room(), most_drafts(answer));
    if (most <= 0) continue;
    readers.push_back({.id = id,
                       .answer = &answer,
                       .pages = scheduler.pages(id),
                       .max_drafts = most,
                       .drafts = {}});
  }
  batch_drafter->propose(readers);
  for (auto& reader : readers) scheduler.set_drafts(reader.id, std::move(reader.drafts));
}

void Batcher::Parts::tell_batch_drafter(const StepPlan& plan, ConstMat hidden) {
  if (!batch_drafter) return;
  std::vector<BatchDrafter::Computed> computed;
  Index row = 0;
  for (const ScheduledRows& rows : plan.rows) {
    const auto n = static_cast<Index>(rows.ids.size());
    computed.push_back({.id = rows.id,
                        .first_pos = rows.first_pos,
                        .ids = rows.ids,
                        .history = find(rows.id)->answer.history(),
                        .pages = rows.pages,
                        .hidden = {hidden.row(row), n, hidden.cols, hidden.stride},
                        .of_prompt = n > 1 + rows.n_drafts});
    row += n;
  }
  batch_drafter->computed(computed);
}

void Batcher::Parts::note_admissions(const StepPlan& plan) {
  stats.n_preempted += static_cast<Index>(plan.preempted.size());
  for (const Admission& admission : plan.admitted) {
    Active& a = *find(admission.id);
    if (a.admitted) continue;  // set back before: what it found the first time counts
    a.admitted = true;
    a.admitted_at = Clock::now();
    a.answer.result().n_prompt_computed = a.answer.n_prompt() - admission.n_cached;
    stats.n_cached_tokens += admission.n_cached;
    if (admission.other >= 0 && log_enabled(LogLevel::kDebug)) tell_miss(admission);
  }
}

// Where a prompt leaves what is cached, and what stood there before: a date, a dropped thought.
void Batcher::Parts::tell_miss(const Admission& admission) {
  const auto words = [&](TokenId id) {
    std::string text = engine.tokenizer() ? engine.tokenizer()->token_bytes(id) : std::string();
    std::ranges::replace_if(text, [](unsigned char c) { return c < ' ' || c == 0x7F; }, '?');
    return text.empty() ? fmt::format("{}", id) : fmt::format("{} '{}'", id, text);
  };
  const auto history = find(admission.id)->answer.history();
  log_debug("request {}: {} of {} tokens cached; then comes {}, a cached text has {}", admission.id,
            admission.n_cached, history.size(),
            words(history[static_cast<std::size_t>(admission.n_cached)]), words(admission.other));
}

void Batcher::Parts::note_prefill(const StepPlan& plan) {
  for (const ScheduledRows& rows : plan.rows) {
    Active& a = *find(rows.id);
    if (!a.events.on_prefill || rows.first_pos >= a.answer.n_prompt()) continue;
    const Index end = rows.first_pos + static_cast<Index>(rows.ids.size());
    const Index total = a.answer.n_prompt(), computed = a.answer.result().n_prompt_computed;
    a.events.on_prefill(std::max<Index>(end - (total - computed), 0), computed);
  }
}

void Batcher::Parts::draw_rows(Active& a, const ScheduledRows& rows, const ConstMat& logits,
                               SamplerScratch& scratch) {
  const auto n_known = static_cast<Index>(rows.ids.size()) - rows.n_drafts;
  for (Index j = 0; j <= rows.n_drafts; ++j) {
    const float* row = logits.row(static_cast<Index>(a.first_row) + j);
    auto piece = a.answer.draw({row, static_cast<std::size_t>(logits.cols)}, scratch);
    if (piece) a.pieces.push_back(std::move(*piece));
    if (a.answer.finished()) return;
    // A draft that is what was drawn has its logits in the next row.
    if (j < rows.n_drafts &&
        rows.ids[static_cast<std::size_t>(n_known + j)] != a.pieces.back().id) {
      return;
    }
  }
}

// Every answer by itself, on the device's threads: with a large vocabulary this is work.
void Batcher::Parts::draw(const StepPlan& plan, const ConstMat& logits) {
  std::vector<std::pair<Active*, const ScheduledRows*>> drawn;
  std::size_t row = 0;
  for (const ScheduledRows& rows : plan.rows) {
    if (!rows.wants_logits) continue;
    Active& a = *find(rows.id);
    a.pieces.clear();
    a.failure.reset();
    a.first_row = row;
    row += static_cast<std::size_t>(1 + rows.n_drafts);
    if (a.first_logits == Clock::time_point{}) a.first_logits = Clock::now();
    drawn.emplace_back(&a, &rows);
  }
  const auto n_groups = std::min(scratch.size(), drawn.size());
  engine.device().parallel(static_cast<Index>(n_groups), [&](Index group) {
    const auto g = static_cast<std::size_t>(group);
    for (std::size_t i = g; i < drawn.size(); i += n_groups) {
      try {
        draw_rows(*drawn[i].first, *drawn[i].second, logits, scratch[g]);
      } catch (const Error& error) {
        drawn[i].first->failure = error;
      }
    }
  });
  for (const auto& [a, rows] : drawn) {
    if (a->failure) failed.emplace_back(rows->id, *a->failure);
  }
}

// Of all rows in one call: each is a pass over the vocabulary.
void Batcher::Parts::fill_logprobs(const StepPlan& plan, const ConstMat& logits) {
  std::vector<TokenId> ids(static_cast<std::size_t>(logits.rows), 0);  // one a row
  std::vector<float> logprobs(ids.size());
  const auto each_piece = [&](const auto& visit) {
    for (const ScheduledRows& rows : plan.rows) {
      if (!rows.wants_logits) continue;
      Active& a = *find(rows.id);
      for (std::size_t i = 0; i < a.pieces.size(); ++i) visit(a, a.pieces[i], a.first_row + i);
    }
  };
  each_piece([&](Active&, GeneratedPiece& piece, std::size_t row) { ids[row] = piece.id; });
  engine.device().log_prob({.logits = logits.data,
                            .stride = logits.stride,
                            .n = logits.cols,
                            .ids = ids,
                            .log_prob = logprobs.data()});
  each_piece([&](Active& a, GeneratedPiece& piece, std::size_t row) {
    piece.logprob = logprobs[row];
    if (const Index n_top = a.answer.options().n_top_logprobs; n_top > 0) {
      piece.top =
          top_logprobs(engine.device(),
                       {logits.row(static_cast<Index>(row)), static_cast<std::size_t>(logits.cols)},
                       engine.n_valid_ids(), n_top);
    }
  });
}

// Only steps that hold nothing but readers tell what drafts cost.
void Batcher::Parts::tell_drafters(const StepPlan& plan, double seconds) {
  const bool only_readers = std::ranges::all_of(plan.rows, [](const ScheduledRows& rows) {
    return static_cast<Index>(rows.ids.size()) == 1 + rows.n_drafts;
  });
  for (const ScheduledRows& rows : plan.rows) {
    Active* a = find(rows.id);
    if (a == nullptr || !rows.wants_logits) continue;
    const Index n_accepted =
        a->pieces.empty() ? 0 : std::min(static_cast<Index>(a->pieces.size()) - 1, rows.n_drafts);
    stats.n_drafted += rows.n_drafts;
    stats.n_accepted += n_accepted;
    a->answer.result().drafts.count(rows.n_drafts, n_accepted);
    if (!only_readers) continue;
    if (a->drafter) a->drafter->record(rows.n_drafts, n_accepted, plan.n_rows, seconds);
    if (batch_drafter) {
      batch_drafter->record(rows.id, rows.n_drafts, n_accepted, plan.n_rows, seconds);
    }
  }
}

// What was drawn goes to the scheduler first, so that events find everything in order.
void Batcher::Parts::deliver(const StepPlan& plan) {
  std::vector<TokenId> drawn;
  for (const ScheduledRows& rows : plan.rows) {
    if (!rows.wants_logits) continue;
    const Active& a = *find(rows.id);
    drawn.clear();
    for (const GeneratedPiece& piece : a.pieces) drawn.push_back(piece.id);
    if (!drawn.empty()) scheduler.append(rows.id, drawn);
    stats.n_generated += static_cast<Index>(drawn.size());
  }
  for (const ScheduledRows& rows : plan.rows) {
    if (!rows.wants_logits) continue;
    Active& a = *find(rows.id);
    for (const GeneratedPiece& piece : a.pieces) {
      a.answer.commit(piece);
      if (a.events.on_piece) a.events.on_piece(piece);
    }
    if (a.answer.finished() && !a.ended) a.ended = a.answer.finished();
  }
}

bool Batcher::Parts::step() {
  struct Guard {
    explicit Guard(bool& f) : flag(f) { flag = true; }
    ~Guard() { flag = false; }
    bool& flag;
  };
  if (active.empty()) return false;
  {
    const Guard guard(stepping);
    if (!scheduler.idle()) {
      const auto begin = Clock::now();
      propose_drafts();
      const StepPlan plan = scheduler.plan();
      note_admissions(plan);
      if (batch_drafter) batch_drafter->begin(plan);
      const auto [logits, hidden] = runner.run(plan);
      scheduler.computed(plan);
      ++stats.n_steps;
      stats.n_rows += plan.n_rows;
      note_prefill(plan);
      draw(plan, logits);
      if (logits.rows > 0) fill_logprobs(plan, logits);
      tell_batch_drafter(plan, hidden);
      tell_drafters(plan, seconds_between(begin, Clock::now()));
      deliver(plan);
    }
  }
  for (const auto& [id, error] : std::exchange(failed, {})) fail(id, error);
  std::vector<std::pair<RequestId, FinishReason>> ended;
  for (const auto& [id, a] : active) {
    if (a->ended) ended.emplace_back(id, *a->ended);
  }
  for (const auto& [id, reason] : ended) {
    if (find(id) != nullptr) end(id, reason);
  }
  return true;
}

BatcherStats Batcher::Parts::stats_now() const {
  BatcherStats s = stats;
  s.n_waiting = scheduler.n_waiting();
  s.n_running = scheduler.n_running();
  s.n_pages = engine.pages().n_pages();
  s.n_free_pages = engine.pages().n_free();
  s.n_tree_pages = tree.n_pages();
  return s;
}

// ---------------------------------------------------------------------------------------------------

Batcher::Batcher(Engine& engine, BatcherOptions options)
    : parts_(std::make_unique<Parts>(engine, std::move(options))) {}
Batcher::~Batcher() {
  // Nobody is told, but all pages are given back.
  for (const auto& [id, a] : parts_->active) {
    if (!(a->answer.finished() && !a->admitted)) parts_->scheduler.remove(id);
  }
}

RequestId Batcher::submit(Request request, RequestEvents events) {
  return parts_->submit(std::move(request), std::move(events));
}

bool Batcher::cancel(RequestId id, FinishReason reason) {
  Active* a = parts_->find(id);
  if (a == nullptr) return false;
  if (parts_->stepping) {
    a->ended = reason;
  } else {
    parts_->end(id, reason);
  }
  return true;
}

bool Batcher::step() { return parts_->step(); }

void Batcher::end_all(FinishReason reason) {
  while (!parts_->active.empty()) cancel(parts_->active.begin()->first, reason);
}

void Batcher::run() {
  do {
    if (interrupted()) return end_all(FinishReason::kInterrupted);
  } while (step());
}

PrefixTree& Batcher::prefixes() { return parts_->tree; }
BatcherStats Batcher::stats() const { return parts_->stats_now(); }
void Batcher::check_pages() const { parts_->scheduler.check_pages(); }

Generation generate(Batcher& batcher, std::span<const TokenId> prompt,
                    const GenerateOptions& options, const GenerateEvents& events) {
  std::optional<Generation> result;
  std::optional<Error> failure;
  const RequestId id =
      batcher.submit({.prompt = {prompt.begin(), prompt.end()}, .options = options},
                     {.on_prefill = events.on_prefill,
                      .on_piece = events.on_piece,
                      .on_done = [&](Generation g) { result = std::move(g); },
                      .on_error = [&](const Error& e) { failure = e; }});
  while (!result && !failure) {
    if (interrupted()) {
      batcher.cancel(id, FinishReason::kInterrupted);
    } else {
      batcher.step();
    }
  }
  if (failure) throw Error(*failure);
  return std::move(*result);
}

}  // namespace kogia
