#include "train/report_page.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>

#include <fmt/format.h>

#include "train/report_chart.h"
#include "train/step.h"

namespace kogia {
namespace {

constexpr std::size_t kSmooth = 20;       // steps of a running mean
constexpr std::size_t kLoadWindow = 100;  // steps of a load

constexpr const char* kHead = R"(<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --line: #d8dee4;
  --c0: #2a6fdb; --c1: #d9622b; --c2: #1a8f6b; --c3: #8a55c7; --c4: #b8860b; --c5: #c23a77; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16191d; --line: #363c44;
  --c0: #6ba3f5; --c1: #f08c57; --c2: #4cc39a; --c3: #b58ae6; --c4: #dcb13c; --c5: #ea77a8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1360px; margin: 2rem auto; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-weight: 600; } small { font-weight: 400; opacity: .7; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); opacity: .75; }
.grid { stroke: var(--line); } polyline, .legend line { fill: none; stroke-width: 1.6; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.dashed { stroke-dasharray: 5 3; } .faint { opacity: .35; stroke-width: 1; }
rect.less { fill: var(--c0); } rect.more { fill: var(--c1); }
.legend span { margin-right: 1.2em; font-size: 13px; } .legend svg { margin-right: .4em; }
table { border-collapse: collapse; } td, th { text-align: right; padding: .15em 1.2em .15em 0; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid var(--line); }
pre { overflow-x: auto; border: 1px solid var(--line); padding: 1em; }
#tip { position: fixed; display: none; padding: .3em .6em; background: var(--paper); font-size: 13px;
  border: 1px solid var(--line); pointer-events: none; white-space: pre; }
</style>
)";

// What stands under the pointer, of each curve.
constexpr const char* kScript = R"(<div id="tip"></div>
<script>
const tip = document.getElementById("tip");
for (const chart of document.querySelectorAll("svg.chart")) {
  const lines = [...chart.querySelectorAll("polyline")].filter(l => l.dataset.values).map(l => ({
    label: l.dataset.label,
    at: l.getAttribute("points").trim().split(" ").map(p => +p.split(",")[0]),
    values: l.dataset.values.trim().split(" ").map(p => p.split(",")) }));
  chart.onmousemove = e => {
    const box = chart.getBoundingClientRect();
    const x = (e.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    tip.textContent = lines.map(l => {
      let i = 0;
      l.at.forEach((v, j) => { if (Math.abs(v - x) < Math.abs(l.at[i] - x)) i = j; });
      return `${l.label || "value"}: ${(+l.values[i][1]).toPrecision(5)} at ${l.values[i][0]}`;
    }).join("\n");
    tip.style.cssText = `display:block; left:${e.clientX + 14}px; top:${e.clientY + 14}px`;
  };
  chart.onmouseleave = () => { tip.style.display = "none"; };
}
</script>
)";

using ValueOf = std::function<double(const StepMetrics&)>;

std::vector<ChartPoint> points_of(const RunMetrics& run, const ValueOf& value) {
  std::vector<ChartPoint> points;
  for (const StepMetrics& s : run.steps) points.push_back({static_cast<double>(s.step), value(s)});
  return points;
}

std::vector<ChartPoint> smoothed(std::vector<ChartPoint> points) {
  std::vector<ChartPoint> out = points;
  double sum = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    sum += points[i].y;
    if (i >= kSmooth) sum -= points[i - kSmooth].y;
    out[i].y = sum / static_cast<double>(std::min(i + 1, kSmooth));
  }
  return out;
}

double mean_of(const std::vector<double>& x) {
  if (x.empty()) return std::nan("");
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

/// Both runs' curves of one value.
class Page {
 public:
  Page(const RunMetrics& run, const RunMetrics* other) {
    runs_.push_back(&run);
    if (other != nullptr) runs_.push_back(other);
  }

  std::string label(std::size_t run, const std::string& what) const {
    if (runs_.size() == 1) return what;
    return what.empty() ? runs_[run]->name : runs_[run]->name + " " + what;
  }

  std::string simple(const std::string& title, const std::string& unit, const ValueOf& value,
                     bool log_y = false) const {
    Chart chart{.title = title, .unit = unit, .lines = {}, .log_y = log_y};
    for (std::size_t r = 0; r < runs_.size(); ++r) {
      chart.lines.push_back({.label = label(r, ""),
                             .points = points_of(*runs_[r], value),
                             .colour = static_cast<int>(r)});
    }
    return drawn(chart);
  }

  std::string loss() const {
    Chart chart{.title = "Loss", .unit = "nats a token", .lines = {}};
    for (std::size_t r = 0; r < runs_.size(); ++r) {
      const int colour = static_cast<int>(r);
      auto raw = points_of(*runs_[r], [](const StepMetrics& s) { return s.loss; });
      chart.lines.push_back({.label = label(r, "each step"),
                             .points = raw,
                             .colour = colour,
                             .dashed = false,
                             .faint = true});
      chart.lines.push_back({.label = label(r, fmt::format("mean of {} steps", kSmooth)),
                             .points = smoothed(raw),
                             .colour = colour});
      chart.lines.push_back({.label = label(r, "held out"),
                             .points = points_of(*runs_[r],
                                                 [](const StepMetrics& s) {
                                                   return s.validation_loss.value_or(std::nan(""));
                                                 }),
                             .colour = colour + 2,
                             .dashed = true});
    }
    return drawn(chart);
  }

  std::string mtp() const {
    Chart chart{.title = "Loss of multi-token prediction", .unit = "nats a token", .lines = {}};
    for (std::size_t r = 0; r < runs_.size(); ++r) {
      for (std::size_t d = 0; d < runs_[r]->steps.back().mtp_loss.size(); ++d) {
        const auto of_depth = [d](const StepMetrics& s) {
          return d < s.mtp_loss.size() ? s.mtp_loss[d] : std::nan("");
        };
        chart.lines.push_back({.label = label(r, fmt::format("depth {}", d + 1)),
                               .points = smoothed(points_of(*runs_[r], of_depth)),
                               .colour = static_cast<int>(d),
                               .dashed = r > 0});
      }
    }
    return chart.lines.empty() ? "" : drawn(chart);
  }

  /// A figure of the loads of the last kLoadWindow steps, at each tenth of a window.
  std::string load(const std::string& title, double (*figure)(const ExpertLoad&)) const {
    Chart chart{.title = title, .unit = "mean over layers", .lines = {}};
    for (std::size_t r = 0; r < runs_.size(); ++r) {
      const RunMetrics& run = *runs_[r];
      ChartLine line{.label = label(r, ""), .points = {}, .colour = static_cast<int>(r)};
      const std::size_t stride = std::max<std::size_t>(kLoadWindow / 10, run.steps.size() / 400);
      for (std::size_t end = stride; end <= run.steps.size(); end += stride) {
        std::vector<double> of_layers;
        for (const ExpertLoad& l : summed_loads(run, end - std::min(end, kLoadWindow), end)) {
          of_layers.push_back(figure(l));
        }
        line.points.push_back({static_cast<double>(run.steps[end - 1].step), mean_of(of_layers)});
      }
      chart.lines.push_back(std::move(line));
    }
    return drawn(chart);
  }

 private:
  /// Nothing where no run has a value.
  static std::string drawn(const Chart& chart) {
    const bool any = std::ranges::any_of(chart.lines, [](const ChartLine& line) {
      return std::ranges::any_of(line.points,
                                 [](const ChartPoint& p) { return std::isfinite(p.y); });
    });
    return any ? chart_svg(chart) : "";
  }

  std::vector<const RunMetrics*> runs_;
};

/// Each expert's tokens over the mean, stretch by stretch.
std::string heat_map(const RunMetrics& run, std::size_t layer) {
  constexpr std::size_t kStretches = 80, kMostExperts = 64;
  const std::size_t n = run.steps.size(), columns = std::min(n, kStretches);
  const std::size_t all = run.steps.back().expert_tokens[layer].size();
  const std::size_t experts = std::min(all, kMostExperts);
  HeatMap map{.title = fmt::format("Load of {} experts, layer {} of those that have them", experts,
                                   layer + 1),
              .row_labels = {},
              .rows = std::vector<std::vector<double>>(experts),
              .column_labels = {fmt::format("step {}", run.steps.front().step),
                                fmt::format("step {}", run.steps.back().step)}};
  if (experts < all) map.title += fmt::format(" (of {})", all);
  for (std::size_t e = 0; e < experts; ++e) map.row_labels.push_back(fmt::format("{}", e));
  for (std::size_t c = 0; c < columns; ++c) {
    const auto loads = summed_loads(run, c * n / columns, (c + 1) * n / columns);
    const std::vector<Index>& tokens = loads[layer].tokens;
    const double mean =
        static_cast<double>(std::accumulate(tokens.begin(), tokens.end(), Index{0})) /
        static_cast<double>(tokens.size());
    for (std::size_t e = 0; e < experts; ++e) {
      map.rows[e].push_back(mean > 0 ? static_cast<double>(tokens[e]) / mean : 0);
    }
  }
  return heat_map_svg(map);
}

std::string heat_maps(const RunMetrics& run) {
  constexpr std::size_t kMostLayers = 8;
  const std::size_t layers = run.steps.back().expert_tokens.size();
  std::string out;
  for (std::size_t i = 0; i < std::min(layers, kMostLayers); ++i) {
    out += heat_map(run, i * layers / std::min(layers, kMostLayers));
  }
  return out;
}

std::string charts(const RunMetrics& run, const RunMetrics* other) {
  const Page page(run, other);
  const auto rate = [](const StepMetrics& s) {
    return s.seconds > 0 ? static_cast<double>(s.tokens) / s.seconds : std::nan("");
  };
  const auto bytes = [](Index n) { return n > 0 ? static_cast<double>(n) : std::nan(""); };
  std::string out = page.loss();
  out += page.simple("Bits per byte, held out", "", [](const StepMetrics& s) {
    return s.validation_bits_per_byte.value_or(std::nan(""));
  });
  out += page.mtp();
  out += page.simple(
      "Norm of the gradient", "before clipping", [](const StepMetrics& s) { return s.grad_norm; },
      true);
  out += page.simple("Learning rate", "", [](const StepMetrics& s) { return s.lr; });
  out += page.simple("MaxVio of each batch", "mean over layers",
                     [](const StepMetrics& s) { return mean_of(s.max_vio); });
  out += page.load(fmt::format("MaxVio of {} steps", kLoadWindow), max_vio);
  out += page.simple("MaxVio of held-out text", "mean over layers",
                     [](const StepMetrics& s) { return mean_of(s.validation_max_vio); });
  out += page.load(fmt::format("Entropy of the load of {} steps", kLoadWindow), load_entropy);
  out += page.simple("Speed", "tok/s", rate);
  out += page.simple("Memory of the process", "bytes, most so far",
                     [&](const StepMetrics& s) { return bytes(s.peak_bytes); });
  out += page.simple("Activations kept for the backward pass", "bytes",
                     [&](const StepMetrics& s) { return bytes(s.kept_bytes); });
  return out + heat_maps(run);
}

std::string megabytes(Index n) { return fmt::format("{:.1f} MB", static_cast<double>(n) / 1e6); }

std::string optional_text(const std::optional<double>& x) {
  return x ? fmt::format("{:.4f}", *x) : "";
}

std::string table_html(const ReportTable& table) {
  std::string out = "<table>\n";
  for (const auto& row : table.rows) {
    const char* const cell = &row == &table.rows.front() ? "th" : "td";
    out += "<tr>";
    for (const std::string& text : row) {
      out += fmt::format("<{}>{}</{}>", cell, html_text(text), cell);
    }
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

}  // namespace

ReportTable report_table(const RunMetrics& run, const RunMetrics* other) {
  ReportTable table{.rows = {{""}}};
  std::vector<RunSummary> summaries;
  for (const RunMetrics* r : {&run, other}) {
    if (r == nullptr) continue;
    table.rows[0].push_back(r->name);
    summaries.push_back(summarise(*r));
  }
  const auto add = [&](const std::string& what, const auto& text_of) {
    std::vector<std::string> row{what};
    for (const RunSummary& s : summaries) row.push_back(text_of(s));
    const bool any =
        std::any_of(row.begin() + 1, row.end(), [](auto& text) { return !text.empty(); });
    if (any) table.rows.push_back(std::move(row));
  };
  using S = const RunSummary&;
  add("steps", [](S s) { return fmt::format("{}", s.steps); });
  add("tokens", [](S s) { return fmt::format("{}", s.tokens); });
  add("loss, last 50 steps", [](S s) { return fmt::format("{:.4f}", s.loss); });
  std::size_t depths = 0;
  for (S s : summaries) depths = std::max(depths, s.mtp_loss.size());
  for (std::size_t d = 0; d < depths; ++d) {
    add(fmt::format("loss of MTP depth {}", d + 1), [d](S s) {
      return d < s.mtp_loss.size() ? fmt::format("{:.4f}", s.mtp_loss[d]) : std::string();
    });
  }
  add("held out", [](S s) { return optional_text(s.validation_loss); });
  add("held out, best", [](S s) { return optional_text(s.best_validation_loss); });
  add("bits per byte", [](S s) { return optional_text(s.bits_per_byte); });
  add("MaxVio, last 100 steps", [](S s) { return optional_text(s.max_vio); });
  add("MaxVio, held out", [](S s) { return optional_text(s.validation_max_vio); });
  add("experts without a token",
      [](S s) { return s.max_vio ? fmt::format("{}", s.dead_experts) : std::string(); });
  add("tok/s", [](S s) { return fmt::format("{:.0f}", s.tokens_per_s); });
  add("kept activations", [](S s) { return s.kept_bytes > 0 ? megabytes(s.kept_bytes) : ""; });
  add("peak memory", [](S s) { return s.peak_bytes > 0 ? megabytes(s.peak_bytes) : ""; });
  return table;
}

std::string gap_sentence(const RunMetrics& run, const RunMetrics& other) {
  const LossGap gap = loss_gap(run, other);
  if (gap.n_windows == 0) return {};
  return fmt::format(
      "loss of {} against {}, means over 50 steps after the first 100: {:+.2f} % at the end, "
      "{:+.2f} % "
      "at worst (to step {})",
      other.name, run.name, 100 * gap.last, 100 * gap.worst, gap.worst_step);
}

std::string report_page(const RunMetrics& run, const RunMetrics* other,
                        const std::string& run_toml) {
  std::string title = run.name;
  if (other != nullptr) title += " and " + other->name;
  std::string out = "<!doctype html>\n<html lang=\"en\">\n<title>" + html_text(title) +
                    "</title>\n" + kHead + "<h1>" + html_text(title) + "</h1>\n";
  out += table_html(report_table(run, other));
  if (other != nullptr) out += "<p>" + html_text(gap_sentence(run, *other)) + "</p>\n";
  if (run.n_damaged > 0) {
    out += fmt::format("<p>Lines of metrics.jsonl that say nothing: {}.</p>\n", run.n_damaged);
  }
  out += "<main>\n" + charts(run, other) + "</main>\n";
  if (!run_toml.empty()) out += "<h2>Run file</h2>\n<pre>" + html_text(run_toml) + "</pre>\n";
  return out + kScript + "</html>\n";
}

}  // namespace kogia
