#pragma once
// A weight in panels (cpu/packed.h), or on the way there.

#include <memory>

#include "device/cpu/packed.h"
#include "device/device.h"

namespace kogia {

class PackedMatrix final : public Matrix {
 public:
  /// `packed`: as pack_panels() wrote it; null: the matrix is borrowed, and the source must outlive
  /// it.
  PackedMatrix(const MatrixSource& source, const PackOptions& options, const PackedView& layout,
               std::shared_ptr<const std::byte> packed);

  /// Its data are null where the matrix is borrowed.
  const PackedView& view() const { return view_; }
  bool borrowed() const { return packed_ == nullptr; }
  /// Panels [begin, end) of a borrowed matrix, to (end - begin) * panel_bytes.
  void pack(Index begin, Index end, std::byte* to) const;
  /// Row r as dequantize_row() gives it, bit for bit, scales of FP8 applied.
  void decode_row(Index r, float* dst) const;

 private:
  void fill_table();

  struct ScaleMin {
    float scale = 1, min = 0;
  };
  GroupAt group_of(Index row, Index group) const;
  /// Column of its second plane.
  Index high_column(const GroupAt& at, Index c) const;
  float value_at(const GroupAt& at, Index lane, Index c) const;  // without its scale
  ScaleMin scale_at(const GroupAt& at, Index lane) const;

  PackedView view_;
  std::shared_ptr<const std::byte> packed_;
  MatrixSource source_;  // where borrowed
  bool transpose_;
  std::uint16_t table_[130] = {};  // two more, since gathers read 32 bits
};

}  // namespace kogia
