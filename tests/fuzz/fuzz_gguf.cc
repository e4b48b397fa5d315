// A GGUF file from a stranger: read or refused; every byte a view promises is there, blocks of
// whatever bits decode, and panels of them hold the values of the file.

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/page_memory.h"
#include "device/cpu/pack_panels.h"
#include "device/cpu/packed_matrix.h"
#include "formats/gguf_reader.h"
#include "tensor/convert.h"

namespace {

using kogia::Index;

constexpr Index kMostValues = Index{1} << 14;  // of a tensor that is packed

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/// As a kernel of one kind wants them.
void pack_and_compare(const kogia::MatrixSource& source, kogia::Compute compute, bool pair_products,
                      const std::vector<float>& values) {
  const kogia::PackOptions options = {.compute = compute};
  const int variant = kogia::panel_variant(source, options, pair_products);
  const auto layout = kogia::panel_layout(source, options, pair_products, variant);
  const auto memory = kogia::allocate_pages(layout.n_panels() * layout.panel_bytes);
  kogia::pack_panels(source, /*transpose=*/false, layout, 0, layout.n_panels(), memory.get());
  const kogia::PackedMatrix matrix(source, options, layout, memory);
  std::vector<float> row(static_cast<std::size_t>(source.cols));
  for (Index r = 0; r < source.rows; ++r) {
    matrix.decode_row(r, row.data());
    for (Index c = 0; c < source.cols; ++c) {
      const float value = values[static_cast<std::size_t>(r * source.cols + c)];
      if (!same(row[static_cast<std::size_t>(c)], value)) __builtin_trap();
    }
  }
}

void decode_blocks(const kogia::TensorView& view) {
  if (!kogia::is_block(view.dtype) || view.n_values() == 0 || view.n_values() > kMostValues) return;
  std::vector<float> values(static_cast<std::size_t>(view.n_values()));
  kogia::dequantize_row(view.dtype, view.data, values.data(), view.n_values());
  const Index cols = view.shape.back();
  const kogia::MatrixSource source = {
      .dtype = view.dtype, .rows = view.n_values() / cols, .cols = cols, .data = view.data};
  for (const bool pair_products : {true, false}) {
    for (const auto compute : {kogia::Compute::bf16, kogia::Compute::int8}) {
      pack_and_compare(source, compute, pair_products, values);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    unsigned sum = 0;
    const auto contents =
        kogia::parse_gguf({reinterpret_cast<const std::byte*>(data), size}, "m.gguf");
    for (const kogia::TensorEntry& t : contents.tensors) {
      for (Index i = 0; i < t.view.n_bytes; ++i) sum += std::to_integer<unsigned>(t.view.data[i]);
      decode_blocks(t.view);
    }
    volatile unsigned keep = sum;
    static_cast<void>(keep);
  } catch (const kogia::Error&) {
  }
  return 0;
}
