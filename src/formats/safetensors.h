#pragma once
// safetensors: an 8-byte little-endian header length, a JSON header, then tensor data.
//
//   { "name": {"dtype": "BF16", "shape": [out, in], "data_offsets": [begin, end)}, ...,
//     "__metadata__": {"key": "text"} }
//
// Offsets count from the end of the header. The data must be covered from first to last byte, each
// byte once. Offsets need not be aligned for the dtype.

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"

namespace kogia {

/// The cap of the reference implementation: 100 MB.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;

/// Reads and checks the header of one file that lies in memory; views point into `bytes`.
/// In the order of the header. `file` is for messages and for the entries.
/// Memory: a small multiple of the header's size.
std::vector<TensorEntry> parse_safetensors(std::span<const std::byte> bytes,
                                           const std::string& file);

/// The weight_map of a model.safetensors.index.json: tensor name to file name, which is a plain
/// name ending in .safetensors, without separators.
std::map<std::string, std::string> parse_safetensors_index(std::string_view text,
                                                           const std::string& file);

/// A file or a folder of files; see Checkpoint::open.
std::unique_ptr<Checkpoint> open_safetensors(const std::filesystem::path& path);
/// No tensors: the texts of a folder, or a config.json, whatever its name, and what lies beside it.
std::unique_ptr<Checkpoint> open_config_only_safetensors(const std::filesystem::path& path);

}  // namespace kogia
