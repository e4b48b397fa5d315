// The fingerprint of a cache: one for equal bits, another for whatever could change one.

#include "infer/cache_fingerprint.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "infer/file_hash.h"
#include "infer/score.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;

std::string fingerprint(const fs::path& path, EngineOptions options = {}) {
  options.ctx = 64;
  options.show_progress = false;
  return cache_fingerprint(*Engine::open(path, options));
}

EngineOptions threads(int n) {
  EngineOptions options;
  options.cpu.n_threads = n;
  return options;
}

class Fingerprint : public testing::Test {
 protected:
  fs::path copy(const std::string& name, const std::string& as) {
    fs::copy(golden_folder(name), dir_ / as, fs::copy_options::recursive);
    return dir_ / as;
  }
  TempDir dir_;
};

TEST_F(Fingerprint, IsOfTheContentsAlone) {
  const fs::path a = copy("v3", "a"), b = copy("v3", "b");
  const std::string expected = fingerprint(a, threads(1));
  for (const auto& entry : fs::recursive_directory_iterator(b)) {
    fs::last_write_time(entry.path(), fs::file_time_type::clock::now() - std::chrono::hours(5));
  }
  EXPECT_EQ(fingerprint(b, threads(2)), expected) << "path, time, threads";
  EngineOptions mapped = threads(1);
  mapped.packing.borrow = true;
  mapped.chunk = 7;
  mapped.load_mtp = true;  // its layers' caches lie apart
  EXPECT_EQ(fingerprint(a, mapped), expected) << "weights that are not packed, chunks";
  EXPECT_THAT(expected, testing::Not(testing::HasSubstr(dir_.path().string())));
}

TEST_F(Fingerprint, DiffersWithWhateverChangesABit) {
  const fs::path model = golden_folder("v3");
  std::map<std::string, std::string> all;
  const auto add = [&](const std::string& what, const fs::path& path,
                       const EngineOptions& options) { all[what] = fingerprint(path, options); };
  add("plain", model, threads(1));
  EngineOptions o = threads(1);
  o.mla = MlaForm::kExpanded;
  add("expanded", model, o);
  o.mla = MlaForm::kAuto;
  add("auto", model, o);
  o = threads(1);
  o.cache_dtype = DType::f32;
  add("f32", model, o);
  o.cache_dtype = DType::bf16;
  add("bf16", model, o);
  o = threads(1);
  o.cpu.isa = Isa::scalar;
  add("scalar", model, o);
  // One weight.
  const fs::path other = copy("v3", "other");
  for (const auto& entry : fs::directory_iterator(other)) {
    if (entry.path().extension() != ".safetensors") continue;
    std::string bytes = read_file(entry.path());
    bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
    dir_.write("other/" + entry.path().filename().string(), bytes);
  }
  add("weight", other, threads(1));
  std::set<std::string> different;
  for (const auto& [what, text] : all) different.insert(text);
  // The default type of the cache is one of the two.
  EXPECT_EQ(different.size(), all.size() - 1) << testing::PrintToString(all);
  EXPECT_THAT(fingerprint_difference(all["weight"], all["plain"]), testing::StartsWith("weights "));
  EXPECT_THAT(fingerprint_difference(all["scalar"], all["plain"]),
              testing::HasSubstr("device cpu/scalar, here "));
  EXPECT_EQ(fingerprint_difference(all["auto"], all["plain"]), "mla auto, here absorbed");
}

// Two vendors' AVX-512 multiply the cache in bf16 and in f32; only the numbers tell.
TEST_F(Fingerprint, SeesWhatNoNameSays) {
  if (available_isas().back() != Isa::avx512) GTEST_SKIP() << "needs avx512";
  EngineOptions a = threads(1), b = threads(1);
  a.compute = b.compute = Compute::bf16;
  a.cache_dtype = b.cache_dtype = DType::bf16;
  a.cpu.slow_bf16 = false;
  b.cpu.slow_bf16 = true;
  const std::string difference = fingerprint_difference(fingerprint(golden_folder("v3"), a),
                                                        fingerprint(golden_folder("v3"), b));
  EXPECT_THAT(difference, testing::StartsWith("arithmetic 2 "));
  EXPECT_THAT(difference, testing::HasSubstr("another kind of processor"));
}

// -----------------------------------------------------------------------------------------------
// Hashes of files

class FileHash : public testing::Test {
 protected:
  Hash128 hash(const fs::path& path) {
    return file_hash(MappedFile::open(path), *device_, {.cache_folder = dir_ / "cache"});
  }
  std::vector<fs::path> records() const {
    std::vector<fs::path> files;
    if (fs::exists(dir_ / "cache/hashes")) {
      for (const auto& e : fs::directory_iterator(dir_ / "cache/hashes")) files.push_back(e.path());
    }
    return files;
  }
  TempDir dir_;
  std::unique_ptr<Device> device_ = make_cpu_device({.n_threads = 2, .isa = {}});
  fs::path old_ = fs::path(KOGIA_TEST_DATA) / "golden/v3/config.json";
};

TEST_F(FileHash, OfAFileThatHasNotChangedIsKept) {
  const Hash128 right = hash(old_);
  ASSERT_EQ(records().size(), 1u);
  // A record that says otherwise is believed: so it is read, and not the file.
  const std::string text = read_file(records()[0]);
  std::string other = text.substr(0, text.size() - 17);
  other[other.size() - 2] = other[other.size() - 2] == '0' ? '1' : '0';
  other += fmt::format("{:016x}\n", hash_bytes(std::as_bytes(std::span(other))));
  dir_.write("cache/hashes/" + records()[0].filename().string(), other);
  EXPECT_NE(hash(old_), right);
  // A damaged one is not.
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    dir_.write("cache/hashes/" + records()[0].filename().string(), damaged);
    ASSERT_EQ(hash(old_), right) << i;
  }
}

TEST_F(FileHash, OfAFileJustWrittenIsNotKept) {
  const fs::path file = dir_.write("new", "text");
  const Hash128 before = hash(file);
  EXPECT_TRUE(records().empty());
  const auto time = fs::last_write_time(file);
  dir_.write("new", "Text");
  fs::last_write_time(file, time);
  EXPECT_NE(hash(file), before);
}

TEST_F(FileHash, IsOfAllPieces) {
  std::string bytes((std::size_t{16} << 20) * 2 + 5, 'x');
  const Hash128 whole = hash(dir_.write("big", bytes));
  for (const std::size_t at : {std::size_t{0}, std::size_t{16} << 20, bytes.size() - 1}) {
    std::string other = bytes;
    other[at] = 'y';
    EXPECT_NE(hash(dir_.write("other", other)), whole) << at;
  }
  EXPECT_EQ(hash(dir_.write("same", bytes)), whole);
  EXPECT_NE(hash(dir_.write("longer", bytes + "x")), whole);
  EXPECT_EQ(hash(dir_.write("empty", "")), hash(dir_.write("void", "")));
}

// -----------------------------------------------------------------------------------------------
// The version of the arithmetic

struct Processor {
  Isa isa = Isa::scalar;
  bool slow_bf16 = false;  // decides what AVX-512 multiplies in
  std::string hash;
};

/// Logits of many positions: they depend on all that is cached.
void add_numbers(Hasher128& hasher, const std::string& model, const Processor& processor) {
  EngineOptions options = threads(1);
  options.cpu.isa = processor.isa;
  options.cpu.slow_bf16 = processor.slow_bf16;
  options.ctx = 256;
  options.show_progress = false;
  const auto engine = Engine::open(golden_folder(model), options);
  const Index vocab = engine->model().config().vocab_size;
  std::vector<TokenId> ids;
  for (Index i = 0; i < 130; ++i) ids.push_back(static_cast<TokenId>(i * i % vocab));
  for_each_logits(*engine, ids, [&](Index, std::span<const float> logits) {
    hasher.update(std::as_bytes(logits));
  });
}

// Whoever finds this red has changed bits that saved sessions and caches on disk rely on. If that
// was meant, raise kCacheArithmetic and put the new hashes here. (NEON's were never taken.)
TEST(CacheArithmetic, ItsBitsAreThoseOfItsVersion) {
  static_assert(kCacheArithmetic == 2);
  const std::vector<Processor> processors = {
      {Isa::scalar, false, "74e83150567d97ad0339a90c0e2c1f34"},
      {Isa::avx2, false, "d583d9a8e6b646c42a4f80ee12a64a14"},
      {Isa::avx512, false, "064401b56027b27a1e255d38630deb76"},
      {Isa::avx512, true, "fd21d274d6ffe460f76a8307de6a0a63"}};
  const std::vector<Isa> here = available_isas();
  for (const Processor& processor : processors) {
    if (std::ranges::find(here, processor.isa) == here.end()) continue;
    Hasher128 hasher;
    for (const char* model : {"v2_lite", "v3", "v3_fp8", "qwen2", "llama", "v3_quantised/new.gguf",
                              "qwen2_quantised/new.gguf"}) {
      add_numbers(hasher, model, processor);
    }
    EXPECT_EQ(hasher.finish().hex(), processor.hash) << name(processor.isa) << processor.slow_bf16;
  }
}

}  // namespace
}  // namespace kogia::test
