// Where weights lie does not change what they say.

#include <cmath>
#include <cstring>
#include <string>

#include "base/random.h"
#include "formats/memory_checkpoint.h"
#include "model/model_runner.h"
#include "model/weight_packer.h"
#include "support/golden.h"
#include "tensor/convert.h"

namespace kogia::test {
namespace {

TEST(BorrowedWeights, GiveTheLogitsOfPackedOnesBitForBit) {
  for (const GoldenFile& file : golden_files()) {
    const Expected expected = read_expected(file.expected);
    const auto ids = std::span(expected.ids).first(std::min<std::size_t>(expected.ids.size(), 20));
    for (const Isa isa : available_isas()) {
      for (const MlaForm mla : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
        SCOPED_TRACE(file.name + " " + std::string(name(isa)));
        RunnerOptions options = {.isa = isa, .n_threads = 2, .compute = {}, .mla = mla};
        ModelRunner packed(file.path, options);
        options.packing.borrow = true;
        ModelRunner borrowed(file.path, options);
        EXPECT_EQ(borrowed.model().n_weight_bytes(), 0);
        Timeline a, b;
        EXPECT_EQ(borrowed.step(a, ids).logits, packed.step(b, ids).logits);
      }
    }
  }
}

/// Of two logits: the root of the mean square of their difference, by that of b.
double distance(std::span<const float> a, std::span<const float> b) {
  double difference = 0, square = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    square += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / square);
}

TEST(Guesses, AreNearlyTheLayersAndLeaveTheModelAlone) {
  int n = 0;
  for (const GoldenFile& file : golden_files()) {
    const Expected expected = read_expected(file.expected);
    for (const Isa isa : available_isas()) {
      SCOPED_TRACE(file.name + " " + std::string(kogia::name(isa)));
      RunnerOptions options = {.isa = isa, .n_threads = 2, .compute = {}, .cache_dtype = {}};
      ModelRunner plain(file.path, options);
      if (!plain.model().has_mtp() || !plain.model().weights_summary().starts_with("bf16"))
        continue;
      options.guess_in_int8 = true;
      ModelRunner guessing(file.path, options);
      EXPECT_EQ(guessing.model().default_cache_dtype(), plain.model().default_cache_dtype());
      EXPECT_NE(guessing.model().weights_summary().find("q8_0"), std::string::npos);
      Timeline a, b;
      const auto main = plain.step(a, expected.ids);
      EXPECT_EQ(guessing.step(b, expected.ids).logits, main.logits);
      const auto exact = plain.mtp(expected.ids, main).logits;
      const auto guessed = guessing.mtp(expected.ids, main).logits;
      EXPECT_NE(guessed, exact);
      ++n;
      EXPECT_LT(distance(guessed, exact), 0.1);  // another expert may be chosen
    }
  }
  EXPECT_GT(n, 0);
}

// In parts of some megabytes, the last of odd size.
TEST(Guesses, ArePackedAsTheirBlocksWouldBe) {
  constexpr Index kRows = 9001, kCols = 544;
  MemoryCheckpoint checkpoint("memory", "{}");
  auto* const values =
      reinterpret_cast<float*>(checkpoint.add("weight", DType::f32, {kRows, kCols}));
  const Philox random(7, 1);
  for (Index i = 0; i < kRows * kCols; ++i) {
    values[i] = random.normal(static_cast<std::uint64_t>(i));
  }
  std::vector<std::byte> blocks(static_cast<std::size_t>(kRows * row_bytes(DType::q8_0, kCols)));
  quantize_row(DType::q8_0, values, blocks.data(), kRows * kCols);
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(std::string(name(isa)));
    const auto device = make_cpu_device({.n_threads = 2, .isa = isa});
    std::unique_ptr<Matrix> rounded, whole;
    const PackOptions options{.compute = Compute::int8};
    const auto pack = [&](const PackJob& job) {
      const std::function<void(const LoadProgress&)> silent;
      const WeightPacker packer({&job, 1}, checkpoint, *device, silent);
      const PackPlan plan = packer.plan();
      std::vector<std::byte> memory(static_cast<std::size_t>(plan.n_bytes), std::byte{0});
      packer.pack(plan, memory.data());
      return memory;
    };
    const MatrixSource source{.dtype = DType::f32,
                              .rows = kRows,
                              .cols = kCols,
                              .data = reinterpret_cast<const std::byte*>(values)};
    MatrixSource of_blocks = source;
    of_blocks.dtype = DType::q8_0;
    of_blocks.data = blocks.data();
    EXPECT_EQ(pack({.id = "a",
                    .source = source,
                    .options = options,
                    .out = &rounded,
                    .rounded = DType::q8_0}),
              pack({.id = "b", .source = of_blocks, .options = options, .out = &whole}));
  }
}

}  // namespace
}  // namespace kogia::test
