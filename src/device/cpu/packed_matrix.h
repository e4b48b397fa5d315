#pragma once
// Packs a matrix as a checkpoint stores it into panels (cpu/packed.h).

#include <memory>
#include <new>

#include "device/cpu/block_codes.h"
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

  struct ScaleMin {
    float scale = 1, min = 0;
  };
  GroupAt group_of(Index row, Index group) const;
  std::byte* at(const std::byte* place) { return bytes_.get() + (place - bytes_.get()); }
  /// Column of its second plane.
  Index high_column(const GroupAt& at, Index c) const;
  void put_code(const GroupAt& to, Index lane, Index c, int code);
  /// Of group g of a block.
  void put_scale(const GroupAt& to, Index lane, const BlockCodes& block, Index g);
  void put_value(Index row, Index col, float value);
  float value_at(const GroupAt& at, Index lane, Index c) const;  // without its scale
  ScaleMin scale_at(const GroupAt& at, Index lane) const;

  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  PackedView view_;
  std::unique_ptr<std::byte[], Free> bytes_;
  std::uint16_t table_[130] = {};  // two more, since gathers read 32 bits
};

}  // namespace kogia
