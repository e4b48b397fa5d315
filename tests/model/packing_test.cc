// Where weights lie does not change what they say.

#include <string>

#include "model/model_runner.h"
#include "support/golden.h"

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

}  // namespace
}  // namespace kogia::test
