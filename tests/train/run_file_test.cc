// Run files say what they mean or are refused with their line; what is written reads back the same.

#include "train/run_file.h"

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/temp_dir.h"
#include "train/run_fields.h"
#include "train/toml_tree.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kRun = R"(# a small run
[model]
model_type = "deepseek_v3"
vocab_size = 512
hidden_size = 64
intermediate_size = 128
moe_intermediate_size = 32
num_hidden_layers = 2
num_attention_heads = 4
kv_lora_rank = 32
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
n_routed_experts = 8
n_shared_experts = 1
num_experts_per_tok = 2
n_group = 1
topk_group = 1
first_k_dense_replace = 1
routed_scaling_factor = 1.0
num_nextn_predict_layers = 1

[data]
sources = [{ path = "text/a.jsonl", weight = 3 }, { path = "b.txt" }]
tokenizer = "tok"
sequence_length = 128

[trainer]
steps = 200
batch_size = 4

[optimizer]
lr = 1e-3

[schedule]
kind = "cosine"
warmup_steps = 20
)";
constexpr int kStepsLine = 29;

class RunFile : public testing::Test {
 protected:
  RunFile() {
    folder_.write("text/a.jsonl", "{\"text\": \"a\"}\n");
    folder_.write("b.txt", "b");
    folder_.write("tok/tokenizer.json", "{}");
  }

  RunFileOptions options(std::vector<std::string> overrides = {}) const {
    return {.overrides = std::move(overrides),
            .home = folder_.path() / "home",
            .cache = folder_.path() / "cache"};
  }
  RunConfig parse(const std::string& text, std::vector<std::string> overrides = {}) const {
    return parse_run_file(text, file(), options(std::move(overrides)));
  }
  fs::path file() const { return folder_.path() / "run.toml"; }

  /// Message and help.
  std::string refusal(const std::string& text, std::vector<std::string> overrides = {}) const {
    try {
      parse(text, std::move(overrides));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage) << error.what();
      const std::string what = error.what();
      const std::string begin = folder_.path().string() + "/";
      const bool ours = what.starts_with(begin);
      return (ours ? what.substr(begin.size()) : what) + " | " + error.help();
    }
    return "read";
  }
  /// kRun with one piece of text changed.
  static std::string with(const std::string& from, const std::string& to) {
    std::string text = kRun;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  }

  TempDir folder_;
};

TEST_F(RunFile, EveryFieldArrives) {
  const RunConfig c = parse(
      std::string(kRun) + R"(
decay_start = 50
decay_steps = 100
min_lr = 1e-5
batch_ramp = [{ step = 10, batch_size = 6 }, { step = 20, batch_size = 8 }]
[precision]
recipe = "fp8"
[experts]
balance = "aux_loss"
bias_update_rate = 0.002
bias_update_until = 150
sequence_loss = 2e-4
aux_loss = 0.02
[mtp]
loss_weight = [{ step = 0, value = 0.3 }, { step = 100, value = 0.1 }]
)",
      {"trainer.micro_batch_size=2", "trainer.seed=7", "trainer.threads=2", "trainer.log_every=5",
       "trainer.eval_every=50", "trainer.eval_rows=9", "trainer.checkpoint_every=25",
       "trainer.keep_checkpoints=3", "trainer.recompute=[\"norms\",\"up_projection\"]",
       "optimizer.beta1=0.8", "optimizer.beta2=0.99", "optimizer.eps=1e-9",
       "optimizer.weight_decay=0.2", "optimizer.clip=0.5", "optimizer.moments=bf16",
       "data.holdout=0.05", "data.seed=3", "data.cache=/somewhere/else", "model.mla=absorbed"});
  EXPECT_EQ(c.model.config["hidden_size"], 64);
  EXPECT_EQ(c.model.mla, MlaForm::kAbsorbed);
  ASSERT_EQ(c.data.sources.size(), 2U);
  EXPECT_EQ(c.data.sources[0].path, folder_.path() / "text/a.jsonl");
  EXPECT_EQ(c.data.sources[0].weight, 3);
  EXPECT_EQ(c.data.sources[1].field, "text");
  EXPECT_EQ(c.data.tokenizer, folder_.path() / "tok/tokenizer.json");
  EXPECT_EQ(c.data.sequence_length, 128);
  EXPECT_EQ(c.data.holdout, 0.05);
  EXPECT_EQ(c.data.seed, 3);
  EXPECT_EQ(c.data.cache, "/somewhere/else");
  EXPECT_EQ(c.trainer.steps, 200);
  EXPECT_EQ(c.trainer.batch_size, 4);
  EXPECT_EQ(c.trainer.micro_batch_size, 2);
  EXPECT_EQ(c.trainer.seed, 7);
  EXPECT_EQ(c.trainer.threads, 2);
  EXPECT_EQ(c.trainer.log_every, 5);
  EXPECT_EQ(c.trainer.eval_every, 50);
  EXPECT_EQ(c.trainer.eval_rows, 9);
  EXPECT_EQ(c.trainer.checkpoint_every, 25);
  EXPECT_EQ(c.trainer.keep_checkpoints, 3);
  EXPECT_EQ(c.trainer.recompute,
            (RunConfig::Recompute{.norms = true, .swiglu = false, .up_projection = true}));
  EXPECT_EQ(c.optimizer.lr, 1e-3);
  EXPECT_EQ(c.optimizer.beta1, 0.8);
  EXPECT_EQ(c.optimizer.beta2, 0.99);
  EXPECT_EQ(c.optimizer.eps, 1e-9);
  EXPECT_EQ(c.optimizer.weight_decay, 0.2);
  EXPECT_EQ(c.optimizer.clip, 0.5);
  EXPECT_EQ(c.optimizer.moments, MomentType::kBf16);
  EXPECT_EQ(c.schedule.kind, ScheduleKind::kCosine);
  EXPECT_EQ(c.schedule.warmup_steps, 20);
  EXPECT_EQ(c.schedule.decay_start, 50);
  EXPECT_EQ(c.schedule.decay_steps, 100);
  EXPECT_EQ(c.schedule.min_lr, 1e-5);
  ASSERT_EQ(c.schedule.batch_ramp.size(), 2U);
  EXPECT_EQ(c.schedule.batch_ramp[1], (RunConfig::RampStep{.step = 20, .batch_size = 8}));
  EXPECT_EQ(c.precision.recipe, Recipe::kFp8);
  EXPECT_EQ(c.experts.balance, Balance::kAuxLoss);
  EXPECT_EQ(c.experts.bias_update_rate, 0.002);
  EXPECT_EQ(c.experts.bias_update_until, 150);
  EXPECT_EQ(c.experts.sequence_loss, 2e-4);
  EXPECT_EQ(c.experts.aux_loss, 0.02);
  ASSERT_EQ(c.mtp.loss_weight.size(), 2U);
  EXPECT_EQ(c.mtp.loss_weight[1], (RunConfig::StepValue{.step = 100, .value = 0.1}));
  EXPECT_EQ(model_config(c).n_routed_experts, 8);
}

TEST_F(RunFile, WhatIsLeftOpenGetsItsDefault) {
  const RunConfig c = parse(kRun);
  EXPECT_EQ(c.data.holdout, 0.01);
  EXPECT_EQ(c.data.cache, folder_.path() / "cache/tokens");
  EXPECT_EQ(c.trainer.micro_batch_size, 4);
  EXPECT_EQ(c.optimizer.beta2, 0.95);
  EXPECT_EQ(c.optimizer.moments, MomentType::kF32);
  EXPECT_EQ(c.schedule.decay_start, 20);
  EXPECT_EQ(c.schedule.decay_steps, 180);
  EXPECT_EQ(c.schedule.min_lr, 0);
  EXPECT_EQ(c.schedule.final_start, RunConfig::kUnset);
  EXPECT_EQ(c.experts.bias_update_rate, 0.001);
  EXPECT_EQ(c.experts.bias_update_until, RunConfig::kUnset);
  ASSERT_EQ(c.mtp.loss_weight.size(), 1U);
  EXPECT_EQ(c.mtp.loss_weight[0].value, 0.3);
  EXPECT_EQ(c.model.config["max_position_embeddings"], 128);
  EXPECT_EQ(c.model.config["initializer_range"], 0.02);
}

TEST_F(RunFile, UnknownKeysAreRefusedWithTheirLine) {
  EXPECT_THAT(refusal(with("steps = 200", "stepz = 200")),
              AllOf(StartsWith("run.toml:" + std::to_string(kStepsLine)),
                    HasSubstr("trainer.stepz is a key that nothing knows"),
                    HasSubstr("did you mean steps?")));
  EXPECT_THAT(refusal(with("batch_size = 4", "lr = 4")), HasSubstr("it belongs in [optimizer]"));
  EXPECT_THAT(refusal(with("[trainer]", "[trainers]")),
              AllOf(StartsWith("run.toml:28: trainers"), HasSubstr("did you mean [trainer]?")));
  EXPECT_THAT(refusal("steps = 3\n" + std::string(kRun)),
              AllOf(StartsWith("run.toml:1: steps"), HasSubstr("it belongs in [trainer]")));
  EXPECT_THAT(refusal(with("hidden_size = 64", "hiden_size = 64")),
              AllOf(StartsWith("run.toml:5: model.hiden_size"), HasSubstr("mean hidden_size?")));
  EXPECT_THAT(refusal(with("weight = 3", "wait = 3")),
              AllOf(StartsWith("run.toml:24: data.sources.0.wait"), HasSubstr("weight")));
}

TEST_F(RunFile, WrongTypesAreRefused) {
  EXPECT_THAT(refusal(with("steps = 200", "steps = \"200\"")),
              StartsWith("run.toml:29: trainer.steps is \"200\", expected a whole number"));
  EXPECT_THAT(refusal(with("steps = 200", "steps = 200.0")), HasSubstr("200.0, expected a whole"));
  EXPECT_THAT(refusal(with("lr = 1e-3", "lr = true")), HasSubstr("true, expected a number"));
  EXPECT_THAT(refusal(with("kind = \"cosine\"", "kind = 3")), HasSubstr("expected one of"));
  EXPECT_THAT(refusal(with("tokenizer = \"tok\"", "tokenizer = [1]")), HasSubstr("text in quotes"));
  EXPECT_THAT(refusal(with("hidden_size = 64", "hidden_size = \"64\"")),
              StartsWith("run.toml:5: model.hidden_size is \"64\", expected an integer"));
  EXPECT_THAT(refusal(with("[trainer]", "[[trainer]]")), HasSubstr("expected a section"));
  EXPECT_THAT(refusal(with("lr = 1e-3", "lr = nan")), HasSubstr("not a finite number"));
  EXPECT_THAT(refusal(with("lr = 1e-3", "lr = 2024-01-01")), HasSubstr("date"));
  EXPECT_THAT(refusal(kRun, {"trainer.recompute=3"}), HasSubstr("\"norms\""));
  EXPECT_THAT(refusal(kRun, {"data.sources=3"}), HasSubstr("a list"));
  EXPECT_THAT(refusal(kRun, {"data.sources=[3]"}), HasSubstr("data.sources.0 is 3"));
}

TEST_F(RunFile, ImpossibleValuesAreRefused) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"trainer.steps=0", "a whole number from 1"},
      {"trainer.batch_size=-1", "is -1, expected"},
      {"trainer.micro_batch_size=5", "more than the 4 rows of a step"},
      {"optimizer.lr=0", "above 0"},
      {"optimizer.beta1=1", "from 0 to below 1"},
      {"optimizer.clip=-1", "of 0 or more"},
      {"data.holdout=1", "from 0 to below 1"},
      {"data.sequence_length=1", "from 2"},
      {"data.sources=[]", "at least one"},
      {"data.sources.0.weight=0", "above 0"},
      {"data.sources.0.path=c.pdf", "another kind"},
      {"data.sources.0.path=none.txt", "which is not there"},
      {"data.tokenizer=none.json", "which is not there"},
      {"precision.recipe=fp4", "\"fp4\", expected one of \"f32\", \"bf16\", \"fp8\""},
      {"schedule.kind=constnat", "expected one of"},
      {"schedule.min_lr=0.1", "above optimizer.lr"},
      {"schedule.decay_start=3", "before the 20 steps of warm-up end"},
      {"schedule.final_lr=1e-6", "has no meaning"},
      {"schedule.batch_ramp=[{step=0,batch_size=3}]", "schedule.batch_ramp.0.step is 0"},
      {"schedule.batch_ramp=[{step=9,batch_size=3},{step=9,batch_size=4}]", "from 10"},
      {"schedule.batch_ramp=[{step=9}]", "has no batch_size"},
      {"mtp.loss_weight=[{step=5,value=1}]", "first step is 0"},
      {"mtp.loss_weight=[]", "first step is 0"},
      {"mtp.loss_weight=-1", "of 0 or more"},
      {"experts.balance=loss-free", "\"loss_free\""},
      {"model.mla=auto", "\"expanded\", \"absorbed\""},
      {"model.weights=true", "no model.from"},
      {"model.num_experts_per_tok=9", "model.num_experts_per_tok is 9, expected 1 to 8"},
      {"model.model_type=gpt2", "model_type is \"gpt2\""},
      {"model.max_position_embeddings=64", "more than the max_position_embeddings"},
      {"model.initializer_range=-1", "above 0"},
  };
  for (const auto& [override, expected] : cases) {
    EXPECT_THAT(refusal(kRun, {override}), HasSubstr(expected)) << override;
  }
  EXPECT_THAT(refusal(with("hidden_size = 64", "hidden_size = 0")),
              StartsWith("run.toml:5: model.hidden_size is 0, expected 1 to"));
  EXPECT_THAT(refusal(with("kv_lora_rank = 32", "")), HasSubstr("model.kv_lora_rank is missing"));
  for (const char* needed : {"steps = 200", "lr = 1e-3", "sequence_length = 128",
                             "tokenizer = \"tok\"", "model_type = \"deepseek_v3\""}) {
    EXPECT_THAT(refusal(with(needed, "")),
                testing::AnyOf(HasSubstr("is missing"), HasSubstr("has no")));
  }
  EXPECT_EQ(refusal(kRun), "read");
}

TEST_F(RunFile, WhatIsNoTomlIsRefusedWithItsLine) {
  EXPECT_THAT(refusal(with("steps = 200", "steps = ")), StartsWith("run.toml:29: no TOML:"));
  EXPECT_THAT(refusal(with("steps = 200", "steps = 1\nsteps = 2")), StartsWith("run.toml:30"));
  EXPECT_THAT(refusal("\xff"), HasSubstr("no TOML"));
  std::string deep = "a";
  for (int i = 0; i < 100000; ++i) deep += ".a";
  EXPECT_THAT(refusal(deep + " = 1"), HasSubstr("dots"));
  EXPECT_THAT(refusal("a = " + std::string(100000, '[')), HasSubstr("no TOML"));
  EXPECT_THAT(refusal(std::string(TomlTree::kMaxBytes + 1, '\n')), HasSubstr("more than"));
  EXPECT_THROW(read_run_file(folder_ / "none.toml", options()), Error);
}

// toml++ has undefined behaviour where it looks for white space and finds one of some characters.
TEST_F(RunFile, CharactersBeyondAsciiStandInStringsAndCommentsAlone) {
  for (const std::string bad :
       {"\xef\xb7\xb7'", "x = é", "é = 1", "x = 1 é", "x = 1é", "x = 10R\"\"\"é", "x = 1[\"é\"",
        R"(x = """a"""" é)", R"(x = "a"é)", "x = ''''a''''é", R"(x = """\é""")", R"(x = "a\\" é)",
        "x = \"\xff\""}) {
    EXPECT_THAT(refusal("\n" + bad), HasSubstr("no TOML")) << bad;
  }
  EXPECT_THAT(refusal("x = \"\\U0010ff85\""), HasSubstr("U+10FF00"));
  EXPECT_THAT(refusal("a = 1\n\nü"), StartsWith("run.toml:3: no TOML"));
  EXPECT_THAT(refusal("\xef\xbb\xbf\"é\" = 'é' # é"), HasSubstr("é is a key that nothing knows"));
  const TomlTree tree = TomlTree::parse(
      "a = \"\\\"é\\\"\"\nb = '''\né''\n'''\nc = \"\"\"\"é\"\"\"\"\"\n"
      "d = \"\"\"é \\\n ü\"\"\"\ne.\"ö\" = [\"€\", \"\U0001F433\", \"\\u00e9\", \"\U0010FF85\"]",
      "file");
  EXPECT_EQ(tree.values["a"], "\"é\"");
  EXPECT_EQ(tree.values["b"], "é''\n");
  EXPECT_EQ(tree.values["c"], "\"é\"\"");
  EXPECT_EQ(tree.values["d"], "é ü");
  EXPECT_EQ(tree.values["e"]["ö"], (nlohmann::json{"€", "\U0001F433", "é", "\U0010FF85"}));
  EXPECT_THAT(refusal(kRun, {"trainer.steps=é"}), HasSubstr("trainer.steps"));
}

TEST_F(RunFile, OverridesGoOverTheFile) {
  EXPECT_EQ(parse(kRun, {"trainer.steps=60", "trainer.steps=61"}).trainer.steps, 61);
  EXPECT_EQ(parse(kRun, {"precision.recipe=f32"}).precision.recipe, Recipe::kF32) << "bare word";
  EXPECT_EQ(parse(kRun, {"precision.recipe=\"f32\""}).precision.recipe, Recipe::kF32);
  EXPECT_EQ(parse(kRun, {"data.sources.1.weight=2.5"}).data.sources[1].weight, 2.5);
  EXPECT_EQ(parse(kRun, {"model.rope_scaling.type=linear", "model.rope_scaling.factor=2"})
                .model.config["rope_scaling"]["factor"],
            2);
  EXPECT_TRUE(parse(kRun, {"trainer.recompute=true"}).trainer.recompute.swiglu);
  const std::string b = (folder_ / "b.txt").string();
  EXPECT_EQ(parse(kRun, {"data.sources=[\"" + b + "\"]"}).data.sources.size(), 1U);
  EXPECT_EQ(parse(kRun, {"data.cache=here"}).data.cache, fs::current_path() / "here")
      << "a path that was typed is relative to where it was typed";

  EXPECT_THAT(refusal(kRun, {"trainer.steps=many"}),
              StartsWith("--set trainer.steps=many: trainer.steps is \"many\", expected"));
  EXPECT_THAT(refusal(kRun, {"trainer.stepz=1"}), HasSubstr("did you mean steps?"));
  for (const char* bad : {"trainer.steps", "=3", "trainer..steps=1", "trainer.steps=\"1",
                          "data.sources.2.weight=1", "trainer.steps.x=1", "trainer=1",
                          "trainer.steps=1\n[data]", "a b=1", "model.model_type=\xff"}) {
    EXPECT_NE(refusal(kRun, {bad}), "read") << bad;
  }
}

TEST_F(RunFile, PathsAreRelativeToTheFile) {
  folder_.write("home/x.txt", "x");
  folder_.write("cache/data/y.txt", "y");
  const RunConfig c = parse(with("path = \"b.txt\"", "path = \"~/x.txt\""),
                            {"data.sources.0.path=$KOGIA_CACHE/data/y.txt"});
  EXPECT_EQ(c.data.sources[0].path, folder_ / "cache/data/y.txt");
  EXPECT_EQ(c.data.sources[1].path, folder_ / "home/x.txt");
  RunFileOptions homeless = options({"data.cache=~"});
  homeless.home.clear();
  EXPECT_THROW(parse_run_file(kRun, file(), homeless), Error);
}

TEST_F(RunFile, AModelComesFromACheckpoint) {
  folder_.write("m/config.json",
                R"({"model_type": "llama", "vocab_size": 100, "hidden_size": 32, "head_dim": null,
                    "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
                    "max_position_embeddings": 256, "auto_map": {"a": [null, 1]}})");
  folder_.write("m/tokenizer.json", "{}");
  const std::string text =
      "[model]\nfrom = \"m\"\nnum_hidden_layers = 2\n[data]\nsources = [\"b.txt\"]\n"
      "sequence_length = 64\n[trainer]\nsteps = 5\n[optimizer]\nlr = 0.1\n";
  const RunConfig c = parse(text);
  EXPECT_EQ(c.model.config["hidden_size"], 32);
  EXPECT_EQ(c.model.config["num_hidden_layers"], 2) << "what the run file says goes first";
  EXPECT_FALSE(c.model.config.contains("head_dim"));
  EXPECT_EQ(c.data.tokenizer, folder_ / "m/tokenizer.json");
  EXPECT_FALSE(c.model.weights);
  EXPECT_TRUE(parse(text, {"model.weights=true"}).model.weights);
  const std::string file = (folder_ / "m/config.json").string();
  EXPECT_EQ(parse(text, {"model.from=" + file}).model.config, c.model.config);
  EXPECT_EQ(parse(text, {"model.from=" + file}).data.tokenizer, c.data.tokenizer);
  EXPECT_THAT(refusal(text, {"model.from=" + file, "model.weights=true"}), HasSubstr("no folder"));
  EXPECT_THAT(refusal(text, {"model.from=x.gguf"}), HasSubstr("kogia convert"));
  EXPECT_THAT(refusal(text, {"model.from=none.json"}), HasSubstr("not there"));

  // What was resolved once needs the checkpoint no more.
  RunFileOptions again = options();
  again.resolved = true;
  fs::remove_all(folder_ / "m");
  EXPECT_EQ(to_toml(parse_run_file(to_toml(c), "elsewhere/run.toml", again)), to_toml(c));
}

TEST_F(RunFile, WhatIsWrittenReadsBackTheSame) {
  for (const char* kind : {"constant", "cosine", "linear", "wsd", "v3"}) {
    const RunConfig c = parse(kRun, {std::string("schedule.kind=") + kind});
    const std::string text = to_toml(c);
    const RunConfig again = parse(text);
    EXPECT_EQ(to_toml(again), text) << kind;
    EXPECT_FALSE(first_difference(c, again)) << kind;
  }
  const std::string text = to_toml(parse(kRun));
  EXPECT_THAT(text, AllOf(StartsWith("[model]\n"), HasSubstr("\n[trainer]\nsteps = 200\n"),
                          HasSubstr("\nlr = 0.001\n"), HasSubstr("weight = 3.0")));
  RunConfig odd = parse(kRun);
  odd.data.sources[0].field = "a\"\\\n\x7f\u00e9";
  EXPECT_EQ(parse(to_toml(odd)).data.sources[0].field, odd.data.sources[0].field);
}

TEST_F(RunFile, TheFirstDifferenceIsNamed) {
  const RunConfig c = parse(kRun);
  const auto difference = [&](std::vector<std::string> overrides) {
    const auto found = first_difference(c, parse(kRun, std::move(overrides)));
    return found ? found->field + ": " + found->first + " and " + found->second : "none";
  };
  EXPECT_EQ(difference({}), "none");
  for (const char* harmless :
       {"trainer.threads=1", "trainer.log_every=1", "trainer.eval_every=7", "trainer.eval_rows=1",
        "trainer.checkpoint_every=3", "trainer.keep_checkpoints=9", "data.cache=/other"}) {
    EXPECT_EQ(difference({harmless}), "none") << harmless;
  }
  EXPECT_EQ(difference({"optimizer.lr=0.002"}), "optimizer.lr: 0.001 and 0.002");
  EXPECT_EQ(difference({"optimizer.lr=0.002", "model.hidden_size=32"}),
            "model.hidden_size: 64 and 32");
  EXPECT_EQ(difference({"model.q_lora_rank=8"}), "model.q_lora_rank: unset and 8");
  EXPECT_EQ(difference({"data.sources.1.weight=2"}), "data.sources.1.weight: 1.0 and 2.0");
  EXPECT_EQ(difference({"trainer.recompute=true"}),
            "trainer.recompute: [] and [\"norms\", \"swiglu\", \"up_projection\"]");
  EXPECT_EQ(difference({"schedule.kind=constant"}), "schedule.kind: \"cosine\" and \"constant\"");

  // More steps alone are the same run, but not where they stretch the schedule.
  EXPECT_EQ(difference({"trainer.steps=300"}), "schedule.decay_steps: 180 and 280");
  EXPECT_EQ(difference({"trainer.steps=300", "schedule.decay_steps=180"}), "none");
}

TEST_F(RunFile, EveryFieldIsDocumented) {
  const std::string docs = read_file(KOGIA_SOURCE_DIR "/docs/training.md");
  RunConfig any;
  std::string section;
  std::size_t at = 0;
  for (const Field& field : run_fields(any)) {
    if (field.section != section) {
      section = field.section;
      at = docs.find("### [" + section + "]");
      ASSERT_NE(at, std::string::npos) << section;
    }
    const std::size_t end = docs.find("\n#", at + 1);
    EXPECT_NE(docs.substr(at, end - at).find("| `" + field.key + "` |"), std::string::npos)
        << field.name();
  }
  for (const std::string& key : model_config_keys()) {
    EXPECT_NE(docs.find("`" + key + "`"), std::string::npos) << key;
  }
}

}  // namespace
}  // namespace kogia::test
