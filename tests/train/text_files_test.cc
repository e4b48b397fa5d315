// Documents come out of plain and packed files as they are, and what is damaged is named.

#include "train/text_files.h"

#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include "base/error.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string gzip(const std::string& text) {
  z_stream z{};
  deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::vector<std::string> documents(const fs::path& path, const TextFileOptions& options = {}) {
  std::vector<std::string> found;
  for_each_document(path, options, [&](std::string_view text) { found.emplace_back(text); });
  return found;
}

std::string refusal(const fs::path& path, const TextFileOptions& options = {}) {
  try {
    documents(path, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "read";
}

class TextFiles : public testing::Test {
 protected:
  fs::path file(const std::string& name, const std::string& bytes) {
    write(folder_.path() / name, bytes);
    return folder_.path() / name;
  }
  TempDir folder_;
};

TEST_F(TextFiles, ATextIsOneDocumentAndALineOfJsonIsOne) {
  EXPECT_THAT(documents(file("a.txt", "one\n\ntwo\r\n")), ElementsAre("one\n\ntwo\r\n"));
  EXPECT_THAT(documents(file("empty.txt", "")), ElementsAre());
  EXPECT_THAT(
      documents(file("a.jsonl", "{\"text\":\"one\\ntwo\"}\n\n  \n{\"x\":1,\"text\":\"\\u00e9\"}")),
      ElementsAre("one\ntwo", "é"));
  EXPECT_THAT(documents(file("b.jsonl", "{\"a\":{\"b\":\"deep\"}}\n"), {.field = "a.b"}),
              ElementsAre("deep"));
}

TEST_F(TextFiles, PackedFilesAreUnpacked) {
  std::string lines;
  std::vector<std::string> expected;
  for (int i = 0; i < 30000; ++i) {
    expected.push_back("document " + std::to_string(i * 7919));
    lines += "{\"text\":\"" + expected.back() + "\"}\n";
  }
  EXPECT_EQ(documents(file("a.jsonl.gz", gzip(lines))), expected);
  EXPECT_EQ(documents(file("a.jsonl.zst", zstd(lines))), expected);
  const std::string half = lines.substr(0, lines.size() / 2), rest = lines.substr(half.size());
  EXPECT_EQ(documents(file("two.jsonl.gz", gzip(half) + gzip(rest))), expected);
  EXPECT_EQ(documents(file("two.jsonl.zst", zstd(half) + zstd(rest))), expected);
  EXPECT_THAT(documents(file("zeros.txt.zst", zstd(std::string(5000000, 'z')))),
              ElementsAre(std::string(5000000, 'z')));
}

TEST_F(TextFiles, WhatIsWrongIsNamedWithItsPlace) {
  EXPECT_THAT(refusal(file("a.jsonl", "{\"text\":\"x\"}\n{\"text\":1}\n")),
              HasSubstr("a.jsonl:2: no string 'text'"));
  EXPECT_THAT(refusal(file("a.jsonl", "{\"text\":\"x\"}\n\n{oops}\n")),
              HasSubstr("a.jsonl:3: no JSON"));
  EXPECT_THAT(refusal(file("a.jsonl", "[1]\n")), HasSubstr("a.jsonl:1: no string 'text'"));
  EXPECT_THAT(refusal(file("a.pdf", "x")), HasSubstr("a file of another kind"));
  EXPECT_THAT(refusal(folder_.path() / "none.txt"), HasSubstr("none.txt: No such file"));
  EXPECT_THAT(refusal(file("long.txt", std::string(1000, 'x')), {.max_document_bytes = 999}),
              HasSubstr("a document of more than 999 bytes"));
}

TEST_F(TextFiles, DamagedPackingIsNoText) {
  const std::string text(100000, 'q'), gz = gzip(text), zst = zstd(text);
  EXPECT_THAT(refusal(file("cut.txt.gz", gz.substr(0, gz.size() / 2))),
              HasSubstr("it ends too early"));
  EXPECT_THAT(refusal(file("cut.txt.zst", zst.substr(0, zst.size() / 2))),
              HasSubstr("it ends too early"));
  EXPECT_THAT(refusal(file("no.txt.gz", text)), HasSubstr("cannot be unpacked"));
  EXPECT_THAT(refusal(file("no.txt.zst", text)), HasSubstr("cannot be unpacked"));
}

TEST_F(TextFiles, ProgressIsOfTheFileItself) {
  const std::string packed = gzip(std::string(3000000, 'x'));
  Index n = 0;
  for_each_document(
      file("a.txt.gz", packed), {}, [](std::string_view) {}, [&](Index m) { n += m; });
  EXPECT_EQ(n, static_cast<Index>(packed.size()));
}

}  // namespace
}  // namespace kogia::test
