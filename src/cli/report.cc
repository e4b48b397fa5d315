// kogia report: what a run has done, as a page and a table.

#include <algorithm>
#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "train/report_page.h"

namespace kogia::cli {
namespace {

namespace fs = std::filesystem;

struct ReportFlags {
  std::string run, compare, out;
  bool json = false;
};

CommandLine describe(ReportFlags& f) {
  return {
      .name = "report",
      .summary =
          "What a training run has done: one HTML page that needs no network (losses, bits "
          "per byte, load of the experts, gradients, speed, memory), and the figures of its "
          "end as a table. A run that is still going may be looked at.",
      .positionals = {{"RUN", "the folder of a run, as kogia train --out has written it", &f.run}},
      .groups = {{"Report",
                  {{.flags = "--compare",
                    .value = "RUN2",
                    .help = "another run beside it, and how far apart the losses are",
                    .target = &f.compare},
                   {.flags = "--out,-o",
                    .value = "FILE",
                    .help = "the page (RUN/report.html)",
                    .target = &f.out}}},
                 {"Output",
                  {{.flags = "--json",
                    .value = {},
                    .help = "one object: the table's rows and the gap, instead of text",
                    .target = &f.json}}}},
      .examples = {"kogia report runs/tiny", "kogia report runs/bf16 --compare runs/fp8"}};
}

std::string run_file_of(const fs::path& folder) {
  const fs::path file = folder / "latest" / "kogia" / "run.toml";
  return fs::exists(file) ? std::string(MappedFile::open(file).text()) : std::string();
}

std::string text_of(const ReportTable& table) {
  std::vector<std::size_t> widths;
  for (const auto& row : table.rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : table.rows) {
    out += fmt::format("{:<{}}", row[0], widths[0]);
    for (std::size_t i = 1; i < row.size(); ++i) out += fmt::format("  {:>{}}", row[i], widths[i]);
    out += '\n';
  }
  return out;
}

void print_json(const ReportTable& table, const LossGap* gap, const fs::path& page) {
  nlohmann::ordered_json out;
  for (std::size_t c = 1; c < table.rows[0].size(); ++c) {
    nlohmann::ordered_json& run = out["runs"].emplace_back();
    run["name"] = table.rows[0][c];
    for (std::size_t r = 1; r < table.rows.size(); ++r) run[table.rows[r][0]] = table.rows[r][c];
  }
  if (gap != nullptr && gap->n_windows > 0) {
    out["gap"] = {{"last", gap->last}, {"worst", gap->worst}, {"worst_step", gap->worst_step}};
  }
  out["page"] = page.string();
  write_json(out);
}

}  // namespace

int report_command(Arguments arguments) {
  ReportFlags f;
  if (!parse(describe(f), arguments)) return 0;
  const RunMetrics run = read_run_metrics(f.run);
  std::optional<RunMetrics> other;
  if (!f.compare.empty()) other = read_run_metrics(f.compare);
  const RunMetrics* const beside = other ? &*other : nullptr;
  for (const RunMetrics* r : {&run, beside}) {
    if (r == nullptr || r->n_damaged == 0) continue;
    write_note(fmt::format("{}: skipped {} of metrics.jsonl that say nothing", r->name,
                           counted(r->n_damaged, "line")));
  }
  const fs::path page = f.out.empty() ? fs::path(f.run) / "report.html" : fs::path(f.out);
  write_file_atomically(page, report_page(run, beside, run_file_of(f.run)));
  const ReportTable table = report_table(run, beside);
  if (f.json) {
    const LossGap gap = beside != nullptr ? loss_gap(run, *beside) : LossGap{};
    print_json(table, beside != nullptr ? &gap : nullptr, page);
    return 0;
  }
  std::string text = text_of(table);
  if (beside != nullptr) {
    const std::string gap = gap_sentence(run, *beside);
    text += gap.empty() ? "too few steps in common to compare losses\n" : gap + "\n";
  }
  write_out(fmt::format("{}{}\n", printable(text), page.string()));
  return 0;
}

}  // namespace kogia::cli
