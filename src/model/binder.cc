#include "model/binder.h"

#include <algorithm>

#include "base/error.h"
#include "model/kept_weights.h"
#include "model/trained_weights.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

std::string text(const std::vector<Index>& shape) {
  std::string s = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

}  // namespace

Binder::Binder(const Checkpoint& checkpoint, Device& device, const ModelConfig& config,
               const LoadOptions& options)
    : checkpoint_(checkpoint), device_(device), config_(config), options_(options) {}

std::string Binder::file_name(const TensorName& name, const char* suffix) const {
  return (gguf() ? name.gguf : name.hf) + suffix;
}

bool Binder::has(const TensorName& name) const {
  return checkpoint_.find(file_name(name, ".weight")) != nullptr;
}

const TensorEntry& Binder::take(const std::string& name, const std::vector<Index>& shape) {
  const TensorEntry& entry = checkpoint_.require(name);
  if (entry.view.shape != shape) {
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: {} is {} {}, expected {}", entry.file, name,
                            text(entry.view.shape), kogia::name(entry.view.dtype), text(shape)),
                "the configuration asks for that shape: is it the config of this very checkpoint?");
  }
  const bool is_scale = name.ends_with("_scale_inv");  // its own check: attach_scale()
  if (!is_scale && !is_floating(entry.view.dtype)) {
    throw_error(ErrorCode::kInvalid,
                "{}: {} is {}, expected f32, f16, bf16, an FP8 or a quantised type", entry.file,
                name, kogia::name(entry.view.dtype));
  }
  taken_.insert(name);
  return entry;
}

Compute Binder::arithmetic_for(DType dtype) const {
  // f32 and f16 weights are multiplied in f32, whatever is asked for (device.h, Compute).
  if (dtype == DType::f32 || dtype == DType::f16) return Compute::f32;
  const Compute standard = device_.default_compute(dtype);
  if (!options_.compute) return standard;
  switch (*options_.compute) {
    case Compute::f32:
    case Compute::bf16:
      return *options_.compute;
    case Compute::int16:
    case Compute::int8:
      return is_block(dtype) ? *options_.compute : standard;
    case Compute::fp8:
      return dtype == DType::f8_e4m3 ? Compute::fp8 : standard;
  }
  return standard;
}

// FP8 weights carry X.weight_scale_inv [ceil(rows / block), ceil(cols / block)], which multiplies.
void Binder::attach_scale(const TensorEntry& entry, MatrixSource& source, Index total_rows) {
  if (entry.view.dtype != DType::f8_e4m3 && entry.view.dtype != DType::f8_e5m2) return;
  const std::string scale_name = entry.name + "_scale_inv";
  if (checkpoint_.find(scale_name) == nullptr) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: {} is {} but there is no {}", entry.file, entry.name,
                            kogia::name(entry.view.dtype), scale_name),
                "an FP8 weight needs the scales of its blocks; the checkpoint is incomplete");
  }
  const TensorEntry& scale = take(scale_name, {ceil_div(total_rows, config_.fp8_block_rows),
                                               ceil_div(source.cols, config_.fp8_block_cols)});
  const DType dtype = scale.view.dtype;
  if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f8_e8m0) {
    throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected f32, bf16 or f8_e8m0", scale.file,
                scale_name, kogia::name(dtype));
  }
  source.scale = scale.view.data;
  source.scale_dtype = dtype;
  source.scale_cols = scale.view.shape[1];
  source.block_rows = config_.fp8_block_rows;
  // A block wider than the matrix scales the same columns; kernels lay memory out by its width.
  source.block_cols = std::min(config_.fp8_block_cols, round_up(source.cols, 128));
}

MatrixSource Binder::source(const TensorEntry& entry, Index rows, Index cols) {
  if (cols % info(entry.view.dtype).block_values != 0) {
    throw_error(ErrorCode::kInvalid,
                "{}: {} has rows of {} values, not a multiple of {}'s blocks of {}", entry.file,
                entry.name, cols, kogia::name(entry.view.dtype),
                info(entry.view.dtype).block_values);
  }
  MatrixSource source{
      .dtype = entry.view.dtype, .rows = rows, .cols = cols, .data = entry.view.data};
  attach_scale(entry, source, rows);
  return source;
}

bool Binder::guesses(DType dtype, Index cols) const {
  const bool plain = dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
  return guesses_ && plain && cols % info(DType::q8_0).block_values == 0;
}

void Binder::add_job(const TensorEntry& entry, const MatrixSource& source, PackOptions options,
                     std::unique_ptr<Matrix>& out, bool guess) {
  std::string id = fmt::format("{} {}+{}", entry.name, source.first_row, source.rows);
  if (options.transpose) id += " transposed";
  if (source.scale != nullptr) {
    id += fmt::format(" scaled {}x{} {}", source.block_rows, source.block_cols,
                      kogia::name(source.scale_dtype));
  }
  PackJob& job = jobs_.emplace_back();
  if (guess) {
    job.rounded = DType::q8_0;
    options.compute = Compute::int8;
    id += " as q8_0";
  }
  job.id = std::move(id);
  job.source = source;
  job.options = options;
  job.out = &out;
  formats_[fmt::format("{} ({})", kogia::name(job.packed_source().dtype),
                       kogia::name(options.compute))] += job.source_bytes();
}

void Binder::add_matrix(const TensorEntry& entry, const MatrixSource& source, PackOptions options,
                        Linear& out, Index uses, bool guess) {
  add_job(entry, source, options, out.w, guess);
  TrainedWeights* const training = options_.training;
  if (training == nullptr) return;
  out.trained = std::make_unique<TrainedMatrix>();
  const Index n = entry.view.n_values();
  out.trained->grad = training->gradient(entry.name, n, uses) + source.first_row * source.cols;
  out.trained->stride = source.cols;
  out.trained->packed_transposed = options.transpose;
  out.trained->use_stride = n;
  // Gradients come rounded as the recipe wants them; FP8's codes are then multiplied as they are.
  if (options.compute == Compute::fp8) options.compute = Compute::f32;
  options.transpose = !options.transpose;
  add_job(entry, source, options, out.trained->transposed);
}

float* Binder::gradient(const TensorName& name, Index use, Index uses) {
  if (options_.training == nullptr) return nullptr;
  const TensorEntry& entry = checkpoint_.require(file_name(name, ".weight"));
  const Index n = entry.view.n_values();
  return options_.training->gradient(entry.name, n, uses) + use * n;
}

void Binder::linear(const TensorName& name, Index rows, Index cols, Linear& out,
                    std::optional<Compute> arithmetic, Index uses) {
  const TensorEntry& entry = take(file_name(name, ".weight"), {rows, cols});
  const MatrixSource s = source(entry, rows, cols);
  add_matrix(entry, s, {.compute = arithmetic.value_or(arithmetic_for(s.dtype))}, out, uses,
             !arithmetic && guesses(s.dtype, s.cols));
}

void Binder::linear_with_bias(const TensorName& name, Index rows, Index cols, Linear& out) {
  linear(name, rows, cols, out);
  const TensorName bias{name.hf + ".bias", name.gguf + ".bias"};
  exact_vector(bias, rows, out.bias);
  if (out.trained) out.trained->bias_grad = options_.training->gradient(bias.hf, rows);
}

void Binder::slice(const TensorName& name, std::vector<Index> shape, RowSlice rows, bool transpose,
                   Linear& out) {
  const TensorEntry& entry = take(file_name(name, ".weight"), shape);
  Index total_rows = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) total_rows *= shape[i];
  KOGIA_CHECK(rows.first >= 0 && rows.first + rows.n <= total_rows);
  MatrixSource s = source(entry, total_rows, shape.back());
  s.data += rows.first * row_bytes(s.dtype, s.cols);
  s.rows = rows.n;
  s.first_row = rows.first;
  add_matrix(entry, s, {.compute = arithmetic_for(s.dtype), .transpose = transpose}, out, 1,
             !transpose && guesses(s.dtype, s.cols));
}

void Binder::vector(const TensorName& name, Index n, std::vector<float>& out) {
  exact_vector({name.hf + ".weight", name.gguf + ".weight"}, n, out);
}

void Binder::exact_vector(const TensorName& full_name, Index n, std::vector<float>& out) {
  const TensorEntry& entry = take(gguf() ? full_name.gguf : full_name.hf, {n});
  if (is_block(entry.view.dtype)) {
    throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected a plain floating type", entry.file,
                entry.name, kogia::name(entry.view.dtype));
  }
  out.resize(static_cast<std::size_t>(n));
  dequantize_row(entry.view.dtype, entry.view.data, out.data(), n);
  if (options_.training != nullptr) options_.training->vectors_.push_back({&entry, &out});
}

void Binder::norm(const TensorName& name, Index n, Norm& out, double eps) {
  vector(name, n, out.weight);
  out.grad = gradient(name, 0, 1);
  out.eps = static_cast<float>(eps);
}

void Binder::embedding(const TensorName& name, Index rows, Index cols,
                       std::unique_ptr<Matrix>& out) {
  const TensorEntry& entry = take(file_name(name, ".weight"), {rows, cols});
  out = device_.borrow(source(entry, rows, cols), {});
}

bool Binder::asks_for_f32() const {
  return options_.compute == Compute::f32 ||
         std::all_of(jobs_.begin(), jobs_.end(), [](const PackJob& job) {
           return job.source.dtype == DType::f32 || job.source.dtype == DType::f16;
         });
}

void Binder::ignore(const std::string& name_or_prefix) { ignored_.push_back(name_or_prefix); }

void Binder::finish() const {
  std::vector<std::string> extra;
  for (const TensorEntry& entry : checkpoint_.tensors()) {
    const auto covers = [&](const std::string& pattern) {
      return entry.name == pattern || (pattern.ends_with('.') && entry.name.starts_with(pattern));
    };
    if (!taken_.contains(entry.name) && std::none_of(ignored_.begin(), ignored_.end(), covers)) {
      extra.push_back(entry.name);
    }
  }
  if (extra.empty()) return;
  std::string list;
  for (std::size_t i = 0; i < std::min<std::size_t>(extra.size(), 3); ++i)
    list += (i ? ", " : "") + extra[i];
  if (extra.size() > 3) list += fmt::format(" and {} more", extra.size() - 3);
  throw Error(
      ErrorCode::kInvalid,
      fmt::format("{}: tensors that a {} model of this configuration does not have: {}",
                  checkpoint_.path(), kogia::name(config_.family), list),
      "running without them would give other numbers than the model's; is the config right?");
}

void Binder::pack() {
  if (options_.training != nullptr) {
    options_.training->pack(jobs_, checkpoint_, device_);
    for (const PackJob& job : jobs_) n_packed_bytes_ += (*job.out)->n_bytes();
    return;
  }
  const WeightPacker packer(jobs_, checkpoint_, device_, options_.on_progress);
  load_weights(packer, checkpoint_, options_.packing);
  for (const PackJob& job : jobs_) n_packed_bytes_ += (*job.out)->n_bytes();
}

}  // namespace kogia
