#include "model/synth.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "formats/gguf_writer.h"
#include "formats/safetensors_writer.h"
#include "model/synth_plan.h"
#include "model/synth_q4k.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

constexpr Index kFp8Block = 128;
constexpr float kE4m3Max = 448;

/// A key for the random numbers of a name: FNV-1a.
std::uint64_t key_of(std::string_view name) {
  std::uint64_t h = 0xCBF29CE484222325;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return h;
}

/// n values of mean 0, two from each 128 random bits: the sum of four 16-bit uniforms is near
/// enough to a normal variable for a weight, and whole numbers give the same bits everywhere.
void fill_normal(const Philox& random, double deviation, float* out, Index n) {
  constexpr double kDeviation = 37837.2266;  // sqrt(4 * (65536^2 - 1) / 12)
  const double unit = deviation / kDeviation;
  for (Index i = 0; i < n; i += 2) {
    const Philox::Block b = random.bits(static_cast<std::uint64_t>(i / 2));
    for (Index half = 0; half < std::min<Index>(2, n - i); ++half) {
      const std::uint32_t x = b[static_cast<std::size_t>(2 * half)],
                          y = b[static_cast<std::size_t>(2 * half + 1)];
      const std::uint32_t sum = (x & 0xFFFF) + (x >> 16) + (y & 0xFFFF) + (y >> 16);
      out[i + half] = static_cast<float>((static_cast<double>(sum) - 4 * 32767.5) * unit);
    }
  }
}

/// Makes the bytes of one tensor after the other and hands them to the writer in order.
class Generator {
 public:
  Generator(const SynthOptions& options, TensorWriter& writer)
      : options_(options),
        writer_(writer),
        pool_(options.n_threads),
        total_(writer.n_declared_bytes()) {}

  void write(const SynthTensor& t) {
    if (t.fill == SynthTensor::Fill::kBlockScales) {
      append(std::as_bytes(std::span(scales_)));
    } else {
      write_rows(t);
    }
  }

 private:
  void write_rows(const SynthTensor& t);
  void make_rows(const SynthTensor& t, Index first, Index n, std::byte* out);
  void encode_fp8(const float* x, Index first, Index rows, Index cols, std::byte* out);
  void append(std::span<const std::byte> bytes) {
    writer_.append(bytes);
    done_ += static_cast<Index>(bytes.size());
    if (options_.on_progress) options_.on_progress(done_, total_);
  }

  const SynthOptions& options_;
  TensorWriter& writer_;
  ThreadPool pool_;
  Index total_, done_ = 0;
  std::vector<std::byte> buffer_;
  std::vector<float> scales_;  // of the FP8 matrix written last
};

void Generator::write_rows(const SynthTensor& t) {
  const Index cols = t.shape.back();
  const Index rows =
      std::accumulate(t.shape.begin(), t.shape.end() - 1, Index{1}, std::multiplies<>());
  if (t.dtype == DType::f8_e4m3) {
    scales_.assign(static_cast<std::size_t>(ceil_div(rows, kFp8Block) * ceil_div(cols, kFp8Block)),
                   0);
  }
  // A task is a whole number of block rows, a round a few megabytes: the file streams through
  // memory.
  const Index task_rows = kFp8Block, round_rows = 16 * task_rows,
              bytes_per_row = row_bytes(t.dtype, cols);
  for (Index begin = 0; begin < rows; begin += round_rows) {
    throw_if_interrupted();
    const Index n = std::min(round_rows, rows - begin);
    buffer_.resize(static_cast<std::size_t>(n * bytes_per_row));
    pool_.parallel_for(n, task_rows, [&](Index first, Index end, int) {
      make_rows(t, begin + first, end - first, buffer_.data() + first * bytes_per_row);
    });
    append(buffer_);
  }
}

void Generator::make_rows(const SynthTensor& t, Index first, Index n, std::byte* out) {
  const Index cols = t.shape.back(), bytes_per_row = row_bytes(t.dtype, cols);
  std::vector<float> x(static_cast<std::size_t>(t.dtype == DType::f8_e4m3 ? n * cols : cols), 1.0F);
  const bool ones = t.fill == SynthTensor::Fill::kOnes;
  const std::uint64_t key = key_of(t.stream);
  for (Index r = 0; r < n; ++r) {
    const bool fp8 = t.dtype == DType::f8_e4m3;
    float* row = x.data() + (fp8 ? r * cols : 0);
    if (!ones) fill_normal(Philox(options_.seed, key, first + r), t.deviation, row, cols);
    if (t.dtype == DType::q4_k) {
      encode_q4_k_min_max(row, out + r * bytes_per_row, cols);
    } else if (!fp8) {
      quantize_row(t.dtype, row, out + r * bytes_per_row, cols);
    }
  }
  if (t.dtype == DType::f8_e4m3) encode_fp8(x.data(), first, n, cols, out);
}

/// One block row: a scale for each 128 columns, so that the largest value becomes 448.
void Generator::encode_fp8(const float* x, Index first, Index rows, Index cols, std::byte* out) {
  KOGIA_CHECK(first % kFp8Block == 0 && rows <= kFp8Block);
  const Index blocks = ceil_div(cols, kFp8Block);
  for (Index b = 0; b < blocks; ++b) {
    const Index begin = b * kFp8Block, end = std::min(begin + kFp8Block, cols);
    float top = 0;
    for (Index r = 0; r < rows; ++r) {
      for (Index c = begin; c < end; ++c) top = std::max(top, std::fabs(x[r * cols + c]));
    }
    const float scale = top > 0 ? top / kE4m3Max : 1;
    scales_[static_cast<std::size_t>(first / kFp8Block * blocks + b)] = scale;
    for (Index r = 0; r < rows; ++r) {
      for (Index c = begin; c < end; ++c) {
        out[r * cols + c] = static_cast<std::byte>(f32_to_e4m3(x[r * cols + c] / scale));
      }
    }
  }
}

void write_all(const SynthOptions& options, const std::vector<SynthTensor>& plan,
               TensorWriter& writer) {
  for (const SynthTensor& t : plan) writer.declare(t.name, t.dtype, t.shape);
  writer.begin();
  Generator generator(options, writer);
  for (const SynthTensor& t : plan) generator.write(t);
  writer.commit();
}

DType gguf_matrix(const std::string& weights) {
  const std::vector<std::string> known = synth_weights();
  if (weights != "FP8" && std::ranges::find(known, weights) != known.end()) {
    return *parse_dtype(weights);
  }
  throw Error(ErrorCode::kUsage,
              fmt::format("a GGUF cannot hold {}, expected BF16, Q8_0, Q4_K, Q5_K, IQ4_NL or MXFP4",
                          weights),
              "FP8 goes into a folder: -o NAME");
}

bool folder_fp8(const std::string& weights) {
  if (weights == "BF16" || weights == "FP8") return weights == "FP8";
  throw Error(ErrorCode::kUsage,
              fmt::format("a folder of safetensors cannot hold {}, expected BF16 or FP8", weights),
              "quantised blocks go into a GGUF: -o NAME.gguf");
}

}  // namespace

std::vector<std::string> synth_names() {
  return {"mini", "v2-lite", "r1-distill-qwen-1.5b", "v3-tiny"};
}

std::vector<std::string> synth_weights() {
  return {"BF16", "FP8", "Q8_0", "Q4_K", "Q5_K", "IQ4_NL", "MXFP4"};
}

void synthesize(const SynthOptions& options) { synthesize(options, synth_config(options.name)); }

void synthesize(const SynthOptions& options, const ModelConfig& config) {
  if (options.output.extension() == ".gguf") {
    const DType matrix = gguf_matrix(options.weights);
    GgufWriter writer(options.output);
    set_gguf_keys(writer, config, options.name);
    write_all(options, plan_gguf(config, matrix), writer);
  } else {
    const bool fp8 = folder_fp8(options.weights);
    SafetensorsWriter writer(options.output);
    writer.add_text("config.json", synth_config_json(config, fp8));
    write_all(options, plan_folder(config, fp8), writer);
  }
}

}  // namespace kogia
