// kogia train: from text to a checkpoint.

#include <cstdlib>
#include <fstream>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "device/cpu_device.h"
#include "train/run_file.h"
#include "train/tokenise.h"
#include "train/trainer.h"

namespace kogia::cli {
namespace {

namespace fs = std::filesystem;

struct TrainFlags {
  std::string file, out, isa;
  std::vector<std::string> set;
  std::optional<Index> threads;
  bool fresh = false, json = false, quiet = false;
};

CommandLine describe(TrainFlags& f) {
  return {.name = "train",
          .summary =
              "Trains a model as a run file says, from text to a folder that Hugging Face's "
              "transformers load. Where DIR holds a checkpoint of the same run, it goes on from "
              "there. Ctrl-C leaves a checkpoint.",
          .positionals = {{"FILE", "the run file (TOML): docs/training.md has every key", &f.file}},
          .groups = {{"Run",
                      {{.flags = "--out,-o",
                        .value = "DIR",
                        .help = "where checkpoints and metrics.jsonl go; DIR/latest is the newest",
                        .target = &f.out},
                       {.flags = "--set",
                        .value = "KEY=VALUE",
                        .help = "over the run file: trainer.steps=60; may be given again",
                        .target = &f.set},
                       {.flags = "--fresh",
                        .value = {},
                        .help = "begin anew: checkpoints in DIR are removed",
                        .target = &f.fresh}}},
                     {"Working",
                      {{.flags = "--threads,-t",
                        .value = "N",
                        .help = "threads (trainer.threads; 0: all cores)",
                        .target = &f.threads,
                        .low = 0},
                       {.flags = "--isa",
                        .value = "NAME",
                        .help = "instruction set: scalar, avx2, avx512, neon (the best there is)",
                        .target = &f.isa,
                        .choices = {"scalar", "avx2", "avx512", "neon"}}}},
                     {"Output",
                      {{.flags = "--json",
                        .value = {},
                        .help = "one object at the end: steps, loss, tokens, seconds, checkpoint",
                        .target = &f.json},
                       {.flags = "--quiet,-q",
                        .value = {},
                        .help = "no progress on standard error",
                        .target = &f.quiet}}}},
          .examples = {
              "kogia train examples/tiny/pretrain.toml --out runs/tiny",
              "kogia train run.toml --out runs/a --set trainer.steps=60 --set optimizer.lr=3e-4"}};
}

RunFileOptions file_options(const TrainFlags& f) {
  RunFileOptions options{.overrides = f.set};
  if (f.threads) options.overrides.push_back(fmt::format("trainer.threads={}", *f.threads));
  if (const char* home = std::getenv("HOME")) options.home = home;
  options.cache = cache_folder();
  return options;
}

std::unique_ptr<Device> make_device(const TrainFlags& f, const RunConfig& config) {
  CpuOptions options{.n_threads = static_cast<int>(config.trainer.threads)};
  if (!f.isa.empty()) options.isa = parse_isa(f.isa);
  return make_cpu_device(options);
}

/// The checkpoint to go on from, if it is one of this run.
std::optional<RunFolder::Found> checkpoint_of(RunFolder& folder, const RunConfig& config,
                                              const TrainFlags& f) {
  if (f.fresh) {
    folder.clear();
    return {};
  }
  std::optional<RunFolder::Found> found = folder.newest();
  if (!found) return found;
  for (const std::string& skipped : found->skipped) write_note("skipped: " + skipped);
  RunFileOptions as_written = file_options(f);
  as_written.overrides.clear();
  as_written.resolved = true;
  const fs::path toml = found->path / "kogia" / "run.toml";
  const RunConfig before = parse_run_file(found->run_toml, toml, as_written);
  if (const auto difference = first_difference(before, config)) {
    throw Error(ErrorCode::kUsage,
                fmt::format("{} holds a run with {} = {}, this one has {}", folder.path().string(),
                            difference->field, difference->first, difference->second),
                "name another --out, or --fresh to begin anew");
  }
  return found;
}

std::unique_ptr<Corpus> open_rows(const RunConfig& config, const RunTokenizer& tokenizer,
                                  Progress::Mode mode) {
  const Index n_bytes = bytes_to_tokenise(config, tokenizer);
  Progress progress("tokenising", n_bytes, ProgressUnit::kBytes,
                    n_bytes > 0 ? mode : Progress::Mode::kSilent);
  auto corpus = open_corpus(config, tokenizer,
                            {.n_threads = static_cast<int>(config.trainer.threads),
                             .on_bytes = [&](Index n) { progress.add(n); }});
  progress.finish();
  return corpus;
}

/// Operations a second that the products of a recipe can reach on this machine, measured; 0: not
/// known.
double peak_flop_s(Device& device, Recipe recipe) {
  const Compute compute = recipe == Recipe::kF32 ? Compute::f32 : Compute::bf16;
  return 1e9 * device.measure_product_limits().peak_gflop_s(compute).value_or(0);
}

std::string note_of(const StepReport& r, double peak_flop_s) {
  std::string note = fmt::format("loss {:.4f}  {:.0f} tok/s", r.result.loss,
                                 static_cast<double>(r.result.n_tokens) / r.seconds);
  if (peak_flop_s > 0) {
    note += fmt::format("  MFU {:.0f} %", 100 * r.flops / r.seconds / peak_flop_s);
  }
  if (r.validation_loss) note += fmt::format("  held out {:.4f}", *r.validation_loss);
  return note;
}

void print(const TrainFlags& f, const TrainReport& r) {
  if (f.json) {
    nlohmann::ordered_json out{{"first_step", r.first_step}, {"step", r.n_steps}, {"loss", r.loss}};
    if (r.validation_loss) out["validation_loss"] = *r.validation_loss;
    out["tokens"] = r.n_tokens;
    out["seconds"] = r.seconds;
    out["checkpoint"] = r.checkpoint.string();
    out["interrupted"] = r.interrupted;
    return write_json(out);
  }
  std::string text = fmt::format("step {}: loss {:.4f}", r.n_steps, r.loss);
  if (r.validation_loss) text += fmt::format(", held out {:.4f}", *r.validation_loss);
  if (r.seconds > 0)
    text += fmt::format(", {:.0f} tok/s", static_cast<double>(r.n_tokens) / r.seconds);
  write_out(fmt::format("{}\n{}\n", text, r.checkpoint.string()));
}

}  // namespace

int train_command(Arguments arguments) {
  TrainFlags f;
  if (!parse(describe(f), arguments)) return 0;
  if (f.out.empty()) throw Error(ErrorCode::kUsage, "--out is missing: the folder of the run");
  const InterruptGuard guard;
  const RunConfig config = read_run_file(f.file, file_options(f));
  const auto device = make_device(f, config);
  RunFolder folder(f.out);
  const auto checkpoint = checkpoint_of(folder, config, f);
  const auto mode = f.quiet ? Progress::Mode::kSilent : Progress::Mode::kAuto;
  RunTokenizer tokenizer = load_tokenizer(config);
  const auto rows = open_rows(config, tokenizer, mode);
  Trainer trainer(config, *device, *rows, folder, checkpoint, std::move(tokenizer.parts));
  if (!f.quiet) {
    write_note(fmt::format("{} parameters, {}, {} threads", short_count(trainer.n_parameters()),
                           device->name(), device->n_threads()));
    if (checkpoint) write_note(fmt::format("going on from step {}", trainer.first_step()));
  }
  const double peak = f.quiet ? 0 : peak_flop_s(*device, config.precision.recipe);
  Progress progress("training", config.trainer.steps, ProgressUnit::kCount, mode);
  progress.go_on_from(trainer.first_step());
  const TrainReport report = trainer.run([&](const StepReport& r) {
    progress.add(1);
    progress.say(note_of(r, peak));
  });
  progress.finish();
  print(f, report);
  if (report.interrupted) {
    throw Error(ErrorCode::kInterrupted, fmt::format("stopped after step {}", report.n_steps),
                "the same command goes on from there");
  }
  return 0;
}

}  // namespace kogia::cli
