// The field cases F01 to F09 for what we write: read here with a reader of its own, stricter than
// any that a file will meet, so that a trap we fell into ourselves would show.

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/safetensors_writer.h"
#include "infer/convert.h"
#include "infer/quantize.h"
#include "model/rewrite.h"
#include "support/cache.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using test::golden_folder;
using test::read_file;
using test::TempDir;

const char* const kFolders[] = {"v2_lite", "v2_group", "v3",    "v3_tf5",      "v3_fp8",
                                "qwen2",   "qwen3",    "llama", "v3_fp8_ue8m0"};

void convert(const fs::path& from, const fs::path& to, ConvertOptions options = {}) {
  options.n_threads = 2;
  convert_checkpoint(*Checkpoint::open(from), to, options);
}

// --- safetensors
// ----------------------------------------------------------------------------------

struct Lies {
  std::string dtype;
  std::vector<Index> shape;
  Index begin = 0, end = 0;
};

/// A header of which no key is given twice at any depth.
Json parse_once(const std::string& text) {
  std::vector<std::set<std::string>> open;
  return Json::parse(text, [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key) {
      EXPECT_TRUE(open.back().insert(value.get<std::string>()).second) << value << " twice";
    }
    return true;
  });
}

std::map<std::string, Lies> read_strictly(const fs::path& path) {
  static const std::map<std::string, Index> kBytes = {
      {"F32", 4}, {"BF16", 2}, {"F16", 2}, {"F8_E4M3", 1}};
  const std::string bytes = read_file(path);
  std::uint64_t n = 0;
  EXPECT_GE(bytes.size(), 10u);
  std::memcpy(&n, bytes.data(), 8);
  EXPECT_LE(n, 100'000'000u);                          // F01: the reference's cap
  EXPECT_LE(8 + n, bytes.size());                      // F01: not cut off
  EXPECT_EQ(n % 8, 0u);                                // so that the data begins at a multiple of 8
  EXPECT_EQ(bytes[8], '{');                            // F01: nothing before it
  const Json header = parse_once(bytes.substr(8, n));  // F03: no name twice
  std::map<std::string, Lies> tensors;
  std::map<Index, Index> ranges;
  for (const auto& [name, t] : header.items()) {
    if (name == "__metadata__") {
      for (const auto& value : t) EXPECT_TRUE(value.is_string()) << "F03: " << value;
      continue;
    }
    const Lies lies{.dtype = t.at("dtype"),
                    .shape = t.at("shape"),
                    .begin = t.at("data_offsets").at(0),
                    .end = t.at("data_offsets").at(1)};
    Index n_bytes = kBytes.at(lies.dtype);
    for (const Index d : lies.shape) n_bytes *= d;
    EXPECT_EQ(lies.end - lies.begin, n_bytes) << name;
    EXPECT_GT(n_bytes, 0) << name;
    EXPECT_TRUE(ranges.emplace(lies.begin, lies.end).second) << name << " shares bytes";
    tensors[name] = lies;
  }
  Index end = 0;  // F03: no holes, no overlap, nothing after the last
  for (const auto& [b, e] : ranges) {
    EXPECT_EQ(b, end);
    end = e;
  }
  EXPECT_EQ(8 + n + static_cast<std::uint64_t>(end), bytes.size());
  return tensors;
}

/// All shards of a folder; the index names each tensor's and nothing else.
std::map<std::string, Lies> read_folder_strictly(const fs::path& folder) {
  if (fs::exists(folder / "model.safetensors")) {
    EXPECT_FALSE(fs::exists(folder / "model.safetensors.index.json"));
    return read_strictly(folder / "model.safetensors");
  }
  const Json index = parse_once(read_file(folder / "model.safetensors.index.json"));
  std::map<std::string, Lies> all;
  std::set<std::string> files;
  Index n_bytes = 0;
  for (const auto& [name, file] : index.at("weight_map").items()) files.insert(file);
  for (const std::string& file : files) {
    for (const auto& [name, lies] : read_strictly(folder / file)) {
      EXPECT_EQ(index.at("weight_map").at(name), file);
      EXPECT_TRUE(all.emplace(name, lies).second) << name << " in two files";
      n_bytes += lies.end - lies.begin;
    }
  }
  EXPECT_EQ(all.size(), index.at("weight_map").size());
  EXPECT_EQ(index.at("metadata").at("total_size"), n_bytes);
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") {
      EXPECT_TRUE(files.contains(entry.path().filename())) << entry.path();
    }
  }
  return all;
}

TEST(Writers, F01F03SafetensorsAreCoveredOnceAndNamedOnce) {
  for (const std::string name : kFolders) {
    SCOPED_TRACE(name);
    const TempDir dir;
    convert(golden_folder(name), dir / "one");
    convert(golden_folder(name), dir / "m.gguf", {.mtp = true});
    convert(dir / "m.gguf", dir / "shards", {.max_shard_bytes = 20'000});
    quantize_checkpoint(*Checkpoint::open(golden_folder(name)), dir / "fp8",
                        {.target = Quantization::kFp8});
    const auto one = read_folder_strictly(dir / "one"),
               shards = read_folder_strictly(dir / "shards");
    EXPECT_EQ(one.size(), shards.size());
    EXPECT_GE(read_folder_strictly(dir / "fp8").size(), one.size());
  }
}

// Rows and columns that neither blocks nor words divide: each tensor still begins where its type
// may lie.
fs::path write_odd_folder(const TempDir& dir) {
  SafetensorsWriter out(dir / "odd");
  out.add_text("config.json", "{}");
  const std::vector<std::pair<std::string, std::vector<Index>>> tensors = {
      {"model.layers.0.input_layernorm.weight", {57}},
      {"model.layers.0.self_attn.q_proj.weight", {577, 301}},
      {"model.layers.0.self_attn.o_proj.weight", {3, 1}},
      {"model.layers.0.mlp.gate.e_score_correction_bias", {5}},
      {"model.layers.0.mlp.up_proj.weight", {129, 255}}};
  for (const auto& [name, shape] : tensors) out.declare(name, DType::f32, shape);
  out.begin();
  for (const auto& [name, shape] : tensors) {
    const Index cols = shape.back(), rows = shape.size() == 2 ? shape[0] : 1;
    std::vector<float> x(static_cast<std::size_t>(rows * cols));
    // Blocks lie apart by powers of two: with a neighbour's scale a weight would be off by factors.
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < cols; ++c) {
        const auto block = static_cast<int>((r / 128 * 3 + c / 128 * 5) % 12);
        x[static_cast<std::size_t>(r * cols + c)] =
            std::ldexp(1.0F + 0.01F * static_cast<float>((r * 7 + c) % 90), -block);
      }
    }
    out.append(std::as_bytes(std::span(x)));
  }
  out.commit();
  return dir / "odd";
}

/// Each tensor of a folder as it is, with the scales beside it.
std::vector<TargetTensor> plan_odd(const Checkpoint& folder) {
  std::vector<TargetTensor> targets;
  for (const TensorEntry& t : folder.tensors()) {
    if (t.name.ends_with("_scale_inv")) continue;
    targets.push_back({.name = t.name, .shape = t.view.shape, .dtype = t.view.dtype, .pieces = {}});
    targets.back().pieces = {{.source = &t,
                              .n_rows = targets.back().rows(),
                              .scale = folder.find(t.name + "_scale_inv")}};
  }
  return targets;
}

TEST(Writers, F05Fp8EdgesHaveTheScaleOfTheirOwnBlock) {
  const TempDir dir;
  const auto source = Checkpoint::open(write_odd_folder(dir));
  std::vector<TargetTensor> originals = plan_odd(*source);
  for (TargetTensor& t : originals) {
    if (is_fp8_weight(t.name, t.shape)) t.dtype = DType::f8_e4m3;
  }
  SafetensorsWriter writer(dir / "fp8");
  writer.add_text("config.json", "{}");
  write_tensors(*source, originals, writer, {.n_threads = 2});
  writer.commit();
  const auto tensors = read_folder_strictly(dir / "fp8");
  const auto fp8 = Checkpoint::open(dir / "fp8");
  const std::vector<TargetTensor> rows = plan_odd(*fp8);
  ASSERT_EQ(rows.size(), originals.size());
  int n_fp8 = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string& name = rows[i].name;
    const Lies& lies = tensors.at(name);
    if (lies.dtype != "F8_E4M3") continue;
    SCOPED_TRACE(name);
    ++n_fp8;
    const Lies& scale = tensors.at(name + "_scale_inv");
    EXPECT_EQ(scale.dtype, "F32");
    const Index cols = lies.shape[1];
    EXPECT_EQ(scale.shape, (std::vector<Index>{(lies.shape[0] + 127) / 128, (cols + 127) / 128}));
    std::vector<float> a(static_cast<std::size_t>(cols)), b(a);
    for (const Index r : {0, 127, 128, 511, 512, 575, 576}) {
      if (r >= lies.shape[0]) continue;
      read_rows(originals[i], r, 1, a.data());
      read_rows(rows[i], r, 1, b.data());
      for (Index c = 0; c < cols; ++c) {
        const float x = a[static_cast<std::size_t>(c)];
        ASSERT_NEAR(b[static_cast<std::size_t>(c)], x, x / 16) << "row " << r << " column " << c;
      }
    }
  }
  EXPECT_EQ(n_fp8, 3);
}

TEST(Writers, F05AConfigurationSaysFp8WhereTheWeightsAreAndNowhereElse) {
  for (const std::string name : kFolders) {
    SCOPED_TRACE(name);
    const TempDir dir;
    convert(golden_folder(name), dir / "plain");
    quantize_checkpoint(*Checkpoint::open(golden_folder(name)), dir / "fp8",
                        {.target = Quantization::kFp8});
    for (const bool fp8 : {false, true}) {
      const fs::path folder = dir / (fp8 ? "fp8" : "plain");
      Json config = Json::parse(read_file(folder / "config.json"));
      EXPECT_EQ(config.contains("quantization_config"), fp8);
      if (fp8) {
        EXPECT_EQ(config["quantization_config"]["weight_block_size"], Json({128, 128}));
      }
      int n_weights = 0, n_scales = 0;
      for (const auto& [tensor, lies] : read_folder_strictly(folder)) {
        n_weights += lies.dtype == "F8_E4M3" ? 1 : 0;
        n_scales += tensor.ends_with("_scale_inv") ? 1 : 0;
      }
      EXPECT_EQ(n_weights, n_scales);
      EXPECT_EQ(n_weights > 0, fp8);
    }
  }
}

TEST(Writers, F05AnUntruthAboutFp8IsNotPassedOn) {
  const TempDir dir;
  fs::copy(golden_folder("v3"), dir / "source");
  Json config = Json::parse(read_file(dir / "source/config.json"));
  config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  dir.write("source/config.json", config.dump());
  convert(dir / "source", dir / "out");
  EXPECT_FALSE(Json::parse(read_file(dir / "out/config.json")).contains("quantization_config"));
}

// --- GGUF
// -----------------------------------------------------------------------------------------

constexpr std::uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9;

class Cursor {
 public:
  explicit Cursor(const std::string& bytes) : bytes_(bytes) {}
  template <class T>
  T number() {
    T value{};
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  std::string text() {
    const auto n = number<std::uint64_t>();
    return {take(n), n};
  }
  const char* take(std::uint64_t n) {
    if (n > bytes_.size() - at_) throw std::runtime_error("a length beyond the file");
    at_ += n;
    return bytes_.data() + at_ - n;
  }
  std::uint64_t at() const { return at_; }

 private:
  const std::string& bytes_;
  std::uint64_t at_ = 0;
};

/// "4" for a u32, "9:8" for an array of strings.
std::string skip_value(Cursor& in) {
  static const std::map<std::uint32_t, std::uint64_t> kBytes = {
      {0, 1}, {1, 1}, {2, 2}, {3, 2}, {kU32, 4}, {kI32, 4}, {kF32, 4}, {10, 8}, {11, 8}, {12, 8}};
  const auto one = [&](std::uint32_t type) {
    if (type == kString) {
      in.text();
    } else if (type == kBool) {
      EXPECT_LE(in.number<std::uint8_t>(), 1);
    } else {
      in.take(kBytes.at(type));  // F07: no array within an array, no unknown type
    }
  };
  const auto type = in.number<std::uint32_t>();
  if (type != kArray) {
    one(type);
    return std::to_string(type);
  }
  const auto items = in.number<std::uint32_t>();
  for (auto n = in.number<std::uint64_t>(); n > 0; --n) one(items);
  return "9:" + std::to_string(items);
}

struct GgufFile {
  std::map<std::string, std::string> keys;  // and their types
  std::map<std::string, std::uint32_t> tensors;
};

GgufFile read_gguf_strictly(const fs::path& path) {
  struct Block {
    std::uint64_t values, bytes;
  };
  static const std::map<std::uint32_t, Block> kTypes = {
      {0, {1, 4}},      {1, {1, 2}},      {2, {32, 18}}, {3, {32, 20}},
      {6, {32, 22}},    {7, {32, 24}},    {8, {32, 34}}, {12, {256, 144}},
      {13, {256, 176}}, {14, {256, 210}}, {30, {1, 2}}};
  const std::string bytes = read_file(path);
  Cursor in(bytes);
  GgufFile file;
  EXPECT_EQ(std::string(in.take(4), 4), "GGUF");
  EXPECT_EQ(in.number<std::uint32_t>(), 3u);
  const auto n_tensors = in.number<std::uint64_t>(), n_keys = in.number<std::uint64_t>();
  for (std::uint64_t i = 0; i < n_keys; ++i) {
    const std::string key = in.text();
    EXPECT_LT(key.size(), 65536u);
    const std::string type = skip_value(in);
    EXPECT_TRUE(file.keys.emplace(key, type).second) << key << " twice";
  }
  EXPECT_FALSE(file.keys.contains("general.alignment"));  // F07e: 32, by leaving it out
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (std::uint64_t i = 0; i < n_tensors; ++i) {
    const std::string name = in.text();
    EXPECT_LT(name.size(), 64u) << "longer than llama.cpp's names: " << name;
    const auto n_dims = in.number<std::uint32_t>();
    EXPECT_TRUE(n_dims >= 1 && n_dims <= 4) << name;
    std::uint64_t n_values = 1, row = 0;
    for (std::uint32_t d = 0; d < n_dims; ++d) {
      const auto length = in.number<std::uint64_t>();
      row = d == 0 ? length : row;
      n_values *= length;
    }
    const auto type = in.number<std::uint32_t>();
    const Block block = kTypes.at(type);
    EXPECT_EQ(row % block.values, 0u) << name;
    ranges.emplace_back(in.number<std::uint64_t>(), n_values / block.values * block.bytes);
    EXPECT_TRUE(file.tensors.emplace(name, type).second) << name << " twice";
  }
  const auto aligned = [](std::uint64_t n) { return (n + 31) / 32 * 32; };
  const std::uint64_t data = aligned(in.at());
  std::uint64_t end = 0;
  const auto expect_zeros = [&](std::uint64_t from, std::uint64_t to) {
    for (; from < to; ++from) EXPECT_EQ(bytes.at(from), '\0') << "padding at " << from;
  };
  expect_zeros(in.at(), data);
  for (const auto& [offset, n] : ranges) {
    EXPECT_EQ(offset, end);  // aligned, in order, apart, without holes
    EXPECT_GT(n, 0u);
    expect_zeros(data + offset + n, data + aligned(offset + n));
    end = aligned(offset + n);
  }
  EXPECT_EQ(bytes.size(), data + end);
  return file;
}

/// What the readers of others take for granted.
void expect_types_that_others_read(const GgufFile& file, const std::string& architecture) {
  static const std::map<std::string, std::string> kByEnd = {
      {"block_count", "4"},
      {"context_length", "4"},
      {"embedding_length", "4"},
      {"feed_forward_length", "4"},
      {"attention.head_count", "4"},
      {"attention.head_count_kv", "4"},
      {"expert_count", "4"},
      {"expert_used_count", "4"},
      {"expert_weights_norm", "7"},
      {"expert_weights_scale", "6"},
      {"expert_gating_func", "4"},
      {"leading_dense_block_count", "4"},
      {"rope.freq_base", "6"},
      {"rope.dimension_count", "4"},
      {"rope.scaling.factor", "6"},
      {"rope.scaling.type", "8"},
      {"vocab_size", "4"},
      {"attention.layer_norm_rms_epsilon", "6"},
      {"attention.key_length", "4"},
      {"attention.value_length", "4"},
      {"attention.key_length_mla", "4"},
      {"rope.scaling.yarn_log_multiplier", "6"}};
  static const std::map<std::string, std::string> kWhole = {
      {"general.architecture", "8"},         {"general.file_type", "4"},
      {"general.quantization_version", "4"}, {"tokenizer.ggml.model", "8"},
      {"tokenizer.ggml.tokens", "9:8"},      {"tokenizer.ggml.scores", "9:6"},
      {"tokenizer.ggml.token_type", "9:5"},  {"tokenizer.ggml.merges", "9:8"},
      {"tokenizer.ggml.bos_token_id", "4"},  {"tokenizer.ggml.eos_token_id", "4"},
      {"tokenizer.chat_template", "8"}};
  for (const char* needed : {"block_count", "context_length", "attention.head_count"}) {
    EXPECT_TRUE(file.keys.contains(architecture + "." + needed)) << needed;
  }
  EXPECT_TRUE(file.keys.contains("general.architecture"));
  for (const auto& [key, type] : file.keys) {
    if (const auto known = kWhole.find(key); known != kWhole.end()) {
      EXPECT_EQ(type, known->second) << key;
    }
    if (!key.starts_with(architecture + ".")) continue;
    const auto known = kByEnd.find(key.substr(architecture.size() + 1));
    if (known != kByEnd.end()) {
      EXPECT_EQ(type, known->second) << key;
    }
  }
}

std::string architecture_of(const std::string& folder) {
  return folder.starts_with("v") ? "deepseek2" : folder.substr(0, folder.find('_'));
}

TEST(Writers, F07GgufsAreCoveredOnceWithKeysOfTheExpectedTypes) {
  for (const std::string name : kFolders) {
    for (const std::optional<DType> type : {std::optional<DType>{}, {DType::f32}, {DType::q8_0}}) {
      SCOPED_TRACE(name);
      const TempDir dir;
      convert(golden_folder(name), dir / "m.gguf", {.type = type, .mtp = true});
      const GgufFile file = read_gguf_strictly(dir / "m.gguf");
      expect_types_that_others_read(file, architecture_of(name));
      // F07d: what block_count says is there.
      const auto n_layers = *Checkpoint::open(dir / "m.gguf")
                                 ->gguf()
                                 ->metadata()
                                 .get_int(architecture_of(name) + ".block_count");
      std::set<std::string> layers;
      for (const auto& [tensor, _] : file.tensors) {
        if (tensor.starts_with("blk.")) layers.insert(tensor.substr(4, tensor.find('.', 4) - 4));
      }
      EXPECT_EQ(static_cast<Index>(layers.size()), n_layers);
    }
  }
}

TEST(Writers, F07QuantisedGgufsAndTokenizersToo) {
  const TempDir dir;
  for (const std::string name : {"v2_quantised/kv_b", "v3_quantised/new", "qwen3_quantised/new"}) {
    SCOPED_TRACE(name);
    const auto source = Checkpoint::open(golden_folder(name + ".gguf"));
    for (const Quantization q : {Quantization::kQ8_0, Quantization::kQ4_0, Quantization::kQ6_K}) {
      quantize_checkpoint(*source, dir / "q.gguf", {.target = q});
      expect_types_that_others_read(read_gguf_strictly(dir / "q.gguf"), architecture_of(name));
    }
  }
  convert(test::smollm2(), dir / "s.gguf");
  const GgufFile smollm2 = read_gguf_strictly(dir / "s.gguf");
  expect_types_that_others_read(smollm2, "llama");
  EXPECT_TRUE(smollm2.keys.contains("tokenizer.ggml.tokens"));
}

TEST(Writers, F09OnlyTheNewestGenerationOfDeepSeekNamesIsWritten) {
  for (const char* file :
       {"v2_lite", "v2_lite/kv_b.gguf", "v2_lite/old.gguf", "v3", "v3/kv_b.gguf"}) {
    SCOPED_TRACE(file);
    const TempDir dir;
    convert(golden_folder(file), dir / "m.gguf");
    const GgufFile written = read_gguf_strictly(dir / "m.gguf");
    for (const auto& [tensor, _] : written.tensors) {
      EXPECT_FALSE(tensor.ends_with("attn_kv_b.weight")) << tensor;
    }
    for (const char* tensor : {"blk.0.attn_k_b.weight", "blk.0.attn_v_b.weight"}) {
      EXPECT_TRUE(written.tensors.contains(tensor)) << tensor;
    }
    for (const char* key :
         {"attention.key_length_mla", "attention.value_length_mla", "expert_gating_func"}) {
      EXPECT_TRUE(written.keys.contains(std::string("deepseek2.") + key)) << key;
    }
  }
}

TEST(Writers, F09TheYarnMultiplierIsStoredTimesATenth) {
  const TempDir dir;
  convert(golden_folder("v2_lite"), dir / "m.gguf");
  const auto gguf = Checkpoint::open(dir / "m.gguf");
  const Json config = Json::parse(read_file(golden_folder("v2_lite") / "config.json"));
  const double mscale = config.at("rope_scaling").at("mscale_all_dim");
  EXPECT_NEAR(
      gguf->gguf()->metadata().get_float("deepseek2.rope.scaling.yarn_log_multiplier").value(),
      0.1 * mscale, 1e-8);
  convert(dir / "m.gguf", dir / "back");
  const Json back = Json::parse(read_file(dir / "back/config.json"));
  EXPECT_NEAR(back.at("rope_scaling").at("mscale_all_dim").get<double>(), mscale, 1e-6);
}

}  // namespace
}  // namespace kogia
