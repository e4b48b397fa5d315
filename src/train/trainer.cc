#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "train/event_file.h"
#include "train/row_counts.h"
#include "train/run_file.h"
#include "train/schedule.h"

namespace kogia {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::unique_ptr<Parameters> first_parameters(const RunConfig& config, Device& device,
                                             const std::optional<RunFolder::Found>& checkpoint) {
  const Recipe recipe = config.precision.recipe;
  const MlaForm form = config.model.mla;
  if (checkpoint) {
    return std::make_unique<Parameters>(device, *Checkpoint::open(checkpoint->path), recipe, form);
  }
  if (config.model.weights) {
    return std::make_unique<Parameters>(device, *Checkpoint::open(config.model.from), recipe, form);
  }
  const double range = config.model.config.value("initializer_range", 0.02);
  return std::make_unique<Parameters>(device, config.model.config.dump(2) + "\n", range,
                                      static_cast<std::uint64_t>(config.trainer.seed), recipe,
                                      form);
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// The most memory that the process has had.
Index peak_bytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<Index>(usage.ru_maxrss) * 1024;
}

nlohmann::ordered_json line_of(const StepReport& report) {
  nlohmann::ordered_json line;
  const StepResult& r = report.result;
  line["step"] = report.step;
  line["loss"] = r.loss;
  if (!r.mtp_loss.empty()) line["mtp_loss"] = r.mtp_loss;
  line["grad_norm"] = r.grad_norm;
  line["lr"] = report.lr;
  line["tokens"] = r.n_tokens;
  line["seconds"] = report.seconds;
  line["time"] = seconds_since_1970();
  if (report.bytes > 0) line["bytes"] = report.bytes;
  line["flops"] = report.flops;
  line["kept_bytes"] = r.kept_bytes;
  line["peak_bytes"] = peak_bytes();
  if (!r.loads.empty()) {
    nlohmann::ordered_json tokens;
    for (const ExpertLoad& load : r.loads) tokens.push_back(load.tokens);
    line["max_vio"] = report.max_vio;
    line["expert_tokens"] = tokens;
  }
  if (r.balance_loss != 0) line["balance_loss"] = r.balance_loss;
  if (report.validation_loss) line["validation_loss"] = *report.validation_loss;
  if (report.validation_bits_per_byte > 0) {
    line["validation_bits_per_byte"] = report.validation_bits_per_byte;
  }
  if (!report.validation_mtp_loss.empty()) line["validation_mtp_loss"] = report.validation_mtp_loss;
  if (!report.mtp_acceptance.empty()) line["mtp_acceptance"] = report.mtp_acceptance;
  if (!report.validation_max_vio.empty()) line["validation_max_vio"] = report.validation_max_vio;
  return line;
}

std::vector<EventFile::Scalar> scalars_of(const StepReport& report) {
  const StepResult& r = report.result;
  std::vector<EventFile::Scalar> out{
      {"train/loss", r.loss},
      {"train/grad_norm", r.grad_norm},
      {"train/lr", report.lr},
      {"train/tokens_per_s", static_cast<double>(r.n_tokens) / report.seconds}};
  for (std::size_t d = 0; d < r.mtp_loss.size(); ++d) {
    out.emplace_back(fmt::format("train/mtp_loss_{}", d + 1), r.mtp_loss[d]);
  }
  for (std::size_t i = 0; i < r.loads.size(); ++i) {
    out.emplace_back(fmt::format("experts/max_vio_layer_{}", r.loads[i].layer), report.max_vio[i]);
  }
  if (report.validation_loss) out.emplace_back("validation/loss", *report.validation_loss);
  if (report.validation_bits_per_byte > 0) {
    out.emplace_back("validation/bits_per_byte", report.validation_bits_per_byte);
  }
  for (std::size_t d = 0; d < report.mtp_acceptance.size(); ++d) {
    out.emplace_back(fmt::format("validation/mtp_loss_{}", d + 1), report.validation_mtp_loss[d]);
    out.emplace_back(fmt::format("validation/mtp_acceptance_{}", d + 1), report.mtp_acceptance[d]);
  }
  return out;
}

}  // namespace

Trainer::Trainer(const RunConfig& config, Device& device, RowSource& rows, RunFolder& folder,
                 const std::optional<RunFolder::Found>& checkpoint, CheckpointTokenizer tokenizer)
    : config_(config),
      rows_(rows),
      folder_(folder),
      tokenizer_(std::move(tokenizer)),
      parameters_(first_parameters(config, device, checkpoint)) {
  const bool small = config.optimizer.moments == MomentType::kBf16;
  optimizer_ =
      std::make_unique<Optimizer>(device, parameters_->all(), small ? DType::bf16 : DType::f32);
  const RunConfig::Experts& e = config.experts;
  const auto loss_of = [&](Balance kind) {
    if (e.balance != kind) return 0.0F;
    return static_cast<float>(kind == Balance::kLossFree ? e.sequence_loss : e.aux_loss);
  };
  const RunConfig::Recompute& again = config.trainer.recompute;
  runner_ = std::make_unique<StepRunner>(device, *parameters_, *optimizer_,
                                         TapeOptions{.keeping = keeping_of(config.precision.recipe),
                                                     .recompute_norms = again.norms,
                                                     .recompute_swiglu = again.swiglu,
                                                     .recompute_up_projection = again.up_projection,
                                                     .sequence_loss = loss_of(Balance::kLossFree),
                                                     .batch_loss = loss_of(Balance::kAuxLoss)});
  if (checkpoint) {
    RunFolder::load_optimizer(checkpoint->path, parameters_->all(), *optimizer_);
    step_ = saved_ = checkpoint->step;
  }
}

StepSettings Trainer::settings() const {
  const RunConfig::Optimizer& o = config_.optimizer;
  const auto f = [](double x) { return static_cast<float>(x); };
  return {.optimizer = {.lr = f(learning_rate(config_, step_)),
                        .beta1 = f(o.beta1),
                        .beta2 = f(o.beta2),
                        .eps = f(o.eps),
                        .weight_decay = f(o.weight_decay),
                        .clip = f(o.clip)},
          .micro_batch_size = config_.trainer.micro_batch_size,
          .mtp_weight = f(mtp_loss_weight(config_, step_)),
          .bias_rate = f(bias_update_rate(config_, step_)),
          .max_loss = max_loss()};
}

// Relative to the last steps: one loss alone says little.
double Trainer::max_loss() const {
  constexpr std::size_t kEnough = 20;
  const double spike = config_.trainer.stop_at_spike;
  if (spike == 0 || losses_.size() < kEnough) return std::numeric_limits<double>::infinity();
  return std::accumulate(losses_.begin(), losses_.end(),
                         spike * static_cast<double>(losses_.size())) /
         static_cast<double>(losses_.size());
}

StepReport Trainer::one_step() {
  const auto begin = std::chrono::steady_clock::now();
  const StepSettings how = settings();
  const std::vector<PackedRow> rows =
      rows_.rows(rows_before(config_, step_), batch_size(config_, step_));
  StepReport report{.n_steps = config_.trainer.steps};
  try {
    report.result = runner_->run(rows, how, step_ + 1);
  } catch (const Error& e) {
    save();
    throw Error(e.code(), e.what(),
                fmt::format("{}: {}", e.help(), (folder_.path() / "latest").string()));
  }
  constexpr std::size_t kWindow = 50;
  losses_.push_back(report.result.loss);
  if (losses_.size() > kWindow) losses_.pop_front();
  for (const ExpertLoad& load : report.result.loads) report.max_vio.push_back(max_vio(load));
  report.step = ++step_;
  report.lr = static_cast<double>(how.optimizer.lr);
  report.bytes = predicted_bytes(rows, rows_.token_bytes());
  report.flops = train_flops(parameters_->model().config(), rows);
  report.seconds = seconds_since(begin);
  return report;
}

void Trainer::validate(StepReport& report) {
  const std::vector<PackedRow> rows = rows_.validation_rows(config_.trainer.eval_rows);
  if (rows.empty()) return;
  const StepResult result = runner_->evaluate(rows, config_.trainer.micro_batch_size);
  report.validation_loss = result.loss;
  report.validation_mtp_loss = result.mtp_loss;
  report.mtp_acceptance = result.mtp_acceptance;
  if (const Index bytes = predicted_bytes(rows, rows_.token_bytes()); bytes > 0) {
    const double bits = result.loss * static_cast<double>(result.n_tokens) / std::numbers::ln2;
    report.validation_bits_per_byte = bits / static_cast<double>(bytes);
  }
  for (const ExpertLoad& load : result.loads) report.validation_max_vio.push_back(max_vio(load));
}

void Trainer::save() {
  if (saved_ == step_) return;
  folder_.save({.step = step_, .run_toml = to_toml(config_), .tokenizer = tokenizer_}, *parameters_,
               *optimizer_, config_.trainer.keep_checkpoints);
  saved_ = step_;
}

TrainReport Trainer::run(const std::function<void(const StepReport&)>& tell) {
  const auto begin = std::chrono::steady_clock::now();
  MetricsLog log(folder_.path() / "metrics.jsonl", step_);
  std::optional<EventFile> events;
  if (config_.trainer.tensorboard) {
    events.emplace(folder_.path() / "tensorboard" / "events.out.tfevents.0.kogia", step_);
  }
  const RunConfig::Trainer& t = config_.trainer;
  const auto due = [&](Index every) { return every > 0 && step_ % every == 0; };
  TrainReport report{.first_step = step_};
  while (step_ < t.steps && !interrupted()) {
    StepReport step = one_step();
    if (due(t.eval_every) || step_ == t.steps) validate(step);
    log.add(line_of(step));
    if (events) events->add(step.step, seconds_since_1970(), scalars_of(step));
    if (due(t.checkpoint_every)) save();
    report.loss = step.result.loss;
    report.n_tokens += step.result.n_tokens;
    if (step.validation_loss) report.validation_loss = step.validation_loss;
    if (tell) tell(step);
  }
  report.interrupted = step_ < t.steps;
  save();
  report.n_steps = step_;
  report.seconds = seconds_since(begin);
  report.checkpoint = folder_.path() / "latest";
  return report;
}

}  // namespace kogia
