#include "formats/weight_rows.h"

#include <cmath>

#include "base/error.h"
#include "formats/hf_config.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

constexpr float kLargestF16 = 65504;

bool is_fp8(DType dtype) { return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2; }

bool is_floating(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::f32:
    case DType::bf16:
    case DType::f16:
    case DType::f8_e4m3:
    case DType::f8_e5m2:
      return true;
    default:
      return is_block(dtype);
  }
}

}  // namespace

WeightRows::WeightRows(const Checkpoint& checkpoint, const TensorEntry& entry, Index block_rows,
                       Index block_cols)
    : entry_(entry), block_rows_(block_rows), block_cols_(block_cols) {
  const TensorView& view = entry.view;
  if (!view.shape.empty()) cols_ = view.shape.back();
  rows_ = cols_ > 0 ? view.n_values() / cols_ : 0;
  row_bytes_ = row_bytes(view.dtype, cols_);
  if (!is_fp8(view.dtype) || checkpoint.kind() != CheckpointKind::kSafetensors) return;
  scale_ = checkpoint.find(entry.name + "_scale_inv");
  if (scale_ == nullptr) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: {} is {} but there is no {}_scale_inv", entry.file, entry.name,
                            name(view.dtype), entry.name),
                "an FP8 weight needs the scales of its blocks; the checkpoint is incomplete");
  }
  const std::vector<Index> expected = {ceil_div(rows_, block_rows), ceil_div(cols_, block_cols)};
  const DType dtype = scale_->view.dtype;
  if (scale_->view.shape != expected ||
      (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f8_e8m0)) {
    throw_error(ErrorCode::kInvalid,
                "{}: {} is {}, expected [{}, {}] f32, bf16 or f8_e8m0 for blocks of {} x {}",
                scale_->file, scale_->name, name(dtype), expected[0], expected[1], block_rows,
                block_cols);
  }
}

void WeightRows::read(Index row, float* out) const {
  if (!is_floating(entry_.view.dtype)) {
    throw_error(ErrorCode::kUnsupported, "{}: {} is {}, expected a floating or quantised type",
                entry_.file, entry_.name, name(entry_.view.dtype));
  }
  dequantize_row(entry_.view.dtype, stored(row), out, cols_);
  if (scale_ != nullptr) {
    const Index n = scale_->view.shape[1];
    const DType dtype = scale_->view.dtype;
    const std::byte* scales = scale_->view.data + row / block_rows_ * n * info(dtype).block_bytes;
    for (Index block = 0; block < n; ++block) {
      float scale = 0;
      dequantize_row(dtype, scales + block * info(dtype).block_bytes, &scale, 1);
      const Index end = std::min((block + 1) * block_cols_, cols_);
      for (Index c = block * block_cols_; c < end; ++c) out[c] *= scale;
    }
  }
  for (Index c = 0; c < cols_; ++c) {
    if (std::fabs(out[c]) <= kLargestF16) continue;
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: {}: the weight at row {}, column {} is {}, expected a finite one "
                            "of at most {}",
                            entry_.file, entry_.name, row, c, out[c], kLargestF16),
                "the checkpoint is damaged, or was trained to nothing");
  }
}

BlockSize fp8_block_size(const Checkpoint& checkpoint) {
  const auto text = checkpoint.text_file("config.json");
  if (!text) return {};
  const HfConfig config = HfConfig::parse(*text, checkpoint.path() + "/config.json");
  const auto quantization = config.get_object("quantization_config");
  if (!quantization) return {};
  const std::vector<Index> block = quantization->get_ints_or_one("weight_block_size");
  if (block.empty()) return {};
  constexpr Index kMost = Index{1} << 24;
  if (block.size() != 2 || block[0] < 1 || block[1] < 1 || block[0] > kMost || block[1] > kMost) {
    throw_error(ErrorCode::kInvalid,
                "{}: quantization_config.weight_block_size: expected two positive numbers",
                config.file());
  }
  return {.rows = block[0], .cols = block[1]};
}

}  // namespace kogia
