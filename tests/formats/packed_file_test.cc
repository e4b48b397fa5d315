// Files of packed weights: what was written comes back; anything else is refused.

#include "formats/packed_file.h"

#include <cstring>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/hash.h"

namespace kogia::test {
namespace {

using Bytes = std::vector<std::byte>;

/// Two sources, three matrices; the places of matrices are right.
PackedTable example() {
  PackedTable table;
  table.sources = {{"/models/a-00001.gguf", 1000, 17, 5}, {"/models/a-00002.gguf", 2000, -18, 6}};
  for (const Index n : {5000, 64, 1}) {
    table.entries.push_back({.id = "blk." + std::to_string(n),
                             .form = "panels-1 f32",
                             .variant = static_cast<int>(n % 2),
                             .n_bytes = n,
                             .source_hash = 7,
                             .packed_hash = 8});
  }
  Index at = packed_data_begin(table);
  for (PackedEntry& e : table.entries) {
    e.offset = at;
    at = round_up(at + e.n_bytes, kPackedAlignment);
  }
  return table;
}

Bytes file_of(const PackedTable& table) {
  Bytes file = write_packed_head(table);
  const PackedEntry& last = table.entries.back();
  file.resize(static_cast<std::size_t>(last.offset + last.n_bytes), std::byte{9});
  return file;
}

std::string refusal(const Bytes& file) {
  try {
    parse_packed_file(file, "m.kpk");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalid);
    return e.what();
  }
  return "read";
}

TEST(PackedFile, ComesBackAsItWasWritten) {
  const PackedTable table = example(), back = parse_packed_file(file_of(table), "m.kpk");
  EXPECT_EQ(back.sources, table.sources);
  ASSERT_EQ(back.entries.size(), table.entries.size());
  for (std::size_t i = 0; i < table.entries.size(); ++i) {
    const PackedEntry &a = back.entries[i], &b = table.entries[i];
    EXPECT_EQ(std::tie(a.id, a.form, a.variant, a.offset, a.n_bytes, a.source_hash, a.packed_hash),
              std::tie(b.id, b.form, b.variant, b.offset, b.n_bytes, b.source_hash, b.packed_hash));
  }
}

TEST(PackedFile, MatricesBeginAtPagesAfterTheTable) {
  const PackedTable table = example();
  EXPECT_EQ(table.entries.front().offset % kPackedAlignment, 0);
  EXPECT_EQ(static_cast<Index>(write_packed_head(table).size()), packed_data_begin(table));
}

TEST(PackedFile, CutOffAnywhereItIsRefused) {
  const Bytes file = file_of(example());
  for (std::size_t n = 0; n < file.size(); n += n < 600 ? 1 : 97) {
    const std::string why = refusal({file.begin(), file.begin() + static_cast<std::ptrdiff_t>(n)});
    EXPECT_THAT(why, testing::StartsWith("m.kpk: ")) << n;
  }
  Bytes longer = file;
  longer.push_back({});
  EXPECT_THAT(refusal(longer), testing::HasSubstr("expected"));
}

// One bit anywhere in what it begins with, but for the zeros after the hashes.
TEST(PackedFile, WithADamagedHeadItIsRefused) {
  const Bytes file = file_of(example());
  const PackedTable table = example();
  Index head = 64;
  for (const PackedSource& s : table.sources) head += 28 + static_cast<Index>(s.path.size());
  for (std::size_t i = 0; i < static_cast<std::size_t>(head); ++i) {
    if (i >= 48 && i < 64) continue;
    Bytes damaged = file;
    damaged[i] ^= std::byte{0x10};
    EXPECT_THAT(refusal(damaged), testing::StartsWith("m.kpk: ")) << i;
  }
}

TEST(PackedFile, OfAnotherVersionItIsRefusedByName) {
  Bytes file = file_of(example());
  file[8] = std::byte{2};
  EXPECT_THAT(refusal(file), testing::HasSubstr("another version"));
}

// Hashes do not keep a stranger from writing what he likes.
TEST(PackedFile, WhereMatricesAreNotApartAndInsideItIsRefused) {
  const std::vector<std::function<void(PackedTable&)>> wrongs = {
      [](PackedTable& t) { t.entries[1].offset = t.entries[0].offset; },
      [](PackedTable& t) { t.entries[1].offset += 64; },
      [](PackedTable& t) { t.entries[0].offset = 0; },
      [](PackedTable& t) { t.entries[0].n_bytes = Index{1} << 62; },
      [](PackedTable& t) { t.entries[1].offset = INT64_MAX / 4096 * 4096; },
      [](PackedTable& t) { t.entries[2].n_bytes = 0; },
      [](PackedTable& t) { std::swap(t.entries[0], t.entries[1]); },
  };
  const Bytes good = file_of(example());
  for (std::size_t i = 0; i < wrongs.size(); ++i) {
    PackedTable table = example();
    wrongs[i](table);
    Bytes file = write_packed_head(table);
    file.resize(good.size());
    const std::uint64_t size = file.size();  // of the file as it is, whatever the table says
    std::memcpy(file.data() + 24, &size, sizeof(size));
    const std::uint64_t hash = hash_bytes(std::span(file).first(40));
    std::memcpy(file.data() + 40, &hash, sizeof(hash));
    EXPECT_THAT(refusal(file), testing::HasSubstr("damaged")) << i;
  }
}

}  // namespace
}  // namespace kogia::test
