// kogia bench: how fast a model reads and writes on this machine.

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "infer/session.h"

namespace kogia::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct BenchFlags {
  std::string model;
  Index prompt = 512, gen = 64, repeat = 3;
  bool json = false;
  std::uint64_t seed = 0;
  EngineFlags engine;
};

CommandLine describe(BenchFlags& f) {
  return {
      .name = "bench",
      .summary =
          "Tokens per second of prefill (a prompt of random tokens) and of decode (one token "
          "at a time after it). Each is measured several times; the median counts.",
      .positionals = {{"MODEL", "a folder as Hugging Face lays it out, or a .gguf file", &f.model}},
      .groups = {{"Measurement",
                  {{.flags = "--prompt",
                    .value = "N",
                    .help = "tokens of the prompt (512)",
                    .target = &f.prompt,
                    .low = 1,
                    .high = 1 << 24},
                   {.flags = "--gen",
                    .value = "N",
                    .help = "tokens decoded after it (64)",
                    .target = &f.gen,
                    .low = 0,
                    .high = 1 << 24},
                   {.flags = "--repeat",
                    .value = "N",
                    .help = "how often (3)",
                    .target = &f.repeat,
                    .low = 1,
                    .high = 1000},
                   {.flags = "--seed",
                    .value = "N",
                    .help = "of the random tokens (0)",
                    .target = &f.seed}}},
                 {"Output",
                  {{.flags = "--json", .value = {}, .help = "one object", .target = &f.json}}},
                 {"Engine", f.engine.rows()}},
      .examples = {"kogia bench model.gguf --prompt 512 --gen 64 --json"}};
}

struct Round {
  double prefill_s = 0, decode_s = 0;
};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Round measure(Engine& engine, std::span<const TokenId> prompt,
              std::span<const TokenId> continuation) {
  Session session(engine);
  Round round;
  auto begin = Clock::now();
  session.set_tokens(prompt);
  round.prefill_s = seconds_since(begin);
  begin = Clock::now();
  for (const TokenId id : continuation) {
    throw_if_interrupted();
    session.append(id);
  }
  round.decode_s = seconds_since(begin);
  return round;
}

struct Speed {
  double median = 0, least = 0, most = 0;
};

Speed speed_of(std::vector<double> seconds, Index n_tokens) {
  if (n_tokens == 0) return {};
  std::ranges::sort(seconds);
  const auto n = static_cast<double>(n_tokens);
  return {.median = n / seconds[seconds.size() / 2],
          .least = n / seconds.back(),
          .most = n / seconds.front()};
}

Json to_json(const Speed& speed, Index n_tokens) {
  return {{"tokens", n_tokens},
          {"tokens_per_s", speed.median},
          {"min", speed.least},
          {"max", speed.most}};
}

std::string line_of(std::string_view name, const Speed& speed, Index n_tokens) {
  return fmt::format("{:<9}{:>6} tokens  {:>9.2f} tok/s  [{:.2f} to {:.2f}]\n", name, n_tokens,
                     speed.median, speed.least, speed.most);
}

std::string_view mla_name(MlaForm form) {
  return form == MlaForm::kAuto ? "auto" : form == MlaForm::kExpanded ? "expanded" : "absorbed";
}

}  // namespace

int bench_command(Arguments arguments) {
  BenchFlags f;
  if (!parse(describe(f), arguments)) return 0;
  EngineFlags engine_flags = f.engine;
  if (engine_flags.ctx == 0) engine_flags.ctx = f.prompt + f.gen;
  if (engine_flags.ctx < f.prompt + f.gen) {
    throw_error(ErrorCode::kUsage, "--ctx is {}, expected {} or more: --prompt {} and --gen {}",
                engine_flags.ctx, f.prompt + f.gen, f.prompt, f.gen);
  }
  const auto engine = open_engine(f.model, engine_flags);
  const Philox random(f.seed);
  std::vector<TokenId> ids;
  for (Index i = 0; i < f.prompt + f.gen; ++i) {
    const auto n = static_cast<std::uint64_t>(engine->model().config().vocab_size);
    ids.push_back(static_cast<TokenId>(random.below(n, static_cast<std::uint64_t>(i))));
  }
  const std::span<const TokenId> prompt(ids.data(), static_cast<std::size_t>(f.prompt));
  const auto continuation = std::span<const TokenId>(ids).subspan(prompt.size());

  const InterruptGuard ctrl_c;
  // Once unmeasured: pages are touched and buffers grow.
  measure(*engine, prompt.first(std::min<std::size_t>(prompt.size(), 64)),
          continuation.first(std::min<std::size_t>(continuation.size(), 4)));
  std::vector<double> prefill_s, decode_s;
  for (Index i = 0; i < f.repeat; ++i) {
    const Round round = measure(*engine, prompt, continuation);
    prefill_s.push_back(round.prefill_s);
    decode_s.push_back(round.decode_s);
  }
  const Speed prefill = speed_of(prefill_s, f.prompt), decode = speed_of(decode_s, f.gen);

  const Device& device = engine->device();
  if (f.json) {
    write_json({{"model", f.model},
                {"device", device.name()},
                {"threads", device.n_threads()},
                {"weights", engine->model().weights_summary()},
                {"weight_bytes", engine->model().n_weight_bytes()},
                {"mla", mla_name(engine->options().mla)},
                {"chunk", engine->options().chunk},
                {"repeat", f.repeat},
                {"prefill", to_json(prefill, f.prompt)},
                {"decode", to_json(decode, f.gen)}});
    return 0;
  }
  write_out(fmt::format("{}, {}; {}\n", device.name(), counted(device.n_threads(), "thread"),
                        printable(engine->model().weights_summary())) +
            line_of("prefill", prefill, f.prompt) +
            (f.gen > 0 ? line_of("decode", decode, f.gen) : std::string()));
  return 0;
}

}  // namespace kogia::cli
