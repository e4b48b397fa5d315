// A checkpoint again with smaller weights: what is kept, what is refused, and that threads do not
// count.

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/random.h"
#include "formats/file_builders.h"
#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "formats/quantize_checkpoint.h"
#include "formats/safetensors_writer.h"
#include "formats/weight_rows.h"
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
  return quantize_gguf(*Checkpoint::open(source), target,
                       {.target = type, .importance = importance, .n_threads = n_threads});
}

std::vector<float> decoded(const Checkpoint& checkpoint, const std::string& name) {
  const WeightRows rows(checkpoint, checkpoint.require(name));
  std::vector<float> out(static_cast<std::size_t>(rows.rows() * rows.cols()));
  for (Index r = 0; r < rows.rows(); ++r) rows.read(r, out.data() + r * rows.cols());
  return out;
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

// ---------------------------------------------------------------------------------------------------
// FP8

std::filesystem::path write_folder(const TempDir& dir) {
  SafetensorsWriter out(dir / "hf");
  out.add_text("config.json", R"({"model_type": "llama", "torch_dtype": "float32"})");
  out.add_text("tokenizer.json", "{}");
  const std::vector<Tensor> tensors = {
      {"model.embed_tokens.weight", {20, 300}, DType::f32, normals(1, 20 * 300)},
      {"model.layers.0.self_attn.q_proj.weight", {200, 300}, DType::f32, normals(2, 200 * 300)},
      {"model.layers.0.mlp.gate.weight", {4, 300}, DType::bf16, normals(3, 4 * 300)},
      {"model.layers.0.mlp.gate.e_score_correction_bias", {4}, DType::f32, normals(4, 4)},
      {"model.layers.0.mlp.down_proj.weight", {129, 1}, DType::f16, normals(5, 129)}};
  for (const Tensor& t : tensors) out.declare(t.name, t.dtype, t.shape);
  out.begin();
  for (const Tensor& t : tensors) append(out, t.dtype, t.values);
  out.commit();
  return dir / "hf";
}

TEST(QuantizeFp8, WeightsAreInBlocksAndTheRestInBf16) {
  const TempDir dir;
  const auto source = Checkpoint::open(write_folder(dir));
  quantize_fp8_folder(*source, dir / "fp8", {.target = Quantization::kFp8, .n_threads = 2});
  const auto fp8 = Checkpoint::open(dir / "fp8");
  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  EXPECT_EQ(fp8->require(q).view.dtype, DType::f8_e4m3);
  EXPECT_EQ(fp8->require(q + "_scale_inv").view.shape, (std::vector<Index>{2, 3}));
  EXPECT_EQ(fp8->require(q + "_scale_inv").view.dtype, DType::f32);
  EXPECT_LE(relative_error(decoded(*source, q), decoded(*fp8, q)), 0.04);
  const std::string down = "model.layers.0.mlp.down_proj.weight";
  EXPECT_EQ(fp8->require(down + "_scale_inv").view.shape, (std::vector<Index>{2, 1}));
  EXPECT_LE(relative_error(decoded(*source, down), decoded(*fp8, down)), 0.04);
  EXPECT_EQ(fp8->require("model.embed_tokens.weight").view.dtype, DType::bf16);
  EXPECT_EQ(fp8->require("model.layers.0.mlp.gate.weight").view.dtype, DType::bf16);
  EXPECT_EQ(fp8->require("model.layers.0.mlp.gate.e_score_correction_bias").view.dtype, DType::f32);
  const auto config = nlohmann::json::parse(*fp8->text_file("config.json"));
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(config.at("model_type"), "llama");
  EXPECT_EQ(config.at("quantization_config").at("quant_method"), "fp8");
  EXPECT_EQ(config.at("quantization_config").at("weight_block_size"), nlohmann::json({128, 128}));
  EXPECT_EQ(fp8->text_file("tokenizer.json"), "{}");

  // Such a folder again, and with other threads: the same bytes.
  const TempDir other;
  quantize_fp8_folder(*fp8, other / "again", {.target = Quantization::kFp8, .n_threads = 1});
  EXPECT_TRUE(read_file(dir / "fp8/model.safetensors") ==
              read_file(other / "again/model.safetensors"));
  quantize_fp8_folder(*source, other / "one", {.target = Quantization::kFp8, .n_threads = 1});
  EXPECT_TRUE(read_file(dir / "fp8/model.safetensors") ==
              read_file(other / "one/model.safetensors"));
}

TEST(QuantizeFp8, AFolderThatIsThereIsLeftAlone) {
  const TempDir dir;
  const auto source = Checkpoint::open(write_folder(dir));
  dir.write("fp8/mine.txt", "mine");
  EXPECT_THROW(quantize_fp8_folder(*source, dir / "fp8", {.target = Quantization::kFp8}), Error);
  EXPECT_EQ(read_file(dir / "fp8/mine.txt"), "mine");
}

}  // namespace
}  // namespace kogia::test
