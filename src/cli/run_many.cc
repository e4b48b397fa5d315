// kogia run --prompts: many prompts, many answers.

#include <chrono>
#include <filesystem>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/draft_report.h"
#include "cli/output.h"
#include "cli/run_flags.h"
#include "cli/run_prompts.h"

namespace kogia::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

[[noreturn]] void refuse(const std::string& message, const std::string& help = {}) {
  throw Error(ErrorCode::kUsage, message, help);
}

// How far a run is: answers done, tokens a second, and when it ends.
class RunProgress {
 public:
  RunProgress(Index n_answers, bool quiet)
      : bar_("answers", n_answers, ProgressUnit::kCount,
             quiet ? Progress::Mode::kSilent : Progress::Mode::kAuto) {}
  void show(Index n_answers, Index n_tokens) {
    const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    bar_.add(n_answers - bar_.done());
    bar_.say(fmt::format("{:.0f} tok/s", static_cast<double>(n_tokens) / seconds));
  }
  void finish() { bar_.finish(); }

 private:
  const Clock::time_point begin_ = Clock::now();
  Progress bar_;
};

double share(Index part, Index whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

void print_summary(const RunFlags& f, const PromptRunResult& r, Index n_kept, Index n_missing,
                   double seconds) {
  const double rate = seconds > 0 ? static_cast<double>(r.n_tokens) / seconds : 0;
  if (f.json && !f.out.empty()) {
    nlohmann::ordered_json summary = {{"answers", r.n_answers},
                                      {"failed", r.n_failed},
                                      {"kept", n_kept},
                                      {"missing", n_missing},
                                      {"prompt_tokens", r.n_prompt_tokens},
                                      {"cached_tokens", r.n_cached_tokens},
                                      {"completion_tokens", r.n_tokens},
                                      {"seconds", seconds},
                                      {"tokens_per_s", rate}};
    add_drafts(summary, r.drafts);
    write_json(summary);
  }
  if (f.engine.quiet) return;
  std::string line =
      fmt::format("{}, {} in {}, {:.1f} tok/s; prompts {}, {:.0f} % cached",
                  counted(r.n_answers + r.n_failed, "answer"), counted(r.n_tokens, "token"),
                  format_duration(seconds), rate, counted(r.n_prompt_tokens, "token"),
                  100 * share(r.n_cached_tokens, r.n_prompt_tokens));
  if (const auto drafts = draft_line(r.drafts, r.n_tokens); !drafts.empty()) line += "; " + drafts;
  if (n_kept > 0) line += fmt::format("; {} there before", with_commas(n_kept));
  write_note(line);
}

void say_what_is_left_out(const PromptPlan& plan) {
  if (plan.ignored.empty()) return;
  log_warning("keys that are no settings are left out: {}", fmt::join(plan.ignored, ", "));
}

std::unique_ptr<Answers> open_answers(const RunFlags& f, const PromptFile& file,
                                      const PromptPlan& plan, const std::string& salt) {
  if (f.out.empty()) return answers_to_stdout(plan.n_slots());
  return open_answer_file(f.out, plan.n_slots(), [&file, &plan, salt](Index slot) {
    return answer_head(file, plan, salt, slot);
  });
}

void check_all(const RunFlags& f, const Engine& engine, const PromptFile& file,
               const PromptDefaults& defaults) {
  Progress progress("checking", file.size(), ProgressUnit::kCount,
                    f.engine.quiet ? Progress::Mode::kSilent : Progress::Mode::kAuto);
  check_requests(engine, file, defaults, [&](Index n) { progress.add(n); });
}

}  // namespace

void check_many(const RunFlags& f) {
  if (f.text) refuse("--prompts and TEXT are two kinds of prompts, expected one");
  if (!f.ids_file.empty()) refuse("--prompts and --ids are two kinds of prompts, expected one");
  if (f.raw || !f.system.empty()) {
    refuse(f.raw ? "--raw is for one TEXT; a line says itself what it is"
                 : "--system is for one TEXT; a line has its system message among its messages",
           "{\"prompt\": \"text\"} is continued as it stands, {\"messages\": [...]} is answered");
  }
  if (f.out.empty()) return;
  const fs::path out = f.out;
  std::error_code ignored;
  if (fs::equivalent(out, f.prompts, ignored)) refuse("--out is the file of --prompts");
  if (fs::is_directory(out, ignored)) refuse(f.out + ": is a folder, expected a file to write");
  if (out.has_parent_path() && !fs::is_directory(out.parent_path(), ignored)) {
    refuse(f.out + ": there is no folder " + out.parent_path().string());
  }
}

int run_many(const RunFlags& f) {
  const InterruptGuard ctrl_c;
  const PromptFile file = PromptFile::open(f.prompts);
  const PromptPlan plan = check_prompts(file);
  say_what_is_left_out(plan);

  const auto engine = open_engine(f.model, f.engine);
  PromptDefaults defaults{.options = {}, .logprobs = f.logprobs};
  f.stop.apply(defaults.options);
  defaults.options.sampling = f.sampling.params(engine->defaults());
  const std::string salt = answer_salt(*engine, defaults);
  check_all(f, *engine, file, defaults);
  const auto answers = open_answers(f, file, plan, salt);
  const Index n_kept = answers->n_there();

  const DiskCache cache = f.batch.open_cache(*engine);
  Batcher batcher(*engine, f.batch.options(cache));
  RequestRunner runner{
      .submit = [&](Request r,
                    RequestEvents e) { return batcher.submit(std::move(r), std::move(e)); },
      .step = [&] { return batcher.step(); },
      .end_all = [&](FinishReason reason) { batcher.end_all(reason); }};
  RunProgress progress(plan.n_slots() - n_kept, f.engine.quiet);
  const PromptRunOptions options{
      .defaults = defaults,
      .salt = salt,
      .max_sequences = f.batch.max_sequences,
      .encode = [&](const RequestBody& body) { return request_ids(*engine, body); },
      .tokenizer = engine->tokenizer(),
      .on_step = [&](Index n_answers, Index n_tokens) { progress.show(n_answers, n_tokens); }};
  const auto begin = Clock::now();
  const PromptRunResult result = run_prompts(file, plan, *answers, runner, options);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  progress.finish();
  const Index n_missing = plan.n_slots() - answers->n_there();
  print_summary(f, result, n_kept, n_missing, seconds);
  if (result.n_failed > 0) log_warning("{} of them failed; \"error\" says why", result.n_failed);
  if (result.interrupted && !f.engine.quiet && !f.out.empty()) {
    write_note(fmt::format("stopped: {} of {} are there; the same command goes on",
                           answers->n_there(), counted(plan.n_slots(), "answer")));
  }
  return result.interrupted || result.n_failed > 0 ? 1 : 0;
}

}  // namespace kogia::cli
