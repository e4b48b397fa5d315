// DeepSeek's FP8 folders: formats/quantize_checkpoint.h.

#include <algorithm>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "formats/hf_config.h"
#include "formats/quantize_checkpoint.h"
#include "formats/safetensors_writer.h"
#include "formats/weight_rows.h"
#include "tensor/convert.h"
#include "tensor/quantize.h"

namespace kogia {
namespace {

constexpr Index kBlock = 128;
constexpr Index kSlabValues = Index{4} << 20;

/// Files that belong to a model beside its weights.
constexpr const char* kCompanions[] = {"generation_config.json",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "chat_template.jinja",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt"};

std::string with_quantization(const Checkpoint& source) {
  const auto text = source.text_file("config.json");
  if (!text) {
    throw Error(ErrorCode::kNotFound, source.path() + ": no config.json",
                "FP8 is written for a whole Hugging Face folder");
  }
  HfConfig::parse(*text, source.path() + "/config.json");  // refuses by name what is no config
  auto json = nlohmann::ordered_json::parse(*text);
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] = "bfloat16";
  json["quantization_config"] = {{"activation_scheme", "dynamic"},
                                 {"fmt", "e4m3"},
                                 {"quant_method", "fp8"},
                                 {"weight_block_size", {kBlock, kBlock}}};
  return json.dump(2) + "\n";
}

bool is_scale(const Checkpoint& source, const TensorEntry& t) {
  constexpr std::string_view kSuffix = "_scale_inv";
  return t.name.ends_with(kSuffix) &&
         source.find(t.name.substr(0, t.name.size() - kSuffix.size())) != nullptr;
}

class Fp8Quantizer {
 public:
  Fp8Quantizer(const Checkpoint& source, const QuantizeOptions& options)
      : source_(source),
        options_(options),
        pool_(options.n_threads),
        block_(fp8_block_size(source)) {}

  void declare(TensorWriter& out, QuantizeReport& report) {
    for (const TensorEntry& t : source_.tensors()) {
      if (t.view.n_bytes == 0) {
        throw_error(ErrorCode::kUnsupported, "{}: {} is empty", t.file, t.name);
      }
      report.bytes_before += t.view.n_bytes;
      if (is_scale(source_, t)) continue;
      const DType type = type_of(t);
      out.declare(t.name, type, t.view.shape);
      if (type == DType::f8_e4m3) {
        out.declare(t.name + "_scale_inv", DType::f32,
                    {ceil_div(t.view.shape[0], kBlock), ceil_div(t.view.shape[1], kBlock)});
        if (is_block(t.view.dtype)) ++report.n_requantized;
      }
      ++report.tensors[std::string(name(type))];
    }
    total_ = report.bytes_before;
    report.bytes_after = out.n_declared_bytes();
  }

  void write(TensorWriter& out) {
    for (const TensorEntry& t : source_.tensors()) {
      if (!is_scale(source_, t)) write(t, out);
      done_ += is_scale(source_, t) ? t.view.n_bytes : 0;
    }
  }

 private:
  DType type_of(const TensorEntry& t) const {
    if (is_fp8_weight(t.name, t.view.shape)) return DType::f8_e4m3;
    const bool keeps = t.name.ends_with("e_score_correction_bias");
    return t.view.dtype == DType::f32 && keeps ? DType::f32 : DType::bf16;
  }

  /// FP8 in these very blocks already: the bytes are the answer.
  bool is_done(const WeightRows& rows) const {
    return rows.scale() != nullptr && rows.entry().view.dtype == DType::f8_e4m3 &&
           rows.scale()->view.dtype == DType::f32 && block_.rows == kBlock && block_.cols == kBlock;
  }

  void write(const TensorEntry& t, TensorWriter& out) {
    const DType type = type_of(t);
    const WeightRows rows(source_, t, block_.rows, block_.cols);
    const bool fp8 = type == DType::f8_e4m3;
    const bool copied = fp8 ? is_done(rows) : type == t.view.dtype;
    const Index band = fp8 ? kBlock : 1;
    const Index n = std::max<Index>(kSlabValues / std::max<Index>(rows.cols() * band, 1), 1) * band;
    const Index scale_cols = ceil_div(rows.cols(), kBlock);
    scales_.assign(static_cast<std::size_t>(fp8 ? ceil_div(rows.rows(), kBlock) * scale_cols : 0),
                   0.0F);
    for (Index begin = 0; begin < rows.rows(); begin += n) {
      throw_if_interrupted();
      const Index end = std::min(begin + n, rows.rows());
      const Index stored = (end - begin) * rows.stored_bytes();
      if (copied) {
        out.append({rows.stored(begin), static_cast<std::size_t>(stored)});
      } else {
        encoded_.resize(static_cast<std::size_t>((end - begin) * row_bytes(type, rows.cols())));
        pool_.parallel_for(end - begin, band, [&](Index first, Index last, int) {
          if (fp8) {
            encode_band(rows, begin, first, last);
          } else {
            encode_plain(rows, begin, first, type);
          }
        });
        out.append(encoded_);
      }
      source_.release(rows.stored(begin), stored);
      done_ += stored;
      if (options_.on_progress) options_.on_progress(done_, total_);
    }
    if (!fp8) return;
    if (copied) {
      const TensorView& scale = rows.scale()->view;
      out.append({scale.data, static_cast<std::size_t>(scale.n_bytes)});
    } else {
      out.append(std::as_bytes(std::span(scales_)));
    }
  }

  /// Rows [first, last) after `begin`, one band of blocks.
  void encode_band(const WeightRows& rows, Index begin, Index first, Index last) {
    const Index cols = rows.cols();
    std::vector<float> values(static_cast<std::size_t>((last - first) * cols));
    for (Index r = first; r < last; ++r) rows.read(begin + r, values.data() + (r - first) * cols);
    auto* codes = reinterpret_cast<std::uint8_t*>(encoded_.data()) + first * cols;
    float* scale = scales_.data() + (begin + first) / kBlock * ceil_div(cols, kBlock);
    for (Index c = 0; c < cols; c += kBlock) {
      *scale++ = encode_fp8_block(values.data() + c, cols, last - first, std::min(kBlock, cols - c),
                                  codes + c, cols);
    }
  }
  void encode_plain(const WeightRows& rows, Index begin, Index row, DType type) {
    std::vector<float> values(static_cast<std::size_t>(rows.cols()));
    rows.read(begin + row, values.data());
    quantize_row(type, values.data(), encoded_.data() + row * row_bytes(type, rows.cols()),
                 rows.cols());
  }

  const Checkpoint& source_;
  const QuantizeOptions& options_;
  ThreadPool pool_;
  BlockSize block_;
  std::vector<std::byte> encoded_;
  std::vector<float> scales_;
  Index total_ = 0, done_ = 0;
};

}  // namespace

QuantizeReport quantize_fp8_folder(const Checkpoint& source, const std::filesystem::path& target,
                                   const QuantizeOptions& options) {
  KOGIA_CHECK(source.kind() == CheckpointKind::kSafetensors);
  QuantizeReport report;
  const std::string config = with_quantization(source);
  SafetensorsWriter out(target);
  Fp8Quantizer quantizer(source, options);
  quantizer.declare(out, report);
  out.add_text("config.json", config);
  for (const char* companion : kCompanions) {
    if (const auto text = source.text_file(companion)) out.add_text(companion, *text);
  }
  out.begin();
  quantizer.write(out);
  throw_if_interrupted();
  out.commit();
  return report;
}

}  // namespace kogia
