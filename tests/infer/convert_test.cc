// convert: there and back to the bit, the same model on both sides, and what is refused.

#include "infer/convert.h"

#include <algorithm>
#include <cstring>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/gguf.h"
#include "model/config.h"
#include "model/model_runner.h"
#include "support/cache.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "text/tokenizer_convert.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;
using test::golden_folder;
using test::TempDir;
using testing::HasSubstr;

ConvertReport convert(const fs::path& from, const fs::path& to, ConvertOptions options = {}) {
  options.n_threads = 2;
  return convert_checkpoint(*Checkpoint::open(from), to, options);
}

struct Stored {
  DType dtype;
  std::vector<Index> shape;
  std::string bytes;
  bool operator==(const Stored&) const = default;
};

std::map<std::string, Stored> tensors_of(const fs::path& path) {
  const auto checkpoint = Checkpoint::open(path);
  std::map<std::string, Stored> out;
  for (const TensorEntry& t : checkpoint->tensors()) {
    const auto* data = reinterpret_cast<const char*>(t.view.data);
    out[t.name] = {t.view.dtype, t.view.shape,
                   std::string(data, static_cast<std::size_t>(t.view.n_bytes))};
  }
  return out;
}

/// Each tensor of a is in b, to the bit.
void expect_held(const fs::path& a, const fs::path& b) {
  const auto left = tensors_of(a), right = tensors_of(b);
  for (const auto& [key, tensor] : left) {
    const auto at = right.find(key);
    ASSERT_NE(at, right.end()) << key << " was lost";
    EXPECT_EQ(name(tensor.dtype), name(at->second.dtype)) << key;
    EXPECT_TRUE(tensor == at->second) << key << " has other bits";
  }
}
void expect_same_tensors(const fs::path& a, const fs::path& b) {
  expect_held(a, b);
  EXPECT_EQ(tensors_of(a).size(), tensors_of(b).size());
}

const char* const kFolders[] = {"v2_lite",     "v2_group",   "v2_norm",      "v3",        "v3_tf5",
                                "v3_ties",     "v3_fp8",     "v3_fp8_ue8m0", "qwen2",     "qwen3",
                                "v3_fp8_e8m0", "qwen2_tied", "llama",        "llama_tied"};

bool is_fp8(const std::string& name) { return name.find("fp8") != std::string::npos; }

TEST(Convert, ThereAndBackGivesTheBitsOfTheFolder) {
  for (const std::string name : kFolders) {
    SCOPED_TRACE(name);
    const TempDir dir;
    fs::path original = golden_folder(name);
    // FP8 comes back as the bf16 that it stands for, and so does the router that transformers 5
    // widened.
    if (is_fp8(name) || name == "v3_tf5") {
      convert(original, dir / "bf16", {.type = DType::bf16});
      original = dir / "bf16";
    }
    convert(golden_folder(name), dir / "there.gguf", {.mtp = true});
    convert(dir / "there.gguf", dir / "back");
    expect_same_tensors(original, dir / "back");
  }
}

TEST(Convert, ThereAndBackInF32GivesTheBitsOfTheF32Folder) {
  for (const std::string name : kFolders) {
    SCOPED_TRACE(name);
    const TempDir dir;
    convert(golden_folder(name), dir / "f32", {.type = DType::f32});
    convert(golden_folder(name), dir / "there.gguf", {.type = DType::f32, .mtp = true});
    convert(dir / "there.gguf", dir / "back", {.max_shard_bytes = 40000});  // in shards
    expect_same_tensors(dir / "f32", dir / "back");
  }
}

/// Log-probabilities in f32, as the golden data has them.
std::vector<double> logprobs(const fs::path& path, std::span<const std::int32_t> ids) {
  test::ModelRunner runner(path, {});
  test::Timeline timeline;
  const auto result = runner.step(timeline, ids);
  std::vector<double> out;
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = test::log_softmax(result.row(static_cast<Index>(i)));
    out.push_back(row[static_cast<std::size_t>(ids[i + 1])]);
  }
  return out;
}

TEST(Convert, BothContainersComputeWhatTheOracleSays) {
  for (const std::string name : kFolders) {
    SCOPED_TRACE(name);
    const TempDir dir;
    convert(golden_folder(name), dir / "there.gguf", {.type = DType::f32});
    convert(dir / "there.gguf", dir / "back");
    const test::Expected expected = test::read_expected(name);
    // FP8 that became f32 is exact: the product with its scale fits.
    for (const fs::path& path : {dir / "there.gguf", dir / "back"}) {
      const std::vector<double> found = logprobs(path, expected.ids);
      ASSERT_EQ(found.size(), expected.logprobs.size());
      for (std::size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(found[i], expected.logprobs[i], 1e-4) << path << " token " << i;
      }
    }
  }
}

TEST(Convert, OlderGgufGenerationsBecomeTheNewestOne) {
  for (const char* file : {"v2_lite/kv_b.gguf", "v2_lite/old.gguf", "v3/kv_b.gguf"}) {
    SCOPED_TRACE(file);
    const TempDir dir;
    convert(golden_folder(file), dir / "new.gguf", {.mtp = true});
    const auto now = Checkpoint::open(dir / "new.gguf");
    EXPECT_NE(now->find("blk.0.attn_k_b.weight"), nullptr);
    EXPECT_EQ(now->find("blk.0.attn_kv_b.weight"), nullptr);
    EXPECT_TRUE(now->gguf()->metadata().has("deepseek2.attention.key_length_mla"));
    convert(dir / "new.gguf", dir / "back");
    const std::string folder = fs::path(file).parent_path().string();
    expect_held(dir / "back", golden_folder(folder));  // a file may lack prediction layers
  }
}

TEST(Convert, QuantisedBlocksAreDecodedIntoAFolder) {
  for (const std::string name : {"v2_quantised/kv_b", "v3_quantised/new", "qwen2_quantised/new",
                                 "qwen3_quantised/new", "llama_quantised/new"}) {
    SCOPED_TRACE(name);
    const TempDir dir;
    convert(golden_folder(name + ".gguf"), dir / "f32", {.type = DType::f32});
    const test::Expected expected = test::read_expected(name.substr(0, name.find('/')));
    const std::vector<double> found = logprobs(dir / "f32", expected.ids);
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i], expected.logprobs[i], 1e-4) << "token " << i;
    }
  }
}

TEST(Convert, ConfigurationSurvivesBothWays) {
  for (const std::string name : kFolders) {
    SCOPED_TRACE(name);
    const TempDir dir;
    convert(golden_folder(name), dir / "there.gguf", {.mtp = true});
    convert(dir / "there.gguf", dir / "back");
    const auto a = ModelConfig::from_checkpoint(*Checkpoint::open(golden_folder(name)));
    const auto b = ModelConfig::from_checkpoint(*Checkpoint::open(dir / "back"));
    EXPECT_EQ(a.family, b.family);
    EXPECT_EQ(a.rope.kind, b.rope.kind);
    EXPECT_EQ(a.rope.layout, b.rope.layout);
    EXPECT_EQ(a.rope.original_max_position_embeddings, b.rope.original_max_position_embeddings);
    EXPECT_DOUBLE_EQ(a.rope.factor, b.rope.factor);
    EXPECT_DOUBLE_EQ(a.rope.mscale_all_dim, b.rope.mscale_all_dim);
    EXPECT_DOUBLE_EQ(a.rms_norm_eps, b.rms_norm_eps);
    // V2 normalises instead of scaling, and a GGUF says so.
    EXPECT_DOUBLE_EQ(b.routed_scaling_factor, name == "v2_norm" ? 1 : a.routed_scaling_factor);
    EXPECT_EQ(a.topk_group, b.topk_group);
    EXPECT_EQ(a.moe_intermediate_size, b.moe_intermediate_size);
    EXPECT_EQ(a.tie_word_embeddings, b.tie_word_embeddings);
    EXPECT_EQ(a.max_position_embeddings, b.max_position_embeddings);
    EXPECT_FALSE(b.fp8);
  }
}

TEST(Convert, PredictionLayersStayOutOfAGgufUnlessAskedFor) {
  const TempDir dir;
  const ConvertReport report = convert(golden_folder("v3"), dir / "plain.gguf");
  EXPECT_TRUE(report.left_out_mtp);
  const auto plain = Checkpoint::open(dir / "plain.gguf");
  EXPECT_EQ(plain->find("blk.2.nextn.eh_proj.weight"), nullptr);
  EXPECT_EQ(plain->gguf()->metadata().get_int("deepseek2.block_count"), 2);
  convert(golden_folder("v3"), dir / "mtp.gguf", {.mtp = true});
  const auto mtp = Checkpoint::open(dir / "mtp.gguf");
  EXPECT_NE(mtp->find("blk.2.nextn.eh_proj.weight"), nullptr);
  EXPECT_EQ(mtp->gguf()->metadata().get_int("deepseek2.block_count"), 3);
}

TEST(Convert, EachFileIsTheSameForAnyNumberOfThreads) {
  const TempDir dir;
  const auto source = Checkpoint::open(golden_folder("v3_fp8"));
  convert_checkpoint(*source, dir / "1.gguf", {.type = DType::q8_0, .n_threads = 1});
  convert_checkpoint(*source, dir / "4.gguf", {.type = DType::q8_0, .n_threads = 4});
  EXPECT_EQ(test::read_file(dir / "1.gguf"), test::read_file(dir / "4.gguf"));
}

/// The Error that f throws.
template <class F>
Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was refused";
  return {ErrorCode::kInvalid, ""};
}

TEST(Convert, PlacesThatWouldLoseSomethingAreRefused) {
  const TempDir dir;
  dir.write("full/notes.txt", "mine");
  dir.write("there.gguf", "mine");
  for (const char* place : {"full", "there.gguf"}) {
    const Error e = error_of([&] { convert(golden_folder("qwen3"), dir / place); });
    EXPECT_EQ(e.code(), ErrorCode::kUsage) << place;
    EXPECT_THAT(e.what(), HasSubstr("is there already")) << place;
  }
  convert(golden_folder("qwen3"), dir / "model");
  const Error same = error_of([&] { convert(dir / "model", dir / "model/."); });
  EXPECT_EQ(same.code(), ErrorCode::kUsage);
  EXPECT_THAT(same.what(), HasSubstr("DST is SRC"));
  EXPECT_EQ(test::read_file(dir / "there.gguf"), "mine");
}

TEST(Convert, WhatTheTargetCannotHoldIsRefusedByName) {
  const TempDir dir;
  const Error blocks =
      error_of([&] { convert(golden_folder("qwen3"), dir / "x", {.type = DType::q8_0}); });
  EXPECT_EQ(blocks.code(), ErrorCode::kUsage);
  EXPECT_THAT(blocks.what(), HasSubstr("q8_0"));

  const auto with = [&](const char* key, const nlohmann::json& value) {
    auto config = nlohmann::json::parse(test::read_file(golden_folder("v2_lite") / "config.json"));
    config["rope_scaling"][key] = value;
    const fs::path folder = dir.write("odd/config.json", config.dump()).parent_path();
    fs::copy_file(golden_folder("v2_lite") / "model.safetensors", folder / "model.safetensors",
                  fs::copy_options::overwrite_existing);
    return error_of([&] { convert(folder, dir / "odd.gguf"); });
  };
  EXPECT_THAT(with("mscale", 2.0).what(), HasSubstr("mscale"));
  EXPECT_THAT(with("truncate", false).what(), HasSubstr("truncate"));
  EXPECT_FALSE(fs::exists(dir / "odd.gguf"));
}

TEST(Convert, TensorsThatTheConfigurationDoesNotKnowAreNotLostInSilence) {
  const TempDir dir;
  auto config = nlohmann::json::parse(test::read_file(golden_folder("qwen3") / "config.json"));
  config["num_hidden_layers"] = 1;
  const fs::path folder = dir.write("short/config.json", config.dump()).parent_path();
  fs::copy_file(golden_folder("qwen3") / "model.safetensors", folder / "model.safetensors");
  const Error e = error_of([&] { convert(folder, dir / "out.gguf"); });
  EXPECT_THAT(e.what(), HasSubstr("model.layers.1."));
  EXPECT_TRUE(fs::is_empty(dir / "short") || !fs::exists(dir / "out.gguf"));
}

// -- tokenizers --------------------------------------------------------------------------------

const char* const kTexts[] = {"What is 60481 + 7293?\n\n  x != y , 'ok' .\r\n\ttabs",
                              "naïve café Ωmega कि नमस्ते 你好，世界 3333+777 ²³½ ١٢٣",
                              "<|im_start|>user\nhi<|im_end|> <｜User｜>q<｜Assistant｜>",
                              "<|eot_id|>I'LL they're  \n \n1  1",
                              "def f(x):\n    return x**2  # ⁇ \xF0\x9F\xA6\x96"};

TEST(TokenizerConversion, PublishedTokenizersGiveTheSameIdsAfterBothWays) {
  for (const auto& [name, pre, rows] :
       {std::tuple("deepseek_v3", "deepseek-v3", 129280), std::tuple("llama3", "llama-bpe", 128256),
        std::tuple("qwen3", "qwen2", 151936)}) {
    SCOPED_TRACE(name);
    const fs::path folder = test::cache_folder() / "tokenizers" / name;
    const std::string json = test::read_file(folder / "tokenizer.json"),
                      config = test::read_file(folder / "tokenizer_config.json");
    const GgufVocab vocab = gguf_vocab_of_json(json, config, static_cast<std::size_t>(rows));
    EXPECT_EQ(vocab.pre, pre);
    EXPECT_EQ(vocab.tokens.size(), static_cast<std::size_t>(rows));
    const auto original = Tokenizer::from_json(json, config);
    const auto gguf = Tokenizer::from_gguf(vocab);
    const auto back =
        Tokenizer::from_json(tokenizer_json_of(vocab), tokenizer_config_of(vocab, "{{ x }}"));
    for (const char* text : kTexts) {
      for (const bool special : {false, true}) {
        const EncodeOptions options{.add_special = special};
        const auto expected = original->encode(text, options);
        EXPECT_EQ(gguf->encode(text, options), expected) << text;
        EXPECT_EQ(back->encode(text, options), expected) << text;
      }
    }
    EXPECT_EQ(back->bos(), original->bos());
    EXPECT_EQ(back->eos(), original->eos());
  }
}

TEST(TokenizerConversion, AnUnknownPretokenizerIsRefusedNotGuessed) {
  const fs::path folder = test::cache_folder() / "tokenizers/qwen3";
  auto json = nlohmann::json::parse(test::read_file(folder / "tokenizer.json"));
  json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = R"(\p{L}+|\p{N}{1,2})";
  const Error e = error_of([&] { gguf_vocab_of_json(json.dump(), "", 151936); });
  EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(e.what(), HasSubstr("pre_tokenizer"));
}

TEST(TokenizerConversion, MoreTokensThanRowsAreRefused) {
  const fs::path folder = test::cache_folder() / "tokenizers/qwen3";
  const std::string json = test::read_file(folder / "tokenizer.json");
  const Error e = error_of([&] { gguf_vocab_of_json(json, "", 1000); });
  EXPECT_THAT(e.what(), HasSubstr("beyond the 1000 rows"));
}

}  // namespace
}  // namespace kogia
