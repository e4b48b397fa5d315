// A checkpoint again with smaller weights: what is kept, what is refused, and that threads do not
// count.

#include "infer/quantize.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/random.h"
#include "formats/file_builders.h"
#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "infer/convert.h"
#include "model/rewrite.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "tensor/convert.h"

namespace kogia::test {
namespace {

std::vector<float> normals(std::uint64_t seed, Index n) {
  const Philox random(seed);
  std::vector<float> out;
  for (Index i = 0; i < n; ++i) out.push_back(random.normal(static_cast<std::uint64_t>(i)) / 16);
  return out;
}

void append(TensorWriter& out, DType dtype, const std::vector<float>& x) {
  std::vector<std::byte> bytes(
      static_cast<std::size_t>(row_bytes(dtype, static_cast<Index>(x.size()))));
  quantize_row(dtype, x.data(), bytes.data(), static_cast<Index>(x.size()));
  out.append(bytes);
}

struct Tensor {
  std::string name;
  std::vector<Index> shape;
  DType dtype;
  std::vector<float> values;
};

std::vector<Tensor> small_model() {
  std::vector<Tensor> out = {
      {"token_embd.weight", {40, 512}, DType::bf16, normals(1, 40 * 512)},
      {"output_norm.weight", {512}, DType::f32, normals(2, 512)},
      {"output.weight", {40, 512}, DType::f16, normals(3, 40 * 512)},
      {"blk.0.attn_v.weight", {24, 512}, DType::f32, normals(4, 24 * 512)},
      {"blk.0.ffn_up_exps.weight", {2, 16, 512}, DType::bf16, normals(5, 2 * 16 * 512)},
      {"blk.0.attn_q.weight", {70, 96}, DType::f32, normals(6, 70 * 96)},
      {"blk.0.ffn_gate_inp.weight", {4, 512}, DType::f32, normals(7, 4 * 512)},
  };
  return out;
}

std::filesystem::path write_gguf(const TempDir& dir, const std::vector<Tensor>& tensors) {
  GgufWriter out(dir / "source.gguf");
  out.set("general.architecture", "llama");
  out.set("general.file_type", std::uint32_t{32});
  out.set("llama.block_count", std::uint32_t{1});
  out.set("tokenizer.ggml.scores", std::vector<float>{1, 2.5F});
  out.set("split.count", std::uint32_t{1});
  for (const Tensor& t : tensors) out.declare(t.name, t.dtype, t.shape);
  out.begin();
  for (const Tensor& t : tensors) append(out, t.dtype, t.values);
  out.commit();
  return dir / "source.gguf";
}

QuantizeReport quantize(const std::filesystem::path& source, const std::filesystem::path& target,
                        Quantization type, int n_threads = 1,
                        const ImportanceMatrix* importance = nullptr) {
  return quantize_checkpoint(*Checkpoint::open(source), target,
                             {.target = type, .importance = importance, .n_threads = n_threads});
}

std::vector<float> decoded(const TargetTensor& t) {
  std::vector<float> out(static_cast<std::size_t>(t.rows() * t.cols()));
  read_rows(t, 0, t.rows(), out.data());
  return out;
}
std::vector<float> decoded(const Checkpoint& gguf, const std::string& name) {
  for (const TargetTensor& t : plan_same(gguf)) {
    if (t.name == name) return decoded(t);
  }
  ADD_FAILURE() << "no " << name;
  return {};
}

double relative_error(const std::vector<float>& x, const std::vector<float>& y) {
  double error = 0, all = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
    all += std::pow(static_cast<double>(x[i]), 2);
  }
  return std::sqrt(error / all);
}

TEST(QuantizeGguf, EachTensorIsNearItsSourceInTheTypeOfTheMixture) {
  const TempDir dir;
  const auto source = write_gguf(dir, small_model());
  const QuantizeReport report = quantize(source, dir / "q.gguf", Quantization::kQ4_K_M);
  const auto q = Checkpoint::open(dir / "q.gguf");
  const auto type = [&](const char* name) { return q->require(name).view.dtype; };
  EXPECT_EQ(type("token_embd.weight"), DType::q4_k);
  EXPECT_EQ(type("output.weight"), DType::q6_k);
  EXPECT_EQ(type("blk.0.attn_v.weight"), DType::q6_k);
  EXPECT_EQ(type("blk.0.ffn_up_exps.weight"), DType::q4_k);
  EXPECT_EQ(type("blk.0.attn_q.weight"), DType::q5_0);
  EXPECT_EQ(type("blk.0.ffn_gate_inp.weight"), DType::f32);
  EXPECT_EQ(report.fallbacks.size(), 1u);
  EXPECT_LT(report.bytes_after, report.bytes_before);
  ASSERT_EQ(q->tensors().size(), small_model().size());
  const auto original = Checkpoint::open(source);
  for (std::size_t i = 0; i < q->tensors().size(); ++i) {
    const TensorEntry &a = original->tensors()[i], &b = q->tensors()[i];
    EXPECT_EQ(a.name, b.name) << "the order changed";
    EXPECT_EQ(a.view.shape, b.view.shape);
    const double error = relative_error(decoded(*original, a.name), decoded(*q, b.name));
    const DType t = b.view.dtype;
    EXPECT_LE(error, t == DType::q4_k   ? 0.08
                     : t == DType::q5_0 ? 0.05
                     : t == DType::q6_k ? 0.02
                                        : 0)
        << a.name;
  }
}

TEST(QuantizeGguf, MetadataAreKeptAndTheFileTypeIsNew) {
  const TempDir dir;
  quantize(write_gguf(dir, small_model()), dir / "q.gguf", Quantization::kQ6_K);
  const auto q = Checkpoint::open(dir / "q.gguf");
  const GgufMetadata& m = q->gguf()->metadata();
  EXPECT_EQ(m.get_int("general.file_type"), 18);
  EXPECT_EQ(m.get_int("general.quantization_version"), 2);
  EXPECT_EQ(m.get_int("llama.block_count"), 1);
  EXPECT_EQ(*m.get_floats("tokenizer.ggml.scores"), (std::vector<double>{1, 2.5}));
  EXPECT_FALSE(m.has("split.count"));
}

TEST(QuantizeGguf, TheBytesDoNotDependOnThreads) {
  const TempDir dir;
  const auto source = write_gguf(dir, small_model());
  for (const auto type : {Quantization::kQ4_K_M, Quantization::kQ4_0}) {
    quantize(source, dir / "one.gguf", type, 1);
    const std::string one = read_file(dir / "one.gguf");
    for (const int n : {2, 3, 5}) {
      quantize(source, dir / "many.gguf", type, n);
      EXPECT_TRUE(read_file(dir / "many.gguf") == one) << n;
    }
  }
}

TEST(QuantizeGguf, WhatHasTheTypeAlreadyIsCopied) {
  const TempDir dir;
  quantize(write_gguf(dir, small_model()), dir / "q.gguf", Quantization::kQ4_K_M);
  const QuantizeReport again = quantize(dir / "q.gguf", dir / "again.gguf", Quantization::kQ4_K_M);
  EXPECT_EQ(again.n_requantized, 0);
  EXPECT_TRUE(read_file(dir / "q.gguf") == read_file(dir / "again.gguf"));
  EXPECT_GT(quantize(dir / "q.gguf", dir / "again.gguf", Quantization::kQ8_0).n_requantized, 0);
}

TEST(QuantizeGguf, AWeightThatIsNoNumberIsNamedAndNothingIsWritten) {
  for (const float bad : {NAN, INFINITY, -INFINITY, 1e6F}) {
    const TempDir dir;
    auto model = small_model();
    model[3].values[5 * 512 + 7] = bad;
    const auto source = write_gguf(dir, model);
    try {
      quantize(source, dir / "q.gguf", Quantization::kQ8_0, 2);
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("blk.0.attn_v.weight: the weight at row 5, column 7"),
                std::string::npos)
          << e.what();
    }
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1) << "litter";
  }
}

std::string imatrix_entry(const std::string& name, Index n, float high) {
  std::string out = bytes_of(static_cast<std::int32_t>(name.size())) + name +
                    bytes_of(std::int32_t{1}) + bytes_of(static_cast<std::int32_t>(n));
  for (Index i = 0; i < n; ++i) out += bytes_of(i % 8 == 0 ? high : 1.0F);
  return out;
}

TEST(QuantizeGguf, TheImportanceMatrixChangesWhatItKnowsAndTheRestIsNamed) {
  const TempDir dir;
  const auto source = write_gguf(dir, small_model());
  const auto file =
      dir.write("imatrix.dat", bytes_of(std::int32_t{2}) +
                                   imatrix_entry("blk.0.ffn_up_exps.weight", 1024, 100) +
                                   imatrix_entry("blk.0.attn_q.weight", 96, 100));
  const ImportanceMatrix importance = ImportanceMatrix::open(file);
  quantize(source, dir / "without.gguf", Quantization::kQ4_K_M);
  const QuantizeReport report =
      quantize(source, dir / "with.gguf", Quantization::kQ4_K_M, 2, &importance);
  EXPECT_EQ(
      report.without_importance,
      (std::vector<std::string>{"token_embd.weight", "output.weight", "blk.0.attn_v.weight"}));
  const auto original = Checkpoint::open(source), with = Checkpoint::open(dir / "with.gguf"),
             without = Checkpoint::open(dir / "without.gguf");
  const auto error_of_important = [&](const Checkpoint& c, const char* name) {
    std::vector<float> x, y;
    const auto a = decoded(*original, name), b = decoded(c, name);
    for (std::size_t i = 0; i < a.size(); i += 8) x.push_back(a[i]), y.push_back(b[i]);
    return relative_error(x, y);
  };
  for (const char* name : {"blk.0.ffn_up_exps.weight", "blk.0.attn_q.weight"}) {
    EXPECT_LT(error_of_important(*with, name), 0.9 * error_of_important(*without, name)) << name;
  }
  EXPECT_EQ(decoded(*with, "output.weight"), decoded(*without, "output.weight"));
  const ImportanceMatrix other = ImportanceMatrix::open(
      dir.write("other.dat", bytes_of(std::int32_t{1}) + imatrix_entry("x", 4, 1)));
  EXPECT_THROW(quantize(source, dir / "x.gguf", Quantization::kQ4_0, 1, &other), Error);
  const ImportanceMatrix wrong = ImportanceMatrix::open(dir.write(
      "wrong.dat", bytes_of(std::int32_t{1}) + imatrix_entry("blk.0.attn_q.weight", 95, 1)));
  EXPECT_THROW(quantize(source, dir / "x.gguf", Quantization::kQ4_0, 1, &wrong), Error);
  EXPECT_FALSE(std::filesystem::exists(dir / "x.gguf"));
}

// -- from and to folders -------------------------------------------------------------------------

namespace fs = std::filesystem;

std::map<std::string, std::string> bytes_of_tensors(const fs::path& path) {
  const auto checkpoint = Checkpoint::open(path);
  std::map<std::string, std::string> out;
  for (const TensorEntry& t : checkpoint->tensors()) {
    out[t.name] = std::string(name(t.view.dtype)) + " " +
                  std::string(reinterpret_cast<const char*>(t.view.data),
                              static_cast<std::size_t>(t.view.n_bytes));
  }
  return out;
}

std::map<std::string, std::string> keys_of(const Checkpoint& gguf) {
  std::map<std::string, std::string> out;
  for (const GgufStoredKey& key : gguf.gguf()->stored_keys()) {
    out[key.name] = std::string(reinterpret_cast<const char*>(key.value.data()), key.value.size());
  }
  return out;
}

void convert(const fs::path& from, const fs::path& to, const ConvertOptions& options = {}) {
  convert_checkpoint(*Checkpoint::open(from), to, options);
}

// Rows of 256 and more, so that the K types fit, beside rows that they do not.
TEST(QuantizeFolder, GivesTheTensorsAndKeysOfTheGgufOnTheWay) {
  for (const std::string name : {"v2_quantised/kv_b", "v3_quantised/new", "qwen2_quantised/new",
                                 "qwen3_quantised/new", "llama_quantised/new"}) {
    const TempDir dir;
    convert(golden_folder(name + ".gguf"), dir / "folder", {.type = DType::f32});
    convert(dir / "folder", dir / "way.gguf");
    for (const auto type : {Quantization::kQ8_0, Quantization::kQ4_0, Quantization::kQ4_K_M,
                            Quantization::kQ4_K_S, Quantization::kQ6_K}) {
      SCOPED_TRACE(name + " " + std::to_string(static_cast<int>(type)));
      const auto a = quantize(dir / "way.gguf", dir / "a.gguf", type, 2);
      const auto b = quantize(dir / "folder", dir / "b.gguf", type, 1);
      EXPECT_EQ(a.tensors, b.tensors);
      EXPECT_EQ(a.fallbacks, b.fallbacks);
      EXPECT_TRUE(bytes_of_tensors(dir / "a.gguf") == bytes_of_tensors(dir / "b.gguf"));
      const auto left = Checkpoint::open(dir / "a.gguf"), right = Checkpoint::open(dir / "b.gguf");
      EXPECT_EQ(keys_of(*left), keys_of(*right));
    }
  }
}

TEST(QuantizeFolder, Fp8IsASourceToo) {
  const TempDir dir;
  convert(golden_folder("v3_fp8"), dir / "f32", {.type = DType::f32});
  quantize(golden_folder("v3_fp8"), dir / "a.gguf", Quantization::kQ8_0);
  quantize(dir / "f32", dir / "b.gguf", Quantization::kQ8_0);
  auto a = bytes_of_tensors(dir / "a.gguf"), b = bytes_of_tensors(dir / "b.gguf");
  EXPECT_TRUE(a == b);
}

TEST(QuantizeFolder, PredictionLayersStayOutOfAGgufUnlessAskedFor) {
  const TempDir dir;
  const auto source = Checkpoint::open(golden_folder("v3"));
  EXPECT_TRUE(quantize_checkpoint(*source, dir / "a.gguf", {}).left_out_mtp);
  EXPECT_FALSE(quantize_checkpoint(*source, dir / "b.gguf", {.mtp = true}).left_out_mtp);
  EXPECT_EQ(Checkpoint::open(dir / "a.gguf")->find("blk.2.nextn.eh_proj.weight"), nullptr);
  EXPECT_NE(Checkpoint::open(dir / "b.gguf")->find("blk.2.nextn.eh_proj.weight"), nullptr);
}

TEST(QuantizeFp8, WeightsAreInBlocksAndTheRestInBf16) {
  const TempDir dir;
  convert(golden_folder("v3_fp8"), dir / "f32", {.type = DType::f32});
  const QuantizeReport report = quantize(dir / "f32", dir / "fp8", Quantization::kFp8, 2);
  const auto source = Checkpoint::open(dir / "f32"), fp8 = Checkpoint::open(dir / "fp8");
  const ModelConfig config = ModelConfig::from_checkpoint(*fp8);
  EXPECT_TRUE(config.fp8);
  const std::vector<TargetTensor> before = plan_folder(*source, config, true);
  Index bytes = 0, n_fp8 = 0;
  for (const TargetTensor& t : before) {
    const TensorView& view = fp8->require(t.name).view;
    EXPECT_EQ(view.shape, t.shape) << t.name;
    bytes += view.n_bytes;
    if (t.name.ends_with("e_score_correction_bias")) {
      EXPECT_EQ(view.dtype, DType::f32);
    } else if (!is_fp8_weight(t.name, t.shape)) {
      EXPECT_EQ(view.dtype, DType::bf16) << t.name;
    } else {
      ++n_fp8;
      EXPECT_EQ(view.dtype, DType::f8_e4m3) << t.name;
      const TensorView& scale = fp8->require(t.name + "_scale_inv").view;
      EXPECT_EQ(scale.dtype, DType::f32);
      EXPECT_EQ(scale.shape, (std::vector<Index>{ceil_div(t.rows(), 128), ceil_div(t.cols(), 128)}))
          << t.name;
      bytes += scale.n_bytes;
    }
  }
  EXPECT_GT(n_fp8, 20);
  EXPECT_EQ(report.bytes_after, bytes);
  EXPECT_EQ(report.tensors.at("f8_e4m3"), n_fp8);
  const std::vector<TargetTensor> after = plan_folder(*fp8, config, true);
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    EXPECT_LE(relative_error(decoded(before[i]), decoded(after[i])), 0.04) << before[i].name;
  }
  const auto json = nlohmann::json::parse(*fp8->text_file("config.json"));
  EXPECT_EQ(json.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(json.at("model_type"), "deepseek_v3");
  EXPECT_EQ(json.at("quantization_config").at("quant_method"), "fp8");
  EXPECT_EQ(json.at("quantization_config").at("weight_block_size"), nlohmann::json({128, 128}));
}

TEST(QuantizeFp8, TheSameBytesAgainAndForAnyNumberOfThreads) {
  const TempDir dir;
  convert(golden_folder("v3_fp8"), dir / "f32", {.type = DType::f32});
  quantize(dir / "f32", dir / "one", Quantization::kFp8, 1);
  quantize(dir / "f32", dir / "three", Quantization::kFp8, 3);
  quantize(dir / "one", dir / "again", Quantization::kFp8, 2);
  const std::string one = read_file(dir / "one/model.safetensors");
  EXPECT_TRUE(one == read_file(dir / "three/model.safetensors"));
  EXPECT_TRUE(one == read_file(dir / "again/model.safetensors"));
  EXPECT_EQ(read_file(dir / "one/config.json"), read_file(dir / "again/config.json"));
}

// DeepSeek's files to the bit, but for blocks that are not of 128 x 128 with f32 factors.
TEST(QuantizeFp8, WhatIsFp8InSuchBlocksIsCopied) {
  const TempDir dir;
  quantize(golden_folder("v3_fp8"), dir / "fp8", Quantization::kFp8, 2);
  auto before = bytes_of_tensors(golden_folder("v3_fp8")), after = bytes_of_tensors(dir / "fp8");
  EXPECT_EQ(before.size(), after.size());
  for (const auto& [key, bytes] : before) {
    if (bytes.starts_with("f8_e4m3")) {
      EXPECT_TRUE(bytes == after[key] && before[key + "_scale_inv"] == after[key + "_scale_inv"])
          << key;
    }
  }
}

TEST(QuantizeFp8, AGgufGivesTheFolderOfItsFolder) {
  for (const std::string name :
       {"v2_lite", "v3", "v3_ties", "qwen2", "qwen2_tied", "qwen3", "llama", "llama_tied"}) {
    SCOPED_TRACE(name);
    const TempDir dir;
    convert(golden_folder(name), dir / "way.gguf", {.mtp = true});
    quantize(dir / "way.gguf", dir / "a", Quantization::kFp8, 2);
    quantize(golden_folder(name), dir / "b", Quantization::kFp8, 1);
    EXPECT_TRUE(bytes_of_tensors(dir / "a") == bytes_of_tensors(dir / "b"));
    EXPECT_TRUE(ModelConfig::from_checkpoint(*Checkpoint::open(dir / "a")).fp8);
  }
}

TEST(QuantizeFp8, WhatIsToBeKeptStaysInBf16AndTheConfigurationSaysSo) {
  const TempDir dir;
  const auto source = Checkpoint::open(golden_folder("llama"));
  quantize_checkpoint(
      *source, dir / "fp8",
      {.target = Quantization::kFp8, .keep_bf16 = {"self_attn.q_proj", "layers.1.mlp."}});
  const auto fp8 = Checkpoint::open(dir / "fp8");
  const std::string first = "model.layers.0.", second = "model.layers.1.";
  std::vector<std::string> kept;
  for (const std::string& name :
       {first + "self_attn.q_proj", second + "self_attn.q_proj", second + "mlp.gate_proj",
        second + "mlp.up_proj", second + "mlp.down_proj"}) {
    EXPECT_EQ(fp8->require(name + ".weight").view.dtype, DType::bf16);
    EXPECT_EQ(fp8->find(name + ".weight_scale_inv"), nullptr);
    kept.push_back(name);
  }
  kept.emplace_back("lm_head");
  for (const std::string& name : {first + "self_attn.k_proj", first + "mlp.gate_proj"}) {
    EXPECT_EQ(fp8->require(name + ".weight").view.dtype, DType::f8_e4m3);
  }
  const auto json = nlohmann::json::parse(*fp8->text_file("config.json"));
  EXPECT_THAT(json.at("quantization_config").at("modules_to_not_convert").get<decltype(kept)>(),
              testing::UnorderedElementsAreArray(kept));
}

TEST(QuantizeFp8, AFolderThatIsThereIsLeftAlone) {
  const TempDir dir;
  dir.write("fp8/mine.txt", "mine");
  EXPECT_THROW(quantize(golden_folder("llama"), dir / "fp8", Quantization::kFp8), Error);
  EXPECT_EQ(read_file(dir / "fp8/mine.txt"), "mine");
}

}  // namespace
}  // namespace kogia::test
