#include "train/run_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/mapped_file.h"
#include "train/step.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kLossWindow = 50, kLoadWindow = 100;
constexpr Index kGapFrom = 100;

using Json = nlohmann::json;

template <class T>
void take(const Json& line, const char* key, T& to) {
  const auto at = line.find(key);
  if (at == line.end()) return;
  if constexpr (std::is_same_v<T, double>) {
    to = at->is_number() ? at->get<double>() : std::nan("");
  } else {
    to = at->get<T>();
  }
}

void take(const Json& line, const char* key, std::optional<double>& to) {
  if (line.contains(key)) take(line, key, to.emplace());
}

/// Throws nlohmann's exceptions where a value has another type.
StepMetrics step_of(const Json& line) {
  StepMetrics s;
  s.step = line.at("step").get<Index>();
  take(line, "loss", s.loss);
  take(line, "grad_norm", s.grad_norm);
  take(line, "lr", s.lr);
  take(line, "seconds", s.seconds);
  take(line, "tokens", s.tokens);
  take(line, "mtp_loss", s.mtp_loss);
  take(line, "max_vio", s.max_vio);
  take(line, "expert_tokens", s.expert_tokens);
  take(line, "validation_loss", s.validation_loss);
  take(line, "validation_bits_per_byte", s.validation_bits_per_byte);
  take(line, "validation_max_vio", s.validation_max_vio);
  take(line, "kept_bytes", s.kept_bytes);
  take(line, "peak_bytes", s.peak_bytes);
  return s;
}

void add_line(std::string_view text, RunMetrics& run) {
  try {
    StepMetrics step = step_of(Json::parse(text));
    // A line that came again after a stop takes the place of the first.
    while (!run.steps.empty() && run.steps.back().step >= step.step) run.steps.pop_back();
    run.steps.push_back(std::move(step));
  } catch (const Json::exception&) {
    ++run.n_damaged;
  }
}

double mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

}  // namespace

RunMetrics read_run_metrics(const fs::path& folder) {
  const fs::path file = folder / "metrics.jsonl";
  if (!fs::exists(file)) {
    throw Error(ErrorCode::kNotFound, fmt::format("{}: there is no metrics.jsonl", folder.string()),
                "name a folder that kogia train --out has written");
  }
  const auto mapped = MappedFile::open(file);
  std::string_view text = mapped.text();
  const fs::path named = fs::absolute(folder).lexically_normal();
  RunMetrics run{.name = (named.has_filename() ? named : named.parent_path()).filename().string(),
                 .steps = {}};
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) add_line(text.substr(0, end), run);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (run.steps.empty()) {
    throw Error(ErrorCode::kInvalid, fmt::format("{}: no step is in it", file.string()),
                "a run writes a line a step: let it make one");
  }
  return run;
}

std::vector<ExpertLoad> summed_loads(const RunMetrics& run, std::size_t begin, std::size_t end) {
  std::vector<ExpertLoad> loads;
  for (std::size_t i = begin; i < end; ++i) {
    const auto& layers = run.steps[i].expert_tokens;
    if (loads.size() < layers.size()) loads.resize(layers.size());
    for (std::size_t l = 0; l < layers.size(); ++l) {
      loads[l].layer = static_cast<Index>(l);
      std::vector<Index>& sum = loads[l].tokens;
      if (sum.size() < layers[l].size()) sum.resize(layers[l].size(), 0);
      for (std::size_t e = 0; e < layers[l].size(); ++e) sum[e] += layers[l][e];
    }
  }
  return loads;
}

double load_entropy(const ExpertLoad& load) {
  const auto n = static_cast<double>(load.tokens.size());
  const double all =
      static_cast<double>(std::accumulate(load.tokens.begin(), load.tokens.end(), Index{0}));
  if (all == 0 || n < 2) return 0;
  double sum = 0;
  for (const Index tokens : load.tokens) {
    const double p = static_cast<double>(tokens) / all;
    if (p > 0) sum -= p * std::log(p);
  }
  return sum / std::log(n);
}

LossGap loss_gap(const RunMetrics& ours, const RunMetrics& theirs) {
  std::map<Index, double> other;
  for (const StepMetrics& s : theirs.steps) other.emplace(s.step, s.loss);
  LossGap gap;
  double a = 0, b = 0;
  std::size_t n = 0;
  for (const StepMetrics& s : ours.steps) {
    const auto same = other.find(s.step);
    if (s.step <= kGapFrom || same == other.end()) continue;
    a += s.loss, b += same->second;
    if (++n < kLossWindow) continue;
    gap.last = (b - a) / a;
    if (gap.n_windows++ == 0 || std::abs(gap.last) > std::abs(gap.worst)) {
      gap.worst = gap.last, gap.worst_step = s.step;
    }
    a = b = 0, n = 0;
  }
  return gap;
}

RunSummary summarise(const RunMetrics& run) {
  const std::size_t n = run.steps.size();
  RunSummary out;
  out.steps = run.steps.back().step;
  const std::size_t begin = n - std::min(n, kLossWindow);
  std::vector<double> losses;
  out.mtp_loss.assign(run.steps.back().mtp_loss.size(), 0);
  for (std::size_t i = begin; i < n; ++i) {
    losses.push_back(run.steps[i].loss);
    for (std::size_t d = 0; d < std::min(out.mtp_loss.size(), run.steps[i].mtp_loss.size()); ++d) {
      out.mtp_loss[d] += run.steps[i].mtp_loss[d] / static_cast<double>(n - begin);
    }
  }
  out.loss = mean(losses);
  double seconds = 0;
  for (const StepMetrics& s : run.steps) {
    out.tokens += s.tokens;
    seconds += s.seconds;
    out.kept_bytes = std::max(out.kept_bytes, s.kept_bytes);
    out.peak_bytes = std::max(out.peak_bytes, s.peak_bytes);
    if (s.validation_bits_per_byte) out.bits_per_byte = s.validation_bits_per_byte;
    if (!s.validation_max_vio.empty()) out.validation_max_vio = mean(s.validation_max_vio);
    if (!s.validation_loss) continue;
    out.validation_loss = s.validation_loss;
    out.best_validation_loss =
        std::min(*s.validation_loss, out.best_validation_loss.value_or(*s.validation_loss));
  }
  if (seconds > 0) out.tokens_per_s = static_cast<double>(out.tokens) / seconds;
  std::vector<double> vio;
  for (const ExpertLoad& load : summed_loads(run, n - std::min(n, kLoadWindow), n)) {
    vio.push_back(max_vio(load));
    out.dead_experts += std::ranges::count(load.tokens, 0);
  }
  if (!vio.empty()) out.max_vio = mean(vio);
  return out;
}

}  // namespace kogia
