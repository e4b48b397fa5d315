#include "train/run_fields.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;

/// The words stand in the order of the enum.
template <class Enum>
Choice choice(Enum& target, std::vector<std::string> words) {
  return {.words = std::move(words),
          .get = [&target] { return static_cast<std::size_t>(target); },
          .set = [&target](std::size_t i) { target = static_cast<Enum>(i); }};
}

Choice mla_choice(MlaForm& target) {
  return {.words = {"expanded", "absorbed"},
          .get = [&target] { return target == MlaForm::kExpanded ? 0U : 1U; },
          .set = [&target](
                     std::size_t i) { target = i == 0 ? MlaForm::kExpanded : MlaForm::kAbsorbed; }};
}

Field count(const char* section, const char* key, Index& target, double low = 0) {
  return {.section = section, .key = key, .target = &target, .low = low, .high = kMostSteps};
}

Field uncompared(Field field) {
  field.compared = false;
  return field;
}

void add_trainer(RunConfig::Trainer& t, std::vector<Field>& to) {
  to.push_back(uncompared(count("trainer", "steps", t.steps, 1)));
  to.push_back(count("trainer", "batch_size", t.batch_size, 1));
  to.push_back(count("trainer", "micro_batch_size", t.micro_batch_size, 1));
  to.push_back(count("trainer", "seed", t.seed));
  to.push_back(uncompared(count("trainer", "threads", t.threads)));
  to.back().high = 4096;
  to.push_back(uncompared(count("trainer", "log_every", t.log_every)));
  to.push_back(uncompared(count("trainer", "eval_every", t.eval_every)));
  to.push_back(uncompared(count("trainer", "eval_rows", t.eval_rows)));
  to.push_back(uncompared(count("trainer", "checkpoint_every", t.checkpoint_every)));
  to.push_back(uncompared(count("trainer", "keep_checkpoints", t.keep_checkpoints, 1)));
  to.push_back({.section = "trainer", .key = "recompute", .target = &t.recompute});
  to.push_back(uncompared({.section = "trainer", .key = "tensorboard", .target = &t.tensorboard}));
  to.push_back(
      uncompared({.section = "trainer", .key = "stop_at_spike", .target = &t.stop_at_spike}));
}

void add_optimizer(RunConfig::Optimizer& o, std::vector<Field>& to) {
  const auto add = [&](const char* key, Field::Target target) -> Field& {
    return to.emplace_back(Field{.section = "optimizer", .key = key, .target = std::move(target)});
  };
  add("name", choice(o.name, {"adamw"}));
  add("lr", &o.lr).above = true;
  for (auto [key, beta] : {std::pair("beta1", &o.beta1), std::pair("beta2", &o.beta2)}) {
    Field& field = add(key, beta);
    field.high = 1;
    field.below = true;
  }
  add("eps", &o.eps).above = true;
  add("weight_decay", &o.weight_decay);
  add("clip", &o.clip);
  add("moments", choice(o.moments, {"f32", "bf16"}));
}

void add_schedule(RunConfig::Schedule& s, std::vector<Field>& to) {
  to.push_back({.section = "schedule",
                .key = "kind",
                .target = choice(s.kind, {"constant", "cosine", "linear", "wsd", "v3"})});
  to.push_back(count("schedule", "warmup_steps", s.warmup_steps));
  to.push_back({.section = "schedule", .key = "min_lr", .target = &s.min_lr});
  to.push_back(count("schedule", "decay_start", s.decay_start));
  to.push_back(count("schedule", "decay_steps", s.decay_steps));
  to.push_back(count("schedule", "final_start", s.final_start));
  to.push_back({.section = "schedule", .key = "final_lr", .target = &s.final_lr});
  to.push_back({.section = "schedule", .key = "batch_ramp", .target = &s.batch_ramp});
}

Json value_of(const RunConfig::Recompute& r) {
  Json list = Json::array();
  if (r.norms) list.push_back("norms");
  if (r.swiglu) list.push_back("swiglu");
  if (r.up_projection) list.push_back("up_projection");
  return list;
}

Json value_of(const RunConfig::Source& s) {
  return {{"path", s.path.string()}, {"weight", s.weight}, {"field", s.field}};
}
Json value_of(const RunConfig::StepValue& s) { return {{"step", s.step}, {"value", s.value}}; }
Json value_of(const RunConfig::RampStep& s) {
  return {{"step", s.step}, {"batch_size", s.batch_size}};
}

struct ToJson {
  Json operator()(const bool* x) const { return *x; }
  Json operator()(const Index* x) const { return *x == RunConfig::kUnset ? Json() : Json(*x); }
  Json operator()(const double* x) const {
    return *x == static_cast<double>(RunConfig::kUnset) ? Json() : Json(*x);
  }
  Json operator()(const std::string* x) const { return *x; }
  Json operator()(const std::filesystem::path* x) const {
    return x->empty() ? Json() : Json(x->string());
  }
  Json operator()(const Choice& x) const { return x.words[x.get()]; }
  Json operator()(const RunConfig::Recompute* x) const { return value_of(*x); }
  template <class Entry>
  Json operator()(const std::vector<Entry>* x) const {
    Json list = Json::array();
    for (const Entry& entry : *x) list.push_back(value_of(entry));
    return list;
  }
};

}  // namespace

std::vector<Field> run_fields(RunConfig& c) {
  constexpr double kLongest = 1 << 30;
  std::vector<Field> to;
  to.push_back({.section = "model", .key = "from", .target = &c.model.from});
  to.push_back({.section = "model", .key = "weights", .target = &c.model.weights});
  to.push_back({.section = "model", .key = "mla", .target = mla_choice(c.model.mla)});
  to.push_back({.section = "data", .key = "sources", .target = &c.data.sources});
  to.push_back({.section = "data", .key = "tokenizer", .target = &c.data.tokenizer});
  to.push_back(count("data", "sequence_length", c.data.sequence_length, 2));
  to.back().high = kLongest;
  to.push_back({.section = "data", .key = "holdout", .target = &c.data.holdout, .high = 1});
  to.back().below = true;
  to.push_back(count("data", "seed", c.data.seed));
  to.push_back(uncompared({.section = "data", .key = "cache", .target = &c.data.cache}));
  add_trainer(c.trainer, to);
  add_optimizer(c.optimizer, to);
  add_schedule(c.schedule, to);
  to.push_back({.section = "precision",
                .key = "recipe",
                .target = choice(c.precision.recipe, {"f32", "bf16", "fp8"})});
  to.push_back({.section = "experts",
                .key = "balance",
                .target = choice(c.experts.balance, {"loss_free", "aux_loss", "none"})});
  to.push_back({.section = "experts",
                .key = "bias_update_rate",
                .target = &c.experts.bias_update_rate,
                .high = 1});
  to.push_back(count("experts", "bias_update_until", c.experts.bias_update_until));
  to.push_back({.section = "experts", .key = "sequence_loss", .target = &c.experts.sequence_loss});
  to.push_back({.section = "experts", .key = "aux_loss", .target = &c.experts.aux_loss});
  to.push_back({.section = "mtp", .key = "loss_weight", .target = &c.mtp.loss_weight});
  return to;
}

Json field_value(const Field& field) { return std::visit(ToJson(), field.target); }

const std::vector<std::string>& model_config_keys() {
  static const std::vector<std::string> keys{"model_type",
                                             "vocab_size",
                                             "hidden_size",
                                             "intermediate_size",
                                             "moe_intermediate_size",
                                             "num_hidden_layers",
                                             "num_attention_heads",
                                             "num_key_value_heads",
                                             "head_dim",
                                             "q_lora_rank",
                                             "kv_lora_rank",
                                             "qk_nope_head_dim",
                                             "qk_rope_head_dim",
                                             "v_head_dim",
                                             "n_routed_experts",
                                             "n_shared_experts",
                                             "num_experts_per_tok",
                                             "n_group",
                                             "topk_group",
                                             "first_k_dense_replace",
                                             "moe_layer_freq",
                                             "routed_scaling_factor",
                                             "norm_topk_prob",
                                             "scoring_func",
                                             "topk_method",
                                             "num_nextn_predict_layers",
                                             "rms_norm_eps",
                                             "rope_theta",
                                             "rope_scaling",
                                             "rope_parameters",
                                             "rope_interleave",
                                             "max_position_embeddings",
                                             "tie_word_embeddings",
                                             "initializer_range",
                                             "hidden_act",
                                             "attention_bias",
                                             "mlp_bias",
                                             "attention_dropout",
                                             "architectures",
                                             "torch_dtype",
                                             "dtype",
                                             "bos_token_id",
                                             "eos_token_id",
                                             "pad_token_id"};
  return keys;
}

}  // namespace kogia
