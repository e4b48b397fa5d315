#pragma once
// Packs a matrix as a checkpoint stores it into panels (cpu/packed.h).

#include <memory>
#include <new>

#include "device/cpu/packed.h"
#include "device/device.h"

namespace kogia {

class PackedMatrix final : public Matrix {
 public:
  /// bf16_products: whether the kernels multiply bf16 pairs; without, codes are decoded to f32.
  PackedMatrix(const MatrixSource& source, const PackOptions& options, bool bf16_products);

  const PackedView& view() const { return view_; }
  /// Row r as dequantize_row() gives it, bit for bit, scales of FP8 applied.
  void decode_row(Index r, float* dst) const;

 private:
  void choose_layout(const MatrixSource& source, bool transpose, bool bf16_products);
  void allocate();
  void fill_table();
  void pack_blocks(const MatrixSource& source);
  void pack_fp8(const MatrixSource& source);
  void pack_values(const MatrixSource& source, bool transpose);

  Index chunk_at(Index row, Index col) const;  // where the codes of 8 columns begin
  /// Column c of a chunk; nibble, int8 or FP8.
  void put_code(std::byte* chunk, Index lane, Index c, int code) const;
  void put_value(Index row, Index col, float value);
  void put_scale(Index row, Index record, float scale, float min);
  float value_at(Index row, Index col) const;  // without its scale
  float scale_at(Index row, Index group, bool min) const;

  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  PackedView view_;
  std::unique_ptr<std::byte[], Free> bytes_;
  std::uint16_t table_[130] = {};  // two more, since gathers read 32 bits
  int lowest_ = 0;                 // value of nibble 0
};

}  // namespace kogia
