#include "train/run_metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include <simdjson.h>

#include "base/error.h"
#include "base/mapped_file.h"

namespace kogia {
namespace fs = std::filesystem;
namespace dom = simdjson::dom;
namespace {

constexpr Index kSpans = 96;          // columns of what is shown over time
constexpr double kMostTokens = 1e15;  // of an expert: sums of a million steps fit

std::optional<double> number(const dom::element& line, std::string_view key) {
  double value = 0;
  if (line[key].get(value) != simdjson::SUCCESS || !std::isfinite(value)) return {};
  return value;
}

/// The list of numbers under a key; empty where there is none.
std::vector<double> numbers(const dom::element& line, std::string_view key) {
  std::vector<double> values;
  dom::array list;
  if (line[key].get(list) != simdjson::SUCCESS) return values;
  for (const dom::element entry : list) {
    double value = 0;
    if (entry.get(value) != simdjson::SUCCESS) return {};
    values.push_back(value);
  }
  return values;
}

ExpertTokens expert_tokens(const dom::element& line) {
  ExpertTokens tokens;
  dom::array layers, experts;
  if (line["expert_tokens"].get(layers) != simdjson::SUCCESS) return tokens;
  for (const dom::element layer : layers) {
    if (layer.get(experts) != simdjson::SUCCESS) return {};
    std::vector<Index>& to = tokens.emplace_back();
    for (const dom::element expert : experts) {
      std::int64_t n = 0;
      if (expert.get(n) != simdjson::SUCCESS || n < 0) return {};
      if (static_cast<double>(n) > kMostTokens) return {};
      to.push_back(n);
    }
  }
  return tokens;
}

/// Takes lines one after another into the curves.
class LogReader {
 public:
  LogReader(RunMetrics& metrics, Index n_lines)
      : m_(metrics), history_(std::max<Index>(1, n_lines), kSpans) {}

  /// False: it makes no sense.
  bool add(std::string_view text) {
    dom::element line;
    if (parser_.parse(text.data(), text.size()).get(line) != simdjson::SUCCESS) return false;
    const auto step = number(line, "step"), loss = number(line, "loss");
    const bool known = line["loss"].error() == simdjson::SUCCESS;  // null: it was no number
    if (!step || !known || *step <= static_cast<double>(m_.last_step) || *step > 1e15) return false;
    m_.last_step = static_cast<Index>(*step);
    ++m_.n_lines;
    if (loss) m_.loss.add(m_.last_step, *loss);
    add_scalars(line);
    add_rates(line, loss);
    add_lists(line);
    return true;
  }

  void finish() {
    if (history_.n_layers() > 0) m_.experts = std::move(history_);
  }

 private:
  void add_scalars(const dom::element& line) {
    const std::pair<const char*, Curve*> fields[] = {
        {"validation_loss", &m_.validation_loss},
        {"validation_bits_per_byte", &m_.validation_bits_per_byte},
        {"balance_loss", &m_.balance_loss},
        {"grad_norm", &m_.grad_norm},
        {"lr", &m_.lr},
        {"kept_bytes", &m_.kept_bytes},
        {"peak_bytes", &m_.peak_bytes}};
    for (const auto& [key, curve] : fields) {
      if (const auto value = number(line, key)) curve->add(m_.last_step, *value);
    }
  }

  void add_rates(const dom::element& line, std::optional<double> loss) {
    const double tokens = number(line, "tokens").value_or(0);
    const double seconds = number(line, "seconds").value_or(0);
    const double bytes = number(line, "bytes").value_or(0);
    const double flops = number(line, "flops").value_or(0);
    m_.n_tokens += tokens;
    m_.seconds += seconds;
    if (tokens > 0 && seconds > 0) m_.tokens_per_s.add(m_.last_step, tokens / seconds);
    if (flops > 0 && seconds > 0) m_.gflop_s.add(m_.last_step, 1e-9 * flops / seconds);
    if (loss && bytes > 0 && tokens > 0) {
      m_.bits_per_byte.add(m_.last_step, *loss * tokens / bytes / std::numbers::ln2);
    }
  }

  void add_lists(const dom::element& line) {
    add_depths(numbers(line, "mtp_loss"), m_.mtp_loss);
    add_depths(numbers(line, "validation_mtp_loss"), m_.validation_mtp_loss);
    add_depths(numbers(line, "mtp_acceptance"), m_.mtp_acceptance);
    if (const auto vio = numbers(line, "validation_max_vio"); !vio.empty()) {
      const double sum = std::accumulate(vio.begin(), vio.end(), 0.0);
      m_.validation_max_vio.add(m_.last_step, sum / static_cast<double>(vio.size()));
    }
    if (const auto tokens = expert_tokens(line); !tokens.empty()) {
      history_.add(m_.last_step, tokens);
    }
  }

  void add_depths(const std::vector<double>& values, std::vector<Curve>& curves) const {
    constexpr std::size_t kMostDepths = 16;
    if (values.size() > kMostDepths) return;
    if (curves.size() < values.size()) curves.resize(values.size());
    for (std::size_t k = 0; k < values.size(); ++k) curves[k].add(m_.last_step, values[k]);
  }

  RunMetrics& m_;
  ExpertHistory history_;
  dom::parser parser_;
};

MappedFile open_log(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(ErrorCode::kNotFound, fmt::format("{}: no such folder", folder.string()),
                "RUN is the folder that `kogia train --out` named");
  }
  const fs::path file = folder / "metrics.jsonl";
  if (!fs::exists(file, ignored)) {
    throw Error(ErrorCode::kNotFound, fmt::format("{}: has no metrics.jsonl", folder.string()),
                "RUN is the folder that `kogia train --out` named; a run has one after a step");
  }
  return MappedFile::open(file);
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

/// Which lines are of a step that comes again further down, as after a stop: the last one counts.
std::vector<bool> came_again(const std::vector<std::string_view>& lines) {
  constexpr std::string_view kKey = "\"step\":";
  std::vector<bool> again(lines.size(), false);
  Index next = std::numeric_limits<Index>::max();
  for (std::size_t i = lines.size(); i-- > 0;) {
    const std::size_t at = lines[i].find(kKey);
    if (at == std::string_view::npos) continue;
    Index step = 0;
    const char* const from = lines[i].data() + at + kKey.size();
    const auto [end, error] = std::from_chars(from, lines[i].data() + lines[i].size(), step);
    if (error != std::errc() || end == from || step < 1) continue;
    again[i] = step >= next;
    next = std::min(next, step);
  }
  return again;
}

}  // namespace

std::string RunMetrics::name() const {
  const fs::path path = fs::absolute(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

RunMetrics read_run_metrics(const fs::path& folder) {
  const MappedFile file = open_log(folder);
  std::vector<std::string_view> lines = lines_of(file.text());
  RunMetrics metrics;
  metrics.folder = folder;
  if (!file.text().empty() && !file.text().ends_with('\n')) {
    metrics.notes.push_back(
        fmt::format("{}: line {} was cut off and is left out", file.name(), lines.size()));
    lines.pop_back();
  }
  LogReader reader(metrics, static_cast<Index>(lines.size()));
  Index n_damaged = 0, first_damaged = 0;
  const std::vector<bool> again = came_again(lines);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (again[i] || reader.add(lines[i])) continue;
    if (++n_damaged == 1) first_damaged = static_cast<Index>(i) + 1;
  }
  reader.finish();
  if (metrics.n_lines == 0) {
    throw Error(ErrorCode::kInvalid, fmt::format("{}: holds not a single step", file.name()),
                "a line appears when the first step is done");
  }
  if (n_damaged > 0) {
    metrics.notes.push_back(
        fmt::format("{}: lines that say nothing are left out: {}, the first is line {}",
                    file.name(), n_damaged, first_damaged));
  }
  return metrics;
}

}  // namespace kogia
