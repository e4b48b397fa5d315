// Rows of a corpus: the same whenever they are asked for, every text once an epoch, nothing leaks.

#include "train/corpus.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "base/error.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

constexpr Hash128 kKey{{1, 2}};
constexpr Index kLength = 16;

/// Documents of lengths 1, 2, ... whose ids say which document and place they are.
std::unique_ptr<TokenFile> file_of(const TempDir& dir, const std::string& name, int n_documents,
                                   int first_id) {
  TokenFileWriter writer(dir / name, 70000, kKey);
  for (int d = 0; d < n_documents; ++d) {
    std::vector<std::int32_t> ids;
    for (int i = 0; i <= d; ++i) ids.push_back(first_id + 100 * d + i);
    writer.add_document(ids);
  }
  writer.commit();
  auto file = TokenFile::open(dir / name, kKey);
  EXPECT_NE(file, nullptr);
  return file;
}

class CorpusTest : public testing::Test {
 protected:
  std::unique_ptr<Corpus> two_sources(std::uint64_t seed = 7) {
    std::vector<Corpus::Source> sources;
    sources.push_back({file_of(dir_, "a", 20, 0), file_of(dir_, "a.held", 3, 50000), 3});
    sources.push_back({file_of(dir_, "b", 9, 10000), file_of(dir_, "b.held", 0, 0), 1});
    return std::make_unique<Corpus>(std::move(sources), kLength, seed);
  }
  TempDir dir_;
};

TEST_F(CorpusTest, RowsAreAFunctionOfTheirNumber) {
  const auto in_order = two_sources(), other = two_sources();
  std::vector<PackedRow> all;
  for (Index r = 0; r < 100; ++r) all.push_back(in_order->rows(r, 1)[0]);
  for (const Index first : {90, 0, 37, 38, 5}) {
    const auto rows = other->rows(first, 10);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(rows[i].ids, all[static_cast<std::size_t>(first) + i].ids);
      EXPECT_EQ(rows[i].document_begin, all[static_cast<std::size_t>(first) + i].document_begin);
    }
  }
  EXPECT_NE(two_sources(8)->rows(0, 1)[0].ids, all[0].ids);
}

TEST_F(CorpusTest, SourcesHaveTheirShares) {
  Index of_a = 0;
  const auto corpus = two_sources();
  for (const PackedRow& row : corpus->rows(0, 1000)) of_a += row.ids[0] < 10000 ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(of_a), 750, 1);
}

// Each token of a source comes once an epoch, in whole texts but where a row ends.
TEST_F(CorpusTest, EachTextComesOnceAnEpoch) {
  std::vector<Corpus::Source> sources;
  sources.push_back({file_of(dir_, "a", 20, 0), file_of(dir_, "held", 0, 0), 1});
  Corpus corpus(std::move(sources), kLength, 1);
  const Index n = corpus.n_train_tokens();
  ASSERT_EQ(n, 210);
  std::map<std::int32_t, int> seen;
  std::vector<std::int32_t> stream;
  for (const PackedRow& row : corpus.rows(0, 2 * n / kLength + 1)) {
    ASSERT_EQ(static_cast<Index>(row.ids.size()), kLength);
    EXPECT_EQ(row.document_begin[0], 0);
    for (std::size_t d = 0; d < row.document_begin.size(); ++d) {
      const Index begin = row.document_begin[d], end = row.document_end(d);
      ASSERT_LT(begin, end);
      for (Index i = begin + 1; i < end; ++i) {  // of one text, in its order
        EXPECT_EQ(row.ids[static_cast<std::size_t>(i)],
                  row.ids[static_cast<std::size_t>(i - 1)] + 1);
      }
      if (d > 0) {
        EXPECT_EQ(row.ids[static_cast<std::size_t>(begin)] % 100, 0) << "begins inside";
      }
    }
    stream.insert(stream.end(), row.ids.begin(), row.ids.end());
  }
  for (Index i = 0; i < n; ++i) ++seen[stream[static_cast<std::size_t>(i)]];
  EXPECT_EQ(static_cast<Index>(seen.size()), n);
  const std::vector<std::int32_t> first(stream.begin(), stream.begin() + n);
  const std::vector<std::int32_t> second(stream.begin() + n, stream.begin() + 2 * n);
  EXPECT_NE(first, second);
  EXPECT_TRUE(std::is_permutation(first.begin(), first.end(), second.begin()));
}

TEST_F(CorpusTest, HeldOutRowsAreFixed) {
  const auto corpus = two_sources();
  const auto rows = corpus->validation_rows(0);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].ids, (std::vector<std::int32_t>{50000, 50100, 50101, 50200, 50201, 50202}));
  EXPECT_EQ(rows[0].document_begin, (std::vector<Index>{0, 1, 3}));
}

TEST_F(CorpusTest, OfNothingIsRefused) {
  std::vector<Corpus::Source> sources;
  sources.push_back({file_of(dir_, "a", 0, 0), file_of(dir_, "held", 5, 0), 1});
  EXPECT_THROW(Corpus(std::move(sources), kLength, 1), Error);
}

// What is cut, longer, or of something else is not taken for tokens.
TEST_F(CorpusTest, DamagedTokensAreMadeAnew) {
  file_of(dir_, "a", 20, 0);
  EXPECT_EQ(TokenFile::open(dir_ / "a", {{1, 3}}), nullptr);
  EXPECT_EQ(TokenFile::open(dir_ / "none", kKey), nullptr);
  const std::string whole = read_file(dir_ / "a");
  for (std::size_t n = 0; n < whole.size(); n += 7) {
    dir_.write("cut", whole.substr(0, n));
    EXPECT_EQ(TokenFile::open(dir_ / "cut", kKey), nullptr) << n;
  }
  for (std::size_t at = whole.size() - 48; at < whole.size(); ++at) {  // the footer
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x41);
    dir_.write("changed", changed);
    const auto file = TokenFile::open(dir_ / "changed", kKey);
    if (file) {
      EXPECT_EQ(file->n_tokens(), 210) << at;
    }
  }
}

}  // namespace
}  // namespace kogia::test
