#include "train/step.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "model/watch.h"

namespace kogia {
namespace {

/// Targets of the main model and of each depth of multi-token prediction.
std::vector<Index> count_targets(std::span<const PackedRow> rows, Index n_depths) {
  std::vector<Index> n(static_cast<std::size_t>(n_depths) + 1, 0);
  for (const PackedRow& row : rows) {
    for (std::size_t d = 0; d < row.document_begin.size(); ++d) {
      const Index length = row.document_end(d) - row.document_begin[d];
      for (std::size_t k = 0; k < n.size(); ++k) {
        n[k] += std::max<Index>(0, length - 1 - static_cast<Index>(k));
      }
    }
  }
  return n;
}

void add_loads(std::vector<ExpertLoad>& loads, const std::vector<ExpertLoad>& more) {
  for (const ExpertLoad& load : more) {
    auto at = std::find_if(loads.begin(), loads.end(),
                           [&](const ExpertLoad& l) { return l.layer == load.layer; });
    if (at == loads.end()) {
      loads.push_back(load);
      continue;
    }
    for (std::size_t e = 0; e < load.tokens.size(); ++e) at->tokens[e] += load.tokens[e];
  }
}

}  // namespace

Keeping keeping_of(Recipe recipe) {
  switch (recipe) {
    case Recipe::kF32:
      break;
    case Recipe::kBf16:
      return Keeping::kBf16;
    case Recipe::kFp8:
      return Keeping::kFp8;
  }
  return Keeping::kF32;
}

/// Rows laid end to end, each text a sequence of all its tokens but the last.
struct StepRunner::MicroBatch {
  explicit MicroBatch(std::span<const PackedRow> rows) {
    Index n_pages = 0;
    for (const PackedRow& row : rows) {
      packed_rows.push_back(static_cast<Index>(ids.size()));
      for (std::size_t d = 0; d < row.document_begin.size(); ++d) {
        const auto text = std::span(row.ids).subspan(
            static_cast<std::size_t>(row.document_begin[d]),
            static_cast<std::size_t>(row.document_end(d) - row.document_begin[d]));
        if (text.size() < 2) continue;
        sequences.push_back({.row_begin = static_cast<Index>(ids.size()),
                             .n_rows = static_cast<Index>(text.size()) - 1,
                             .first_pos = 0});
        n_pages += pages_of(sequences.back());
        ids.insert(ids.end(), text.begin(), text.end() - 1);
        targets.insert(targets.end(), text.begin() + 1, text.end());
      }
    }
    pages.resize(static_cast<std::size_t>(n_pages));
    std::iota(pages.begin(), pages.end(), 0);
    const std::int32_t* next = pages.data();
    for (SequenceRows& s : sequences) {
      s.pages = next;
      next += pages_of(s);
    }
  }
  static Index pages_of(const SequenceRows& s) { return ceil_div(s.n_rows, kPageTokens); }

  std::vector<std::int32_t> ids, targets, pages;
  std::vector<SequenceRows> sequences;
  std::vector<Index> packed_rows;
};

StepRunner::StepRunner(Device& device, Parameters& parameters, Optimizer& optimizer,
                       const TapeOptions& options)
    : device_(device), parameters_(parameters), optimizer_(optimizer), tape_(device, options) {}
StepRunner::~StepRunner() = default;

StepResult StepRunner::pass(std::span<const PackedRow> rows, Index micro_batch_size,
                            float mtp_weight, bool backward) {
  const Model& model = parameters_.model();
  const Index n_depths = model.config().num_nextn_predict_layers;
  const std::vector<Index> n_targets = count_targets(rows, n_depths);
  std::vector<float> weights, row_weights;
  for (std::size_t k = 0; k < n_targets.size(); ++k) {
    const double share =
        k == 0 ? 1.0 : static_cast<double>(mtp_weight) / static_cast<double>(n_depths);
    const double each = 1 / static_cast<double>(std::max<Index>(1, n_targets[k]));
    weights.push_back(static_cast<float>(share * each));
    row_weights.push_back(static_cast<float>(each));
  }
  StepResult result{.n_tokens = n_targets[0]};
  std::vector<TrainLoss> sums(n_targets.size());
  workspace_.tape = backward ? &tape_ : nullptr;
  const auto size = static_cast<Index>(rows.size());
  const Index each = micro_batch_size > 0 ? micro_batch_size : std::max<Index>(1, size);
  for (Index at = 0; at < size; at += each) {
    const MicroBatch micro(rows.subspan(static_cast<std::size_t>(at),
                                        static_cast<std::size_t>(std::min(each, size - at))));
    if (micro.ids.empty()) continue;
    // Each layer reads what it wrote itself, so that all share the pages of one.
    CacheMemory cache{.spec = model.cache_spec(model.default_cache_dtype())};
    cache.page_stride = round_up(device_.cache_page_bytes(cache.spec), 64);
    cache_.reset();
    cache.base =
        cache_.allocate<std::byte>(cache.page_stride * static_cast<Index>(micro.pages.size()));
    const auto losses = model.forward_train({.ids = micro.ids,
                                             .targets = micro.targets,
                                             .sequences = micro.sequences,
                                             .packed_rows = micro.packed_rows,
                                             .cache = cache,
                                             .loss_weights = weights,
                                             .row_weights = row_weights},
                                            workspace_);
    for (std::size_t k = 0; k < losses.size(); ++k) {
      sums[k].sum += losses[k].sum;
      sums[k].n_drafted += losses[k].n_drafted;
      sums[k].n_accepted += losses[k].n_accepted;
    }
    add_loads(result.loads, workspace_.loads);
    if (!backward) continue;
    result.balance_loss += tape_.balance_loss();
    result.kept_bytes = std::max(result.kept_bytes, tape_.kept_bytes());
    tape_.backward(workspace_.watch);
  }
  for (std::size_t k = 0; k < sums.size(); ++k) {
    const double mean = sums[k].sum / static_cast<double>(std::max<Index>(1, n_targets[k]));
    if (k == 0) {
      result.loss = mean;
      continue;
    }
    result.mtp_loss.push_back(mean);
    if (backward) continue;
    result.mtp_acceptance.push_back(static_cast<double>(sums[k].n_accepted) /
                                    static_cast<double>(std::max<Index>(1, sums[k].n_drafted)));
  }
  return result;
}

StepResult StepRunner::evaluate(std::span<const PackedRow> rows, Index micro_batch_size) {
  return pass(rows, micro_batch_size, 0, false);
}

StepResult StepRunner::gradients(std::span<const PackedRow> rows, const StepSettings& settings) {
  parameters_.clear_gradients();
  StepResult result = pass(rows, settings.micro_batch_size, settings.mtp_weight, true);
  parameters_.finish_gradients();
  result.grad_norm = optimizer_.global_norm();
  return result;
}

StepResult StepRunner::run(std::span<const PackedRow> rows, const StepSettings& settings,
                           Index step) {
  StepResult result = gradients(rows, settings);
  if (result.n_tokens == 0) return result;
  check(result, rows, settings, step);
  optimizer_.step(settings.optimizer, result.grad_norm, step);
  update_biases(result, settings.bias_rate);
  parameters_.refresh();
  return result;
}

void StepRunner::check(const StepResult& result, std::span<const PackedRow> rows,
                       const StepSettings& settings, Index step) {
  constexpr const char* kHelp =
      "go on with a lower learning rate from the checkpoint of the step before";
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    throw Error(
        ErrorCode::kInvalid,
        fmt::format("step {}: the loss is {:.4g}, the norm of the gradient {:.4g}; {} is the "
                    "first result that is no number",
                    step, result.loss, result.grad_norm, where_it_began(rows, settings)),
        kHelp);
  }
  if (result.loss > settings.max_loss) {
    throw Error(ErrorCode::kInvalid,
                fmt::format("step {}: the loss has jumped to {:.4f}, over {:.4f}; {}", step,
                            result.loss, settings.max_loss, largest_gradient()),
                kHelp);
  }
}

// The same pass once more, looked at after each operation.
std::string StepRunner::where_it_began(std::span<const PackedRow> rows,
                                       const StepSettings& settings) {
  for (const Parameter& p : parameters_.all()) {
    if (!all_finite(p.master, p.n)) return fmt::format("the weight {}", p.name);
  }
  Watch watch(parameters_.weights());
  workspace_.watch = &watch;
  parameters_.clear_gradients();
  pass(rows, settings.micro_batch_size, settings.mtp_weight, true);
  workspace_.watch = nullptr;
  return watch.found() ? watch.where() : "the sum of all gradients";
}

std::string StepRunner::largest_gradient() const {
  const Parameter* largest = nullptr;
  double most = -1, all = 0;
  for (const Parameter& p : parameters_.all()) {
    if (p.grad == nullptr) continue;
    const double square = std::inner_product(
        p.grad, p.grad + p.n, p.grad, 0.0, std::plus<>(),
        [](float a, float b) { return static_cast<double>(a) * static_cast<double>(b); });
    all += square;
    if (square > most) most = square, largest = &p;
  }
  if (largest == nullptr) return "there is no gradient";
  return fmt::format("{:.0f} % of the gradient's square is at {}", 100 * most / all, largest->name);
}

// b_e += γ sign(mean − c_e), over the counts of the whole step              arXiv:2408.15664 alg. 1
void StepRunner::update_biases(const StepResult& result, float rate) {
  if (rate == 0) return;
  for (const ExpertLoad& load : result.loads) {
    float* const bias = parameters_.router_bias(load.layer);
    if (bias == nullptr) continue;
    const Index sum = std::accumulate(load.tokens.begin(), load.tokens.end(), Index{0});
    const auto n = static_cast<Index>(load.tokens.size());
    for (std::size_t e = 0; e < load.tokens.size(); ++e) {
      const Index above = load.tokens[e] * n - sum;  // exact: n times the distance to the mean
      bias[e] += above < 0 ? rate : above > 0 ? -rate : 0.0F;
    }
  }
}

}  // namespace kogia
