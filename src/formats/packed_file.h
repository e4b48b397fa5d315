#pragma once
// Packed weights kept in a file (*.kpk), so that the next start maps them. Little-endian:
//
//   "KOGIAKPK", version u32, byte order u32 (0x01020304), table size u64, file size u64,
//   hash of the table u64, hash of these 40 bytes u64, 16 zeros
//   table    source files: count u64, each path, size u64, mtime i64 (ns), hash u64 of its header
//            matrices: count u64, each id, form, variant u32, offset u64, size u64,
//            hash u64 of what it was packed from, hash u64 of what it was packed to
//            a text is a u32 length and bytes
//   matrices in the order of the table, each at a multiple of 4096; the file ends with the last
//
// Hashes are XXH3. Those of matrices are sums over parts (model/weight_packer.h): opening a file
// does not read them.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/index.h"

namespace kogia {

inline constexpr Index kPackedAlignment = 4096;
/// Some 200 bytes for a matrix; DeepSeek-V3 has 60 000.
inline constexpr Index kMaxPackedTable = Index{256} << 20;

/// A file that weights were packed from.
struct PackedSource {
  std::string path;  // absolute
  Index n_bytes = 0;
  std::int64_t mtime_ns = 0;
  std::uint64_t head_hash = 0;

  bool operator==(const PackedSource&) const = default;
};

struct PackedEntry {
  std::string id, form;  // which matrix, and its layout
  int variant = 0;
  Index offset = 0, n_bytes = 0;  // in the file
  std::uint64_t source_hash = 0, packed_hash = 0;
};

struct PackedTable {
  std::vector<PackedSource> sources;
  std::vector<PackedEntry> entries;
};

/// Where the first matrix begins; offsets and hashes do not matter.
Index packed_data_begin(const PackedTable& table);
/// What stands before the matrices, packed_data_begin() bytes.
std::vector<std::byte> write_packed_head(const PackedTable& table);

/// Reads and checks what a file begins with and that all matrices lie in it, apart and aligned.
/// Errors: Error (kInvalid) that begins with `name`. Memory: a small multiple of the table.
PackedTable parse_packed_file(std::span<const std::byte> file, const std::string& name);

}  // namespace kogia
