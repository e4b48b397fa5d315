// kogia report: what a run did, as a page and as a table.

#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "train/report_page.h"
#include "train/run_figures.h"

namespace kogia::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct ReportFlags {
  std::string run;
  std::optional<std::string> compare, out;
  bool json = false;
};

CommandLine describe(ReportFlags& f) {
  return {
      .name = "report",
      .summary =
          "Shows what a run of `kogia train` did, or is doing: one HTML page that needs nothing "
          "beside it, and its figures as text.",
      .positionals = {{"RUN", "the folder of the run: what --out of `kogia train` named", &f.run}},
      .groups = {{"Report",
                  {{.flags = "--compare",
                    .value = "RUN2",
                    .help = "a second run beside it, and how far its loss lies above the first's",
                    .target = &f.compare},
                   {.flags = "--out,-o",
                    .value = "FILE",
                    .help = "the page (RUN/report.html)",
                    .target = &f.out}}},
                 {"Output",
                  {{.flags = "--json",
                    .value = {},
                    .help = "one object: the figures of each run, the gaps of the loss, the page",
                    .target = &f.json}}}},
      .examples = {"kogia report runs/tiny",
                   "kogia report runs/bf16 --compare runs/fp8 --out fp8.html"}};
}

Json figures_json(const RunMetrics& metrics) {
  Json out{{"run", metrics.folder.string()}};
  for (const RunFigure& figure : run_figures(metrics)) {
    out[figure.key] = figure.value ? Json(*figure.value) : Json();
  }
  return out;
}

Json gap_json(const std::optional<LossGap>& gap) {
  if (!gap) return {};
  return {
      {"first_step", gap->first_step}, {"last_step", gap->last_step}, {"relative", gap->relative}};
}

Json report_json(const std::vector<ReportedRun>& runs, const fs::path& page) {
  Json out{{"page", page.string()}, {"runs", Json::array()}};
  for (const ReportedRun& run : runs) out["runs"].push_back(figures_json(run.metrics));
  if (runs.size() > 1) {
    const auto gaps = loss_gaps(runs[0].metrics, runs[1].metrics);
    out["worst_gap"] = gap_json(worst_gap(gaps));
    out["last_gap"] = gap_json(gaps.empty() ? std::nullopt : std::optional(gaps.back()));
  }
  return out;
}

}  // namespace

int report_command(Arguments arguments) {
  ReportFlags f;
  if (!parse(describe(f), arguments)) return 0;
  std::vector<ReportedRun> runs{read_reported_run(f.run)};
  if (f.compare) runs.push_back(read_reported_run(*f.compare));
  std::vector<const RunMetrics*> metrics;
  for (const ReportedRun& run : runs) {
    for (const std::string& note : run.metrics.notes) write_note(note);
    metrics.push_back(&run.metrics);
  }
  const fs::path page = f.out ? fs::path(*f.out) : fs::path(f.run) / "report.html";
  write_file_atomically(page, report_page(runs));
  if (f.json) {
    write_json(report_json(runs, page));
  } else {
    write_out(printable(figures_table(metrics)) + page.string() + "\n");
  }
  return 0;
}

}  // namespace kogia::cli
