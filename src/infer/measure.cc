#include "infer/measure.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/random.h"

namespace kogia {
namespace {

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

class Stopwatch {
 public:
  Elapsed elapsed() const {
    return {.wall_s = std::chrono::duration<double>(Clock::now() - wall_).count(),
            .cpu_s = cpu_seconds() - cpu_};
  }

 private:
  using Clock = std::chrono::steady_clock;
  double cpu_ = cpu_seconds();
  Clock::time_point wall_ = Clock::now();
};

Index pages_for(std::span<const Index> room) {
  Index n = 0;
  for (const Index tokens : room) n += ceil_div(tokens, kPageTokens);
  return n;
}

}  // namespace

// ---------------------------------------------------------------------------------------------------
// Timelines

RandomTimelines::RandomTimelines(Engine& engine, std::span<const Index> room, std::uint64_t seed)
    : engine_(engine),
      pool_(engine.model(), engine.cache().memory().spec.dtype, pages_for(room) * kPageTokens),
      seed_(seed),
      timelines_(room.size()) {
  for (std::size_t i = 0; i < room.size(); ++i) {
    for (Index page = 0; page < ceil_div(room[i], kPageTokens); ++page) {
      timelines_[i].pages.push_back(pool_.pages().take());
    }
  }
}

Index RandomTimelines::cache_bytes(Engine& engine, std::span<const Index> room) {
  return pages_for(room) * engine.cache().page_bytes();
}

TokenId RandomTimelines::token(Index timeline, Index position) const {
  const auto n = static_cast<std::uint64_t>(engine_.model().config().vocab_size);
  const Philox random(seed_, timeline);
  return static_cast<TokenId>(random.below(n, static_cast<std::uint64_t>(position)));
}

void RandomTimelines::add(Index timeline, Index begin, Index n, bool want_logits) {
  Timeline& t = timelines_[index(timeline)];
  KOGIA_CHECK(begin <= t.cached);
  KOGIA_CHECK(begin + n <= static_cast<Index>(t.pages.size()) * kPageTokens);
  sequences_.push_back({.row_begin = static_cast<Index>(ids_.size()),
                        .n_rows = n,
                        .first_pos = begin,
                        .pages = t.pages.data()});
  for (Index i = 0; i < n; ++i) ids_.push_back(token(timeline, begin + i));
  if (want_logits) logit_rows_.push_back(static_cast<std::int32_t>(ids_.size()) - 1);
  t.cached = std::max(t.cached, begin + n);
}

void RandomTimelines::run() {
  logits_ = engine_.model()
                .forward({.ids = ids_,
                          .sequences = sequences_,
                          .logit_rows = logit_rows_,
                          .cache = pool_.memory()},
                         engine_.workspace())
                .logits;
  ids_.clear();
  sequences_.clear();
  logit_rows_.clear();
}

Index RandomTimelines::n_missing(Index n, Index depth) const {
  Index missing = 0;
  for (Index t = 0; t < n; ++t) missing += std::max<Index>(depth - cached(t), 0);
  return missing;
}

Index RandomTimelines::fill(Index n, Index depth, const OnTokens& on_tokens) {
  const Index chunk = std::max<Index>(engine_.options().chunk, 1);
  Index done = 0;
  const auto step = [&] {
    throw_if_interrupted();
    const auto rows = static_cast<Index>(ids_.size());
    run();
    done += rows;
    if (on_tokens) on_tokens(rows);
  };
  for (Index t = 0; t < n; ++t) {
    while (cached(t) < depth) {
      const Index free = chunk - static_cast<Index>(ids_.size());
      add(t, cached(t), std::min(free, depth - cached(t)), false);
      if (static_cast<Index>(ids_.size()) == chunk) step();
    }
  }
  if (!ids_.empty()) step();
  return done;
}

void RandomTimelines::prefill(Index begin, Index n) {
  const Index chunk = std::max<Index>(engine_.options().chunk, 1);
  for (Index done = 0; done < n; done += chunk) {
    throw_if_interrupted();
    const Index rows = std::min(chunk, n - done);
    add(0, begin + done, rows, done + rows == n);
    run();
  }
}

Index RandomTimelines::decode(Index n, Index position) {
  for (Index t = 0; t < n; ++t) add(t, position, 1, true);
  run();
  return engine_.workspace().expert_bytes;
}

// ---------------------------------------------------------------------------------------------------
// Measuring

Speed speed_of(std::span<const Elapsed> repetitions, Index n_tokens) {
  KOGIA_CHECK(!repetitions.empty());
  std::vector<double> seconds;
  double cpu_s = 0;
  for (const Elapsed& e : repetitions) {
    seconds.push_back(e.wall_s);
    cpu_s += e.cpu_s;
  }
  std::ranges::sort(seconds);
  const auto n = static_cast<double>(n_tokens);
  const auto per = [](double tokens, double s) { return tokens / std::max(s, 1e-9); };
  const std::size_t middle = seconds.size() / 2;
  const bool odd = seconds.size() % 2 != 0;
  return {.median = per(n, odd ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2),
          .least = per(n, seconds.back()),
          .most = per(n, seconds.front()),
          .per_cpu_s = per(n * static_cast<double>(seconds.size()), cpu_s)};
}

std::vector<Index> Measurer::room_for(std::span<const MeasureCase> cases) {
  std::vector<Index> room(1, 1);
  for (const MeasureCase& c : cases) {
    room.resize(std::max(room.size(), static_cast<std::size_t>(c.batch)), 1);
    room[0] = std::max(room[0], c.depth + c.prompt);
    for (Index t = 0; t < c.batch && c.gen > 0; ++t) {
      Index& tokens = room[static_cast<std::size_t>(t)];
      tokens = std::max(tokens, c.depth + c.gen);
    }
  }
  return room;
}

Measurer::Measurer(Engine& engine, std::span<const MeasureCase> cases,
                   const MeasureOptions& options)
    : engine_(engine),
      options_(options),
      active_(engine.model().active_weights()),
      timelines_(engine, room_for(cases), options.seed) {}

Measurement Measurer::measure(const MeasureCase& c) {
  Measurement m;
  if (c.prompt > 0) {
    const auto key = std::pair(c.prompt, c.depth);
    if (!prefill_.contains(key)) prefill_[key] = measure_prefill(c);
    m.prefill = prefill_[key];
  }
  if (c.gen > 0) {
    const auto key = std::tuple(c.gen, c.depth, c.batch);
    if (!decode_.contains(key)) decode_[key] = measure_decode(c);
    m.decode = decode_[key].speed;
    m.weight_bytes_per_token = decode_[key].weight_bytes_per_token;
    m.cache_bytes_per_token = cache_bytes_per_token(c);
  }
  return m;
}

void Measurer::fill(Index n, Index depth) {
  const Index missing = timelines_.n_missing(n, depth);
  if (missing == 0) return;
  Progress progress(fmt::format("filling the cache to depth {}", depth), missing,
                    ProgressUnit::kCount,
                    options_.show_progress ? Progress::Mode::kAuto : Progress::Mode::kSilent);
  timelines_.fill(n, depth, [&](Index tokens) { progress.add(tokens); });
  warmed_rows_ = std::max(warmed_rows_, std::min(missing, engine_.options().chunk));
}

Speed Measurer::measure_prefill(const MeasureCase& c) {
  fill(1, c.depth);
  // The first step of its size makes buffers grow and touches new pages of the cache, so one goes
  // before those that count.
  const Index rows = std::min(c.prompt, engine_.options().chunk);
  if (warmed_rows_ < rows || timelines_.cached(0) < c.depth + rows) {
    timelines_.prefill(c.depth, rows);
    warmed_rows_ = std::max(warmed_rows_, rows);
  }
  Progress progress(fmt::format("prefill of {} at depth {}", c.prompt, c.depth),
                    c.prompt * options_.repeat, ProgressUnit::kCount,
                    options_.show_progress ? Progress::Mode::kAuto : Progress::Mode::kSilent);
  std::vector<Elapsed> repetitions;
  for (Index i = 0; i < options_.repeat; ++i) {
    const Stopwatch watch;
    timelines_.prefill(c.depth, c.prompt);
    repetitions.push_back(watch.elapsed());
    progress.add(c.prompt);
  }
  return speed_of(repetitions, c.prompt);
}

Measurer::Decode Measurer::measure_decode(const MeasureCase& c) {
  fill(c.batch, c.depth);
  // Unmeasured: buffers grow, and what the step before read leaves the caches.
  for (Index i = 0; i < std::min<Index>(c.gen, 2); ++i) timelines_.decode(c.batch, c.depth + i);
  Progress progress(fmt::format("decode of {} at depth {}, batch {}", c.gen, c.depth, c.batch),
                    c.gen * c.batch * options_.repeat, ProgressUnit::kCount,
                    options_.show_progress ? Progress::Mode::kAuto : Progress::Mode::kSilent);
  std::vector<Elapsed> repetitions;
  double expert_bytes = 0;
  for (Index i = 0; i < options_.repeat; ++i) {
    const Stopwatch watch;
    for (Index step = 0; step < c.gen; ++step) {
      throw_if_interrupted();
      expert_bytes += static_cast<double>(timelines_.decode(c.batch, c.depth + step));
    }
    repetitions.push_back(watch.elapsed());
    progress.add(c.gen * c.batch);
  }
  const auto steps = static_cast<double>(c.gen * options_.repeat);
  const double step_bytes = active_.always.bytes + active_.head.bytes + expert_bytes / steps;
  return {.speed = speed_of(repetitions, c.gen * c.batch),
          .weight_bytes_per_token = step_bytes / static_cast<double>(c.batch)};
}

// A token at position p reads p + 1 tokens of every layer; of gen steps the mean.
double Measurer::cache_bytes_per_token(const MeasureCase& c) const {
  const CacheSpec spec = engine_.cache().memory().spec;
  const Index per_token = spec.values_per_token() * (spec.dtype == DType::f32 ? 4 : 2) *
                          engine_.model().config().num_hidden_layers;
  const double tokens = static_cast<double>(c.depth) + static_cast<double>(c.gen + 1) / 2;
  return tokens * static_cast<double>(per_token);
}

}  // namespace kogia
