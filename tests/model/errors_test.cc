// Checkpoints that lie: each is refused with a sentence that names the tensor or the field.

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/model_runner.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

using Json = nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;

/// A safetensors file taken apart, to be changed and written again.
struct Safetensors {
  Json header;
  std::string data;

  static Safetensors read(const std::filesystem::path& path) {
    const std::string bytes = read_file(path);
    std::uint64_t n = 0;
    std::memcpy(&n, bytes.data(), sizeof n);
    return {Json::parse(bytes.substr(8, n)), bytes.substr(8 + n)};
  }
  std::string bytes() const {
    const std::string text = header.dump();
    const std::uint64_t n = text.size();
    std::string out(8, '\0');
    std::memcpy(out.data(), &n, sizeof n);
    return out + text + data;
  }
  /// Takes a tensor out, and its bytes too: the buffer must stay without holes.
  void remove(const std::string& name) {
    const std::size_t begin = header.at(name).at("data_offsets").at(0);
    const std::size_t end = header.at(name).at("data_offsets").at(1);
    data.erase(begin, end - begin);
    header.erase(name);
    for (auto& [other, entry] : header.items()) {
      if (other == "__metadata__") continue;
      for (auto& offset : entry.at("data_offsets")) {
        if (offset.get<std::size_t>() >= end) offset = offset.get<std::size_t>() - (end - begin);
      }
    }
  }
  void add(const std::string& name, const std::string& dtype, std::vector<Index> shape,
           const std::string& bytes) {
    header[name] = {{"dtype", dtype},
                    {"shape", std::move(shape)},
                    {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += bytes;
  }
};

class Errors : public testing::Test {
 protected:
  /// A copy of a golden checkpoint with its parts changed.
  std::filesystem::path changed(
      const std::string& name, const std::function<void(Json& config, Safetensors& file)>& change) {
    Json config = Json::parse(read_file(golden_folder(name) / "config.json"));
    Safetensors file = Safetensors::read(golden_folder(name) / "model.safetensors");
    change(config, file);
    const std::string folder = "copy" + std::to_string(n_copies_++);
    folder_.write(folder + "/config.json", config.dump());
    return folder_.write(folder + "/model.safetensors", file.bytes()).parent_path();
  }
  std::filesystem::path with_config(const std::string& name, const std::string& key, Json value) {
    return changed(name, [&](Json& config, Safetensors&) { config[key] = std::move(value); });
  }
  std::filesystem::path with_tensors(const std::string& name,
                                     const std::function<void(Safetensors&)>& change) {
    return changed(name, [&](Json&, Safetensors& file) { change(file); });
  }

  /// What loading says; "" where it loads.
  static std::string message(const std::filesystem::path& path) {
    try {
      const ModelRunner runner(path, {});
      return "";
    } catch (const Error& error) {
      return std::string(error.what()) + "\n" + error.help();
    }
  }

  TempDir folder_;
  int n_copies_ = 0;
};

const std::string kUp = "model.layers.1.mlp.up_proj.weight";

TEST_F(Errors, AnUnchangedCopyLoads) {
  EXPECT_EQ(message(with_tensors("qwen2", [](Safetensors&) {})), "");
}

TEST_F(Errors, AMissingTensorIsNamed) {
  EXPECT_THAT(message(with_tensors("qwen2", [](Safetensors& f) { f.remove(kUp); })),
              HasSubstr(kUp));
  const std::string bias = "model.layers.0.self_attn.k_proj.bias";
  EXPECT_THAT(message(with_tensors("qwen2", [&](Safetensors& f) { f.remove(bias); })),
              HasSubstr(bias));
  const std::string correction = "model.layers.1.mlp.gate.e_score_correction_bias";
  EXPECT_THAT(message(with_tensors("v3", [&](Safetensors& f) { f.remove(correction); })),
              HasSubstr(correction));
}

TEST_F(Errors, AnExtraTensorIsNamed) {
  const std::string name = "model.layers.0.self_attn.sinks";
  EXPECT_THAT(message(with_tensors(
                  "llama", [&](Safetensors& f) { f.add(name, "F32", {2}, std::string(8, '\0')); })),
              HasSubstr(name));
}

TEST_F(Errors, AMisShapedTensorIsNamedWithBothShapes) {
  EXPECT_THAT(
      message(with_tensors("qwen2", [](Safetensors& f) { f.header[kUp]["shape"] = {48, 80}; })),
      AllOf(HasSubstr(kUp), HasSubstr("48, 80"), HasSubstr("80, 48")));
}

TEST_F(Errors, IntegersAsWeightsAreRefused) {
  EXPECT_THAT(
      message(with_tensors("qwen2", [](Safetensors& f) { f.header[kUp]["dtype"] = "I16"; })),
      AllOf(HasSubstr(kUp), HasSubstr("i16")));
}

TEST_F(Errors, ATruncatedFileIsNamed) {
  for (const std::size_t cut : {1U, 1000U, 50000U}) {
    const auto path =
        with_tensors("qwen2", [&](Safetensors& f) { f.data.resize(f.data.size() - cut); });
    EXPECT_THAT(message(path), HasSubstr("model.safetensors")) << cut;
  }
}

TEST_F(Errors, AMissingShardIsNamed) {
  const std::string second = "model-00002-of-00002.safetensors";
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder("v3_fp8_e8m0"))) {
    const std::string name = entry.path().filename();
    if (name != second) folder_.write("shards/" + name, read_file(entry.path()));
  }
  EXPECT_THAT(message(folder_ / "shards"), HasSubstr(second));
}

// F05 (b): [1, 2] scales for 160 rows, which need ceil(160 / 128) = 2 rows of them.
TEST_F(Errors, Fp8ScalesOfTheWrongShapeAreNamed) {
  const std::string name = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv";
  const auto path = with_tensors("v3_fp8", [&](Safetensors& f) {
    f.remove(name);
    f.add(name, "F32", {1, 2}, std::string(8, '\0'));
  });
  EXPECT_THAT(message(path), AllOf(HasSubstr(name), HasSubstr("1, 2"), HasSubstr("2, 2")));
}

// F05 (c)
TEST_F(Errors, AnFp8WeightWithoutScalesIsNamed) {
  const std::string name = "model.layers.0.mlp.experts.2.down_proj.weight_scale_inv";
  EXPECT_THAT(message(with_tensors("v3_fp8", [&](Safetensors& f) { f.remove(name); })),
              HasSubstr(name));
}

// F05 (d): the file's dtype wins over what the config says.
TEST_F(Errors, ABf16CopyWhoseConfigStillSaysFp8Runs) {
  const auto path = with_config("v3", "quantization_config",
                                {{"activation_scheme", "dynamic"},
                                 {"fmt", "e4m3"},
                                 {"quant_method", "fp8"},
                                 {"weight_block_size", {128, 128}}});
  const Expected expected = read_expected("v3");
  ModelRunner a(golden_folder("v3"), {}), b(path, {});
  Timeline timeline_a, timeline_b;
  EXPECT_EQ(a.step(timeline_a, expected.ids).logits, b.step(timeline_b, expected.ids).logits);
}

// N05: rotary values come in pairs.
TEST_F(Errors, AnOddRotaryWidthIsRefused) {
  EXPECT_THAT(message(with_config("v2_lite", "qk_rope_head_dim", 7)),
              HasSubstr("qk_rope_head_dim"));
  EXPECT_THAT(message(with_config("llama", "head_dim", 15)), HasSubstr("head_dim"));
}

TEST_F(Errors, NumbersOfTheConfigThatMakeNoSenseAreNamed) {
  struct Lie {
    const char *name, *field;
    Json value;
  };
  const Index huge = Index{1} << 40;
  const std::vector<Lie> lies = {
      {"qwen2", "hidden_size", 0},
      {"qwen2", "hidden_size", -48},
      {"qwen2", "hidden_size", huge},
      {"qwen2", "vocab_size", 0},
      {"qwen2", "num_hidden_layers", huge},
      {"qwen2", "num_key_value_heads", 4},
      {"qwen2", "num_key_value_heads", 0},
      {"qwen2", "num_attention_heads", 0},
      {"qwen2", "rms_norm_eps", 0.0},
      {"qwen2", "rope_theta", -1.0},
      {"qwen2", "hidden_act", "gelu"},
      {"qwen2", "model_type", "mamba"},
      {"v3", "num_experts_per_tok", 17},
      {"v3", "n_group", 3},
      {"v3", "topk_group", 5},
      {"v3", "num_experts_per_tok", 0},
      {"v3", "kv_lora_rank", huge},
      {"v3", "v_head_dim", 0},
      {"v3", "moe_layer_freq", 0},
      {"v3", "scoring_func", "tanh"},
      {"v3", "topk_method", "random"},
      {"v3", "num_nextn_predict_layers", -1},
  };
  for (const Lie& lie : lies) {
    SCOPED_TRACE(std::string(lie.name) + ": " + lie.field + " = " + lie.value.dump());
    EXPECT_THAT(message(with_config(lie.name, lie.field, lie.value)), HasSubstr(lie.field));
  }
}

TEST_F(Errors, FieldsOfTheWrongTypeAreNamed) {
  for (const Json& value : {Json("48"), Json(4.5), Json::array({48}), Json::object(), Json(true)}) {
    SCOPED_TRACE(value.dump());
    EXPECT_THAT(message(with_config("qwen2", "hidden_size", value)), HasSubstr("hidden_size"));
  }
}

// One width too many or too few is seen at the first tensor that does not fit.
TEST_F(Errors, AConfigOfAnotherModelIsSeenAtItsTensors) {
  EXPECT_THAT(message(with_config("qwen2", "vocab_size", 102)),
              HasSubstr("model.embed_tokens.weight"));
  EXPECT_THAT(message(with_config("qwen2", "num_hidden_layers", 1)), HasSubstr("model.layers.1."));
  EXPECT_THAT(message(with_config("qwen2", "num_hidden_layers", 3)), HasSubstr("model.layers.2."));
  EXPECT_THAT(message(with_config("v3", "n_routed_experts", 8)), HasSubstr("model.layers.1.mlp."));
  EXPECT_THAT(message(with_config("v3", "kv_lora_rank", 30)), HasSubstr("kv_"));
}

TEST_F(Errors, GgufFilesNameWhatIsMissingAndWhatIsTooMuch) {
  std::string bytes = read_file(golden_folder("qwen3") / "new.gguf");
  const std::string name = "blk.1.attn_q_norm.weight";
  const std::size_t at = bytes.find(name);
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, name.size(), "blk.1.attn_q_morn.weight");
  EXPECT_THAT(message(folder_.write("renamed.gguf", bytes)), HasSubstr(name));
}

TEST_F(Errors, ATruncatedGgufIsNamed) {
  const std::string bytes = read_file(golden_folder("qwen3") / "new.gguf");
  for (const std::size_t cut : {1U, 40000U}) {
    const auto path =
        folder_.write("cut.gguf", std::string_view(bytes).substr(0, bytes.size() - cut));
    EXPECT_THAT(message(path), HasSubstr("cut.gguf")) << cut;
  }
}

}  // namespace
}  // namespace kogia::test
