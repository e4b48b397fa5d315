// kogia bench: how fast a model reads and writes on this machine, and how near that is to what the
// machine can do.

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_flags.h"
#include "cli/machine.h"
#include "cli/output.h"
#include "infer/batcher.h"
#include "infer/measure.h"
#include "infer/measure_arrival.h"

namespace kogia::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMaxTokens = 1 << 24, kMaxBatch = 4096;

struct BenchFlags {
  std::string model;
  std::vector<Index> prompt{512}, gen{64}, batch{1}, depth{0};
  Index repeat = 3, arriving = 0;
  bool json = false;
  std::uint64_t seed = 0;
  EngineFlags engine;
};

CommandLine describe(BenchFlags& f) {
  OptionGroup measurement{"Measurement", {}};
  const auto list = [&](const char* flag, const char* help, std::vector<Index>& to, double low,
                        double high) {
    measurement.rows.push_back(
        {.flags = flag, .value = "LIST", .help = help, .target = &to, .low = low, .high = high});
  };
  list("--prompt", "tokens of a prompt; 0: no prefill (512)", f.prompt, 0, kMaxTokens);
  list("--gen", "tokens decoded, one after another; 0: no decode (64)", f.gen, 0, kMaxTokens);
  list("--batch", "sequences that decode together (1)", f.batch, 1, kMaxBatch);
  list("--depth", "tokens in the cache before: of prefill and of each sequence of decode (0)",
       f.depth, 0, kMaxTokens);
  measurement.rows.push_back({.flags = "--repeat",
                              .value = "N",
                              .help = "how often (3)",
                              .target = &f.repeat,
                              .low = 1,
                              .high = 1000});
  measurement.rows.push_back(
      {.flags = "--arriving",
       .value = "N",
       .help =
           "instead: what --batch texts that are being written notice when a prompt of N tokens "
           "arrives",
       .target = &f.arriving,
       .low = 1,
       .high = kMaxTokens});
  measurement.rows.push_back(
      {.flags = "--seed", .value = "N", .help = "of the random tokens (0)", .target = &f.seed});
  return {
      .name = "bench",
      .summary =
          "Tokens per second of prefill (a prompt of random tokens) and of decode (one token at a "
          "time), and their share of what the machine can do, which is measured first. A LIST is "
          "numbers with commas between; each combination is a case. Each case is measured several "
          "times; the median counts.",
      .positionals = {{"MODEL", kModelHelp, &f.model}},
      .groups = {measurement,
                 {"Output",
                  {{.flags = "--json",
                    .value = {},
                    .help = "a line for the machine, then a line a case",
                    .target = &f.json}}},
                 {"Engine", f.engine.rows()}},
      .examples = {"kogia bench model.gguf",
                   "kogia bench model.gguf --prompt 32,512 --gen 64 --batch 1,4,8,16 "
                   "--depth 0,4096 --json",
                   "kogia bench model.gguf --arriving 4096 --batch 4"}};
}

// Depth by depth, so that what is in the cache only grows; a value given twice counts once.
std::vector<MeasureCase> cases_of(const BenchFlags& f) {
  std::vector<MeasureCase> cases;
  const auto same = [](const MeasureCase& a, const MeasureCase& b) {
    return std::tie(a.prompt, a.gen, a.depth, a.batch) ==
           std::tie(b.prompt, b.gen, b.depth, b.batch);
  };
  for (const Index depth : f.depth) {
    for (const Index batch : f.batch) {
      for (const Index prompt : f.prompt) {
        for (const Index gen : f.gen) {
          const MeasureCase c{.prompt = prompt, .gen = gen, .depth = depth, .batch = batch};
          const bool known = std::ranges::any_of(cases, [&](const auto& k) { return same(k, c); });
          if (!known && (prompt > 0 || gen > 0)) cases.push_back(c);
        }
      }
    }
  }
  if (cases.empty()) throw_error(ErrorCode::kUsage, "--prompt 0 and --gen 0 measure nothing");
  return cases;
}

/// The context that the longest timeline needs.
Index choose_ctx(Index asked, std::span<const Index> room) {
  const Index needed = std::ranges::max(room);
  if (asked != 0 && asked < needed) {
    throw_error(ErrorCode::kUsage,
                "--ctx is {}, expected {} or more: --depth and --prompt or --gen", asked, needed);
  }
  return asked != 0 ? asked : needed;
}

void check_cache_fits(Engine& engine, std::span<const Index> room) {
  const Index bytes = RandomTimelines::cache_bytes(engine, room);
  const Index available = read_machine().available_bytes;
  if (available == 0 || bytes <= available) return;
  throw Error(ErrorCode::kUsage,
              fmt::format("the cache of {} takes {}, {} are available",
                          counted(static_cast<Index>(room.size()), "sequence"), format_bytes(bytes),
                          format_bytes(available)),
              "ask for less with --batch, --depth, --prompt or --gen");
}

// ---------------------------------------------------------------------------------------------------
// What a case comes to

/// Of one case; unset where it was not measured or the machine's limit is not known.
struct Shares {
  std::optional<double> bandwidth_gb_s, bandwidth_share, gflop_s, peak_share;
  std::optional<double> decode_gflop_s, decode_peak_share;

  /// Of what bounds decode: few sequences wait for weights, many for products.
  bool decode_is_products() const { return decode_peak_share > bandwidth_share; }
  std::optional<double> decode_share() const {
    return decode_is_products() ? decode_peak_share : bandwidth_share;
  }
};

std::optional<double> ratio(std::optional<double> x, std::optional<double> y) {
  return x && y && *y > 0 ? std::optional(*x / *y) : std::nullopt;
}

Shares shares_of(const Measurement& m, const ActiveWeights& active, const MachineLimits& limits) {
  Shares s;
  if (m.decode) s.bandwidth_gb_s = 1e-9 * m.weight_bytes_per_token * m.decode->median;
  if (m.prefill) s.gflop_s = 2e-9 * active.layer_parameters() * m.prefill->median;
  s.bandwidth_share = ratio(s.bandwidth_gb_s, limits.read_gb_s);
  s.peak_share = ratio(s.gflop_s, limits.peak_gflop_s(active.compute()));
  if (m.decode) s.decode_gflop_s = 2e-9 * active.parameters() * m.decode->median;
  s.decode_peak_share = ratio(s.decode_gflop_s, limits.peak_gflop_s(active.compute()));
  return s;
}

Json or_null(std::optional<double> x) { return x ? Json(*x) : Json(); }

Json machine_json(const Engine& engine, const MachineLimits& limits) {
  return {{"device", engine.device().name()},
          {"processor", read_machine().processor},
          {"threads", engine.device().n_threads()},
          {"read_gb_s", or_null(limits.read_gb_s)},
          {"read_pattern", limits.read_pattern},
          {"f32_gflop_s", or_null(limits.f32_gflop_s)},
          {"bf16_gflop_s", or_null(limits.bf16_gflop_s)},
          {"int16_gop_s", or_null(limits.int16_gop_s)},
          {"int8_gop_s", or_null(limits.int8_gop_s)}};
}

void add_speed(Json& json, const std::string& name, const std::optional<Speed>& speed) {
  json[name] = speed ? Json(speed->median) : Json();
  json[name + "_min"] = speed ? Json(speed->least) : Json();
  json[name + "_max"] = speed ? Json(speed->most) : Json();
  json[name + "_per_cpu"] = speed ? Json(speed->per_cpu_s) : Json();
}

Json case_json(const BenchFlags& f, const Engine& engine, const ActiveWeights& active,
               const MeasureCase& c, const Measurement& m, const Shares& s) {
  const EngineOptions& options = engine.options();
  Json json{{"model", f.model},
            {"weights", engine.model().weights_summary()},
            {"device", engine.device().name()},
            {"threads", engine.device().n_threads()},
            {"prompt", c.prompt},
            {"gen", c.gen},
            {"depth", c.depth},
            {"batch", c.batch}};
  add_speed(json, "prefill_tok_s", m.prefill);
  add_speed(json, "decode_tok_s", m.decode);
  const auto whole = [](double x) { return Json(std::llround(x)); };
  json["weight_bytes_per_token"] = m.decode ? whole(m.weight_bytes_per_token) : Json();
  json["cache_bytes_per_token"] = m.decode ? whole(m.cache_bytes_per_token) : Json();
  json["bandwidth_gb_s"] = or_null(s.bandwidth_gb_s);
  json["bandwidth_share"] = or_null(s.bandwidth_share);
  json["decode_gflop_s"] = or_null(s.decode_gflop_s);
  json["decode_peak_share"] = or_null(s.decode_peak_share);
  json["gflop_s"] = or_null(s.gflop_s);
  json["peak_share"] = or_null(s.peak_share);
  json["active_parameters"] = whole(active.parameters());
  json["weight_bytes"] = engine.model().n_weight_bytes();
  json["compute"] = name(active.compute());
  json["mla"] = name(options.mla);
  json["cache_type"] = name(engine.cache().memory().spec.dtype);
  json["chunk"] = options.chunk;
  json["repeat"] = f.repeat;
  return json;
}

// ---------------------------------------------------------------------------------------------------
// The same for people

std::string rate_words(std::optional<double> rate, std::string_view unit) {
  return rate ? fmt::format("{:.0f} {}", *rate, unit) : std::string("none");
}

std::string heading(const Engine& engine, const MachineLimits& limits) {
  const std::string read = limits.read_gb_s ? fmt::format("{:.1f} GB/s", *limits.read_gb_s) : "?";
  return fmt::format(
      "{}, {}; {}\nlimits now: memory {}; f32 {}, bf16 {}, int16 {}, int8 {}\n\n"
      "{:<8}{:>8}{:>8}{:>7}{:>11}{:>22}{:>18}{:>9}\n",
      engine.device().name(), counted(engine.device().n_threads(), "thread"),
      printable(engine.model().weights_summary()), read, rate_words(limits.f32_gflop_s, "GFLOP/s"),
      rate_words(limits.bf16_gflop_s, "GFLOP/s"), rate_words(limits.int16_gop_s, "GOP/s"),
      rate_words(limits.int8_gop_s, "GOP/s"), "", "tokens", "depth", "batch", "tok/s",
      "least to most", "rate", "of limit");
}

std::string table_row(std::string_view phase, Index tokens, Index depth, Index batch,
                      const Speed& speed, const std::string& rate, std::optional<double> share) {
  return fmt::format("{:<8}{:>8}{:>8}{:>7}{:>11.2f}{:>22}{:>18}{:>9}\n", phase, tokens, depth,
                     batch, speed.median, fmt::format("{:.2f} to {:.2f}", speed.least, speed.most),
                     rate, share ? fmt::format("{:.0f} %", 100 * *share) : std::string("?"));
}

/// The rows that are new with a case: combinations share what they have in common.
class Table {
 public:
  std::string rows(const MeasureCase& c, const Measurement& m, const Shares& s, Compute compute) {
    std::string out;
    const auto products = [&](std::optional<double> gflop_s) {
      return fmt::format("{:.0f} GFLOP/s {}", *gflop_s, name(compute));
    };
    if (m.prefill && prefill_seen_.emplace(c.prompt, c.depth).second) {
      out +=
          table_row("prefill", c.prompt, c.depth, 1, *m.prefill, products(s.gflop_s), s.peak_share);
    }
    if (m.decode && decode_seen_.emplace(c.gen, c.depth, c.batch).second) {
      const std::string rate = s.decode_is_products()
                                   ? products(s.decode_gflop_s)
                                   : fmt::format("{:.1f} GB/s", *s.bandwidth_gb_s);
      out += table_row("decode", c.gen, c.depth, c.batch, *m.decode, rate, s.decode_share());
    }
    return out;
  }

 private:
  std::set<std::pair<Index, Index>> prefill_seen_;
  std::set<std::tuple<Index, Index, Index>> decode_seen_;
};

// ---------------------------------------------------------------------------------------------------
// A prompt that arrives

Json gaps_json(const std::vector<double>& seconds) {
  return {{"median_s", median_of(seconds)}, {"longest_s", std::ranges::max(seconds)}};
}

std::string gaps_row(std::string_view what, const std::vector<double>& seconds) {
  return fmt::format("{:<32}{:>9.1f} ms{:>9.1f} ms\n", what, 1e3 * median_of(seconds),
                     1e3 * std::ranges::max(seconds));
}

void show_arrival(const BenchFlags& f, const ArrivalCase& c, const Arrival& a) {
  if (f.json) {
    write_json(Json{{"model", f.model},
                    {"arriving", c.prompt},
                    {"readers", c.n_readers},
                    {"chunk", c.chunk},
                    {"alone", gaps_json(a.alone)},
                    {"beside", gaps_json(a.beside)},
                    {"chunks", gaps_json(a.chunks)},
                    {"unexplained", a.unexplained()}});
    return;
  }
  write_out(
      fmt::format("{} being written, a prompt of {} tokens arrives; {} of them a step\n"
                  "{:<32}{:>12}{:>12}\n",
                  counted(c.n_readers, "text"), c.prompt, c.chunk, "gap between two tokens",
                  "median", "longest"));
  write_out(gaps_row("alone", a.alone) + gaps_row("beside the prompt", a.beside) +
            gaps_row("the prompt's chunks alone", a.chunks));
  write_out(fmt::format("longest gap, of what both take apart: {:.2f}\n\n", a.unexplained()));
}

int bench_arrivals(const BenchFlags& f) {
  std::vector<ArrivalCase> cases;
  Index tokens = 0;
  for (const Index batch : f.batch) {
    cases.push_back({.n_readers = batch,
                     .prompt = f.arriving,
                     .chunk = std::min(f.engine.chunk, BatcherOptions().beside_tokens),
                     .seed = f.seed});
    tokens = std::max(tokens, arrival_tokens(cases.back()));
  }
  EngineFlags engine_flags = f.engine;
  const std::vector<Index> room{f.arriving + 1};
  engine_flags.ctx = choose_ctx(f.engine.ctx, room);
  engine_flags.cache_tokens = std::max(tokens, engine_flags.ctx);
  const InterruptGuard ctrl_c;
  const auto engine = open_engine(f.model, engine_flags);
  for (const ArrivalCase& c : cases) show_arrival(f, c, measure_arrival(*engine, c));
  return 0;
}

}  // namespace

int bench_command(Arguments arguments) {
  BenchFlags f;
  if (!parse(describe(f), arguments)) return 0;
  if (f.arriving > 0) return bench_arrivals(f);
  const std::vector<MeasureCase> cases = cases_of(f);
  const std::vector<Index> room = Measurer::room_for(cases);
  EngineFlags engine_flags = f.engine;
  engine_flags.ctx = choose_ctx(f.engine.ctx, room);
  const InterruptGuard ctrl_c;
  const auto engine = open_engine(f.model, engine_flags);
  check_cache_fits(*engine, room);
  throw_if_interrupted();

  const MachineLimits limits = engine->device().measure_limits();
  if (f.json) {
    write_json(machine_json(*engine, limits));
  } else {
    write_out(heading(*engine, limits));
  }
  Measurer measurer(*engine, cases,
                    {.repeat = f.repeat, .seed = f.seed, .show_progress = !f.engine.quiet});
  Table table;
  for (const MeasureCase& c : cases) {
    const Measurement m = measurer.measure(c);
    const Shares s = shares_of(m, measurer.active(), limits);
    if (f.json) {
      write_json(case_json(f, *engine, measurer.active(), c, m, s));
    } else {
      write_out(table.rows(c, m, s, measurer.active().compute()));
    }
  }
  return 0;
}

}  // namespace kogia::cli
