#include "train/report_page.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/mapped_file.h"
#include "train/run_figures.h"
#include "train/svg_chart.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kStyle =
#include "train/report_page.css.inc"
    ;
constexpr std::string_view kScript =
#include "train/report_page.js.inc"
    ;

constexpr std::size_t kSmooth = 50;  // steps

using Kind = ChartLine::Kind;
using Runs = std::vector<ReportedRun>;

/// Lines of one chart: of one run each quantity has its colour, of two each run has, and the
/// second quantity is dashed.
class Lines {
 public:
  explicit Lines(const Runs& runs) : two_(runs.size() > 1) {}

  void add(const ReportedRun& run, std::size_t r, int quantity, const std::string& name,
           Curve curve, Kind kind = Kind::kStrong) {
    if (curve.empty()) return;
    lines_.push_back({.name = two_ ? fmt::format("{}: {}", run.metrics.name(), name) : name,
                      .curve = std::move(curve),
                      .color = (two_ ? static_cast<int>(r) : quantity) % 6,
                      .kind = kind,
                      .dashed = two_ && quantity > 0 && kind != Kind::kDots});
  }
  /// Every step behind, the mean of some before it in front.
  void add_smoothed(const ReportedRun& run, std::size_t r, int quantity, const std::string& name,
                    const Curve& curve) {
    if (!two_) add(run, r, quantity, name, curve, Kind::kFaint);
    add(run, r, quantity, fmt::format("{}, mean of {} steps", name, kSmooth),
        trailing_mean(curve, kSmooth));
  }
  std::vector<ChartLine> take() { return std::move(lines_); }

 private:
  bool two_;
  std::vector<ChartLine> lines_;
};

template <class Add>
std::vector<ChartLine> lines_of(const Runs& runs, Add add) {
  Lines lines(runs);
  for (std::size_t r = 0; r < runs.size(); ++r) {
    add(lines, runs[r], r, runs[r].metrics);
  }
  return lines.take();
}

// --- what is learnt -----------------------------------------------------------------------------

std::string loss_chart(const Runs& runs) {
  return chart_html(
      {.title = "Loss",
       .note = "Nats a token. The first twentieth of the steps has no say in the scale.",
       .lines = lines_of(runs,
                         [](Lines& l, const auto& run, std::size_t r, const auto& m) {
                           l.add_smoothed(run, r, 0, "loss", m.loss);
                           l.add(run, r, 1, "held out", m.validation_loss, Kind::kDots);
                         }),
       .skip_first = true});
}

std::string bits_chart(const Runs& runs) {
  return chart_html(
      {.title = "Bits per byte",
       .note = "Of text: does not depend on the vocabulary.",
       .lines = lines_of(runs,
                         [](Lines& l, const auto& run, std::size_t r, const auto& m) {
                           l.add_smoothed(run, r, 0, "bits per byte", m.bits_per_byte);
                           l.add(run, r, 1, "held out", m.validation_bits_per_byte, Kind::kDots);
                         }),
       .skip_first = true});
}

std::string mtp_chart(const Runs& runs) {
  return chart_html({.title = "Multi-token prediction: loss of each depth",
                     .note = "Depth k predicts the token k places after the next one.",
                     .lines = lines_of(runs,
                                       [](Lines& l, const auto& run, std::size_t r, const auto& m) {
                                         for (std::size_t k = 0; k < m.mtp_loss.size(); ++k) {
                                           const std::string name = fmt::format("depth {}", k + 1);
                                           const int quantity = static_cast<int>(k);
                                           l.add_smoothed(run, r, quantity, name, m.mtp_loss[k]);
                                           if (k >= m.validation_mtp_loss.size()) continue;
                                           l.add(run, r, quantity, name + ", held out",
                                                 m.validation_mtp_loss[k], Kind::kDots);
                                         }
                                       }),
                     .skip_first = true});
}

std::string acceptance_chart(const Runs& runs) {
  return chart_html(
      {.title = "Multi-token prediction: acceptance of each depth",
       .note = "Share of the held-out places where the depth's first choice is the main model's.",
       .lines = lines_of(runs,
                         [](Lines& l, const auto& run, std::size_t r, const auto& m) {
                           for (std::size_t k = 0; k < m.mtp_acceptance.size(); ++k) {
                             l.add(run, r, static_cast<int>(k), fmt::format("depth {}", k + 1),
                                   m.mtp_acceptance[k]);
                           }
                         }),
       .unit = Chart::Unit::kPercent,
       .from_zero = true});
}

std::string gap_chart(const Runs& runs) {
  if (runs.size() < 2) return {};
  Curve gap;
  for (const LossGap& g : loss_gaps(runs[0].metrics, runs[1].metrics)) {
    gap.add(g.last_step, g.relative);
  }
  return chart_html(
      {.title = "How far the second loss lies above the first",
       .note = "Means of 50 steps, from step 101 on: " +
               html(gaps_text(runs[0].metrics, runs[1].metrics)) + ".",
       .lines = {{.name = runs[1].metrics.name() + " against " + runs[0].metrics.name(),
                  .curve = std::move(gap),
                  .color = 2}},
       .unit = Chart::Unit::kPercent,
       .from_zero = true});
}

// --- experts ------------------------------------------------------------------------------------

/// Two curves of the experts of each run: a mean over the layers, and the worst layer.
std::string balance_chart(const Runs& runs, Chart chart, const std::string& name,
                          Curve ExpertCurves::* mean, Curve ExpertCurves::* worst,
                          const std::string& worst_name) {
  chart.lines = lines_of(runs, [&](Lines& l, const auto& run, std::size_t r, const auto& m) {
    if (!m.experts) return;
    l.add(run, r, 0, name, m.experts->curves().*mean);
    if (worst != nullptr) l.add(run, r, 1, worst_name, m.experts->curves().*worst);
  });
  return chart_html(chart);
}

std::string balance_charts(const Runs& runs) {
  const std::string mean = "mean over the layers", worst = "worst layer";
  std::string out = balance_chart(
      runs,
      {.title = "MaxVio of each step",
       .note = "(tokens of the busiest expert − mean) ÷ mean, over the tokens of one step.",
       .from_zero = true},
      mean, &ExpertCurves::max_vio, &ExpertCurves::worst_max_vio, worst);
  out += balance_chart(runs,
                       {.title = "MaxVio over 100 steps",
                        .note = "The same over all tokens of the 100 steps that end here.",
                        .from_zero = true},
                       mean, &ExpertCurves::window_max_vio, &ExpertCurves::worst_window_max_vio,
                       worst);
  out +=
      balance_chart(runs,
                    {.title = "Entropy of the load",
                     .note = "Over 100 steps, ÷ log of the number of experts: 1 is an even load."},
                    mean, &ExpertCurves::entropy, &ExpertCurves::least_entropy, worst);
  out += balance_chart(runs,
                       {.title = "Dead experts",
                        .note = "Without a token in 100 steps, of all layers.",
                        .from_zero = true},
                       "dead experts", &ExpertCurves::dead, nullptr, {});
  return out +
         chart_html({.title = "MaxVio on held-out text",
                     .note = "Mean over the layers.",
                     .lines = lines_of(runs,
                                       [](Lines& l, const auto& run, std::size_t r, const auto& m) {
                                         l.add(run, r, 0, "held out", m.validation_max_vio);
                                       }),
                     .from_zero = true});
}

/// "layer 3", "MTP 1": by config.json where it is known and fits.
std::vector<std::string> layer_labels(const ReportedRun& run, Index n_layers) {
  const auto config = nlohmann::json::parse(run.config_json, nullptr, false);
  const auto number = [&](const char* key, Index otherwise) {
    if (!config.is_object() || !config.contains(key) || !config[key].is_number()) return otherwise;
    return config[key].get<Index>();
  };
  const Index n_main = number("num_hidden_layers", 0),
              n_mtp = number("num_nextn_predict_layers", 0);
  const Index first = number("first_k_dense_replace", 0);
  const Index every = std::max<Index>(1, number("moe_layer_freq", 1));
  std::vector<std::string> labels;
  for (Index l = first; l < n_main + n_mtp && static_cast<Index>(labels.size()) <= n_layers; ++l) {
    if (l >= n_main)
      labels.push_back(fmt::format("MTP {}", l - n_main + 1));
    else if (l % every == 0)
      labels.push_back(fmt::format("layer {}", l));
  }
  if (static_cast<Index>(labels.size()) == n_layers) return labels;
  labels.clear();
  for (Index l = 0; l < n_layers; ++l) labels.push_back(fmt::format("{}.", l + 1));
  return labels;
}

/// Of the tokens of a layer, each expert's share ÷ an even share.
std::vector<double> relative_load(const std::vector<Index>& tokens) {
  double sum = 0;
  for (const Index n : tokens) sum += static_cast<double>(n);
  std::vector<double> load;
  for (const Index n : tokens) {
    load.push_back(sum == 0 ? 0
                            : static_cast<double>(n) * static_cast<double>(tokens.size()) / sum);
  }
  return load;
}

HeatMap recent_load(const ReportedRun& run, const ExpertHistory& history) {
  HeatMap map{.title = fmt::format("Load of experts, last {} steps", history.window_steps()),
              .note = "A row a layer, a column an expert.",
              .row_labels = layer_labels(run, history.n_layers()),
              .rows = {},
              .first_column = "expert 0",
              .last_column = fmt::format("expert {}", history.n_experts() - 1),
              .values = history.n_layers() * history.n_experts() <= 20000};
  for (const auto& layer : history.window()) map.rows.push_back(relative_load(layer));
  return map;
}

/// Every expert of every layer over the run: the rows of a layer lie together.
HeatMap load_over_time(const ReportedRun& run, const ExpertHistory& history) {
  constexpr Index kMostRows = 512;
  const std::vector<ExpertHistory::Span>& spans = history.spans();
  HeatMap map{.title = "Load of experts over the run",
              .note = "A row an expert, those of a layer together.",
              .row_labels = {},
              .rows = {},
              .first_column = fmt::format("step {}", spans.front().first_step),
              .last_column = fmt::format("step {}", spans.back().last_step)};
  const Index n_layers = history.n_layers(), n_experts = history.n_experts();
  const auto labels = layer_labels(run, n_layers);
  // Of more experts than there is room for, those of the first layers.
  const Index shown = std::min(n_layers, std::max<Index>(1, kMostRows / n_experts));
  if (shown < n_layers) map.note += fmt::format(" The first {} of {} layers.", shown, n_layers);
  for (Index layer = 0; layer < shown; ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    if (layer > 0) map.rows.emplace_back(spans.size(), 1.0), map.row_labels.emplace_back();
    const std::size_t first = map.rows.size();
    map.rows.resize(first + static_cast<std::size_t>(n_experts));
    map.row_labels.resize(map.rows.size());
    map.row_labels[first] = labels[l];
    for (const ExpertHistory::Span& span : spans) {
      const std::vector<double> load = relative_load(span.tokens[l]);
      for (std::size_t e = 0; e < load.size(); ++e) map.rows[first + e].push_back(load[e]);
    }
  }
  return map;
}

std::string heat_maps(const Runs& runs) {
  std::string out;
  for (const ReportedRun& run : runs) {
    if (!run.metrics.experts) continue;
    for (HeatMap map :
         {recent_load(run, *run.metrics.experts), load_over_time(run, *run.metrics.experts)}) {
      if (runs.size() > 1) map.title = run.metrics.name() + ": " + map.title;
      out += heat_map_html(map);
    }
  }
  return out;
}

// --- how it runs --------------------------------------------------------------------------------

std::string norm_chart(const Runs& runs) {
  return chart_html({.title = "Norm of the gradient",
                     .note = "Before clipping; logarithmic.",
                     .lines = lines_of(runs,
                                       [](Lines& l, const auto& run, std::size_t r, const auto& m) {
                                         l.add_smoothed(run, r, 0, "norm", m.grad_norm);
                                       }),
                     .log = true});
}

std::string one_curve_chart(const Runs& runs, Chart chart, const std::string& name,
                            Curve RunMetrics::* curve) {
  chart.lines = lines_of(runs, [&](Lines& l, const auto& run, std::size_t r, const auto& m) {
    l.add(run, r, 0, name, m.*curve);
  });
  return chart_html(chart);
}

std::string speed_chart(const Runs& runs) {
  return chart_html({.title = "Tokens per second",
                     .lines = lines_of(runs,
                                       [](Lines& l, const auto& run, std::size_t r, const auto& m) {
                                         l.add_smoothed(run, r, 0, "tokens/s", m.tokens_per_s);
                                       }),
                     .from_zero = true});
}

std::string memory_chart(const Runs& runs) {
  return chart_html(
      {.title = "Memory",
       .note = "MiB: the most that the process has taken so far, and of it the activations kept "
               "for the backward pass.",
       .lines = lines_of(runs,
                         [](Lines& l, const auto& run, std::size_t r, const auto& m) {
                           l.add(run, r, 0, "peak of the process", m.peak_bytes);
                           l.add(run, r, 1, "kept activations", m.kept_bytes);
                         }),
       .unit = Chart::Unit::kBytes,
       .from_zero = true});
}

// --- the page -----------------------------------------------------------------------------------

std::string section(std::string_view title, const std::string& figures) {
  if (figures.empty()) return {};
  return fmt::format("<h2>{}</h2><div class=\"grid-of\">{}</div>\n", title, figures);
}

std::string figures_html(const Runs& runs) {
  std::vector<const RunMetrics*> metrics;
  std::string head = "<th></th>", body;
  for (const ReportedRun& run : runs) {
    metrics.push_back(&run.metrics);
    head += "<th>" + html(run.metrics.name()) + "</th>";
  }
  for (const FigureRow& row : figure_rows(metrics)) {
    body += "<tr><th>" + html(row.label) + "</th>";
    for (const std::string& value : row.values) body += "<td>" + value + "</td>";
    body += "</tr>";
  }
  return fmt::format("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>\n", head, body);
}

/// "trainer.steps" and its value, of a file that to_toml() wrote: one key a line.
std::map<std::string, std::string> keys_of(const std::string& toml) {
  std::map<std::string, std::string> keys;
  std::string section;
  for (std::size_t at = 0; at < toml.size();) {
    const std::size_t end = std::min(toml.find('\n', at), toml.size());
    const std::string line = toml.substr(at, end - at);
    const std::size_t equals = line.find(" = ");
    if (line.starts_with('[') && line.ends_with(']')) {
      section = line.substr(1, line.size() - 2);
    } else if (equals != std::string::npos) {
      keys[section + "." + line.substr(0, equals)] = line.substr(equals + 3);
    }
    at = end + 1;
  }
  return keys;
}

std::string differences_html(const Runs& runs) {
  if (runs.size() < 2 || runs[0].run_toml.empty() || runs[1].run_toml.empty()) return {};
  auto first = keys_of(runs[0].run_toml), second = keys_of(runs[1].run_toml);
  for (const auto& [key, value] : second) first.try_emplace(key, "unset");
  std::string body;
  for (const auto& [key, value] : first) {
    const auto at = second.find(key);
    const std::string other = at == second.end() ? "unset" : at->second;
    if (other == value) continue;
    body += fmt::format("<tr><th>{}</th><td>{}</td><td>{}</td></tr>", html(key), html(value),
                        html(other));
  }
  if (body.empty()) body = "<tr><th>nothing</th><td></td><td></td></tr>";
  return fmt::format("<h3>What differs</h3><table>{}</table>\n", body);
}

std::string configuration_html(const Runs& runs) {
  std::string out = "<h2>Configuration</h2>" + differences_html(runs);
  for (const ReportedRun& run : runs) {
    const std::string name = html(run.metrics.name());
    if (run.run_toml.empty()) {
      out += fmt::format("<p class=\"soft\">{} has no checkpoint yet.</p>", name);
      continue;
    }
    out += fmt::format(
        "<details><summary>{}: the resolved run file</summary><pre>{}</pre></details>\n", name,
        html(run.run_toml));
  }
  return out;
}

std::string title_of(const Runs& runs) {
  std::string title = runs[0].metrics.name();
  if (runs.size() > 1) title += " and " + runs[1].metrics.name();
  return html(title);
}

std::string notes_html(const Runs& runs) {
  std::string out;
  for (const ReportedRun& run : runs) {
    for (const std::string& note : run.metrics.notes) {
      out += "<p class=\"soft\">" + html(note) + ".</p>";
    }
  }
  return out;
}

/// Its text; empty where it cannot be read: a run before its first checkpoint.
std::string text_of(const fs::path& file) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return {};
  return std::string(MappedFile::open(file).text());
}

}  // namespace

ReportedRun read_reported_run(const fs::path& folder) {
  return {.metrics = read_run_metrics(folder),
          .run_toml = text_of(folder / "latest" / "kogia" / "run.toml"),
          .config_json = text_of(folder / "latest" / "config.json")};
}

std::string report_page(const std::vector<ReportedRun>& runs) {
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\"><title>{0}</title><style>{1}</style></head><body>\n"
      "<h1>{0}</h1>{2}\n",
      title_of(runs), kStyle, notes_html(runs));
  page += figures_html(runs);
  page += section("What is learnt", loss_chart(runs) + gap_chart(runs) + bits_chart(runs) +
                                        mtp_chart(runs) + acceptance_chart(runs));
  page += section(
      "Experts",
      heat_maps(runs) + balance_charts(runs) +
          one_curve_chart(runs, {.title = "Balance loss", .note = "Weighted, of all layers."},
                          "balance loss", &RunMetrics::balance_loss));
  page += section("How it runs",
                  norm_chart(runs) +
                      one_curve_chart(runs, {.title = "Learning rate", .from_zero = true}, "rate",
                                      &RunMetrics::lr) +
                      speed_chart(runs) + memory_chart(runs));
  page += configuration_html(runs);
  return page + fmt::format("<div id=\"tip\"></div><script>{}</script></body></html>\n", kScript);
}

}  // namespace kogia
