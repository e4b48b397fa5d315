// Importance matrices in both formats of llama.cpp, whole and damaged.

#include "formats/imatrix.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/file_builders.h"
#include "formats/gguf_bytes.h"

namespace kogia::test {
namespace {

ImportanceMatrix parse(const std::string& bytes) {
  return ImportanceMatrix::parse({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
                                 "imatrix.dat");
}

std::string entry(const std::string& name, const std::vector<float>& values) {
  std::string out = bytes_of(static_cast<std::int32_t>(name.size())) + name +
                    bytes_of(std::int32_t{7}) + bytes_of(static_cast<std::int32_t>(values.size()));
  for (const float v : values) out += bytes_of(v);
  return out;
}

std::string legacy() {
  return bytes_of(std::int32_t{2}) + entry("blk.0.attn_q.weight", {1, 2, 3}) +
         entry("blk.0.ffn_down.weight", {0, 0.5F});
}

std::string gguf(const std::vector<float>& sums, const std::vector<float>& counts,
                 const std::string& counts_name = "blk.0.ffn_up_exps.weight.counts") {
  GgufBytes file;
  file.text("general.type", "imatrix");
  file.tensor("blk.0.ffn_up_exps.weight.in_sum2", {sums.size() / 2, 2}, 0, 0);
  file.tensor(counts_name, {1, counts.size()}, 0, 32);
  for (const float v : sums) file.data += bytes_of(v);
  file.data.resize(32);
  for (const float v : counts) file.data += bytes_of(v);
  return file.bytes();
}

std::string refusal(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

std::vector<float> values(const ImportanceMatrix& m, std::string_view name, Index n) {
  const auto found = m.find(name, n);
  return {found.begin(), found.end()};
}

TEST(Imatrix, TheLegacyFormatIsReadWithAndWithoutItsEnd) {
  for (const std::string& bytes :
       {legacy(), legacy() + bytes_of(std::int32_t{100}) + bytes_of(std::int32_t{4}) + "wiki"}) {
    const ImportanceMatrix m = parse(bytes);
    EXPECT_EQ(m.n_entries(), 2);
    EXPECT_EQ(values(m, "blk.0.attn_q.weight", 3), (std::vector<float>{1, 2, 3}));
    EXPECT_EQ(values(m, "blk.0.ffn_down.weight", 2), (std::vector<float>{0, 0.5F}));
    EXPECT_TRUE(m.find("blk.1.attn_q.weight", 3).empty());
  }
}

TEST(Imatrix, TheGgufFormatDividesByTheCountOfEachExpert) {
  const ImportanceMatrix m = parse(gguf({2, 4, 9, 9}, {2, 0}));
  EXPECT_EQ(values(m, "blk.0.ffn_up_exps.weight", 4), (std::vector<float>{1, 2, 1, 1}));
}

TEST(Imatrix, AMatrixOfAnotherSizeIsRefusedByName) {
  const ImportanceMatrix m = parse(legacy());
  try {
    m.find("blk.0.attn_q.weight", 4);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("blk.0.attn_q.weight has 3 values"), std::string::npos);
  }
}

TEST(Imatrix, DamageIsRefusedInWords) {
  const std::string whole = legacy();
  for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_NE(refusal(whole.substr(0, n)), "") << n;
  EXPECT_NE(refusal(bytes_of(std::int32_t{2000000000}) + std::string(100, '\1')), "");
  EXPECT_NE(refusal(bytes_of(std::int32_t{1}) + entry("x", {NAN})), "");
  EXPECT_NE(refusal(bytes_of(std::int32_t{1}) + entry("x", {-1})), "");
  EXPECT_NE(refusal(bytes_of(std::int32_t{2}) + entry("x", {1}) + entry("x", {1})), "");
  EXPECT_NE(refusal(gguf({1, 2, 3, 4}, {1, 1, 1})), "");
  EXPECT_NE(refusal(gguf({1, 2, 3, INFINITY}, {1, 1})), "");
  EXPECT_NE(refusal(gguf({1, 2, 3, 4}, {1, 1}, "other.counts")), "");
  EXPECT_NE(refusal(GgufBytes().text("general.type", "model").bytes()), "");
  survive_damage(legacy(), parse);
  survive_damage(gguf({2, 4, 9, 9}, {2, 0}), parse);
}

}  // namespace
}  // namespace kogia::test
