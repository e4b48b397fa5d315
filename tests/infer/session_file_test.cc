// Saved sessions: they come back as they were, and nothing else does.

#include "infer/session_file.h"

#include <filesystem>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/device.h"
#include "infer/cache_fingerprint.h"
#include "infer/page_testing.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

constexpr Index kBytes = 96;
const std::string kHere = "weights: 12\ndevice: cpu/avx2\narithmetic: 1 77\n";

struct Example {
  std::vector<TokenId> ids;
  std::vector<Bytes> pages;
  std::vector<std::span<const std::byte>> spans;
};

Example example(int n_ids) {
  Example e;
  e.ids.resize(static_cast<std::size_t>(n_ids));
  std::iota(e.ids.begin(), e.ids.end(), 5);
  for (Index i = 0; i < n_ids / kPageTokens; ++i) {
    e.pages.push_back(contents_of({{1, static_cast<std::uint64_t>(i)}}, kBytes));
  }
  e.spans.assign(e.pages.begin(), e.pages.end());
  return e;
}

std::string saved(const TempDir& dir, int n_ids) {
  const Example e = example(n_ids);
  save_session_file(dir / "s", kHere, e.ids, e.spans);
  return read_file(dir / "s");
}

std::string refusal(std::string_view bytes, const std::string& here = kHere,
                    Index page_bytes = kBytes) {
  try {
    parse_session_file(std::as_bytes(std::span(bytes)), "s.kogia", here, page_bytes);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalid);
    return e.what();
  }
  return "read";
}

TEST(SessionFile, ComesBackAsItWasSaved) {
  const TempDir dir;
  for (const int n_ids : {0, 1, 63, 64, 65, 200}) {
    const Example e = example(n_ids);
    save_session_file(dir / "s", kHere, e.ids, e.spans);
    const SessionFile back = load_session_file(dir / "s", kHere, kBytes);
    EXPECT_EQ(back.ids, e.ids);
    EXPECT_EQ(back.pages, e.pages);
  }
}

TEST(SessionFile, WithAnyBitDamagedIsRefused) {
  const TempDir dir;
  const std::string file = saved(dir, 70);
  for (std::size_t i = 0; i < 8 * file.size(); ++i) {
    std::string damaged = file;
    damaged[i / 8] = static_cast<char>(damaged[i / 8] ^ (1 << i % 8));
    ASSERT_THAT(refusal(damaged),
                testing::AnyOf(testing::StartsWith("s.kogia: damaged"),
                               testing::StartsWith("s.kogia: not a saved session"),
                               testing::StartsWith("s.kogia: a session of version")))
        << i;
  }
}

TEST(SessionFile, OfAnotherLengthIsRefused) {
  const TempDir dir;
  const std::string file = saved(dir, 70);
  for (std::size_t n = 0; n < file.size(); ++n) {
    ASSERT_NE(refusal(file.substr(0, n)), "read") << n;
  }
  EXPECT_THAT(refusal(file + "x"), testing::HasSubstr("damaged"));
  EXPECT_THAT(refusal(""), testing::HasSubstr("not a saved session"));
}

TEST(SessionFile, OfAnotherModelIsRefusedByWhatDiffers) {
  const TempDir dir;
  const std::string file = saved(dir, 70);
  const std::string other = "weights: 12\ndevice: cpu/avx512\narithmetic: 1 78\n";
  const std::string why = refusal(file, other);
  EXPECT_THAT(why, testing::HasSubstr("device cpu/avx2, here cpu/avx512"));
  EXPECT_THAT(why, testing::HasSubstr(fingerprint_digest(kHere)));
  EXPECT_THAT(why, testing::HasSubstr(fingerprint_digest(other)));
  EXPECT_THAT(why, testing::Not(testing::HasSubstr("arithmetic 1")));
  EXPECT_THAT(refusal(file, "weights: 12\ndevice: cpu/avx2\narithmetic: 2 77\n"),
              testing::HasSubstr("arithmetic 1 77, here 2 77"));
  EXPECT_THAT(refusal(file, "weights: 13\n"), testing::HasSubstr("weights 12, here 13"));
  EXPECT_THAT(refusal(file, "cache: f32\n"), testing::HasSubstr("cache missing, here f32"));
  EXPECT_THAT(refusal(file, kHere, 95), testing::HasSubstr("pages of 96 bytes, expected 95"));
}

TEST(SessionFile, ThatCannotBeWrittenIsAnError) {
  const TempDir dir;
  const Example e = example(3);
  EXPECT_THROW(save_session_file(dir / "no" / "s", kHere, e.ids, e.spans), Error);
  EXPECT_THROW(load_session_file(dir / "none", kHere, kBytes), Error);
}

}  // namespace
}  // namespace kogia::test
