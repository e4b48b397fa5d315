#pragma once
// From rows as a checkpoint stores them to panels (cpu/packed.h).

#include "device/cpu/packed.h"
#include "device/device.h"

namespace kogia {

/// What of its values the layout of a matrix depends on: 1 for a Q8_0 without -128, whose codes can
/// be signs and magnitudes, else 0. Where that matters it looks at all of the source.
int panel_variant(const MatrixSource& source, const PackOptions& options, bool pair_products);

/// The layout of a matrix: its view but for data and table. pair_products: whether the kernels
/// multiply bf16 pairs; without, codes are decoded to f32. Reads nothing of the source.
PackedView panel_layout(const MatrixSource& source, const PackOptions& options, bool pair_products,
                        int variant);

/// Equal names mean equal bytes: kPanelsVersion, the format and all that places a code.
std::string panel_layout_name(const MatrixSource& source, const PackedView& layout);

/// "8-bit codes", "f32": what the panels hold instead of the source's own codes, where that is
/// wider. Empty where they hold those.
std::string repacked_as(const MatrixSource& source, const PackedView& layout);

/// Writes panels [begin, end) of the matrix to `to`, (end - begin) * panel_bytes.
void pack_panels(const MatrixSource& source, bool transpose, const PackedView& layout, Index begin,
                 Index end, std::byte* to);

}  // namespace kogia
