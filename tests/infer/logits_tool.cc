// logits_tool MODEL IDS_FILE [f32|bf16|int16|int8|fp8|default]: writes the logits after each token
// to standard output, [n, vocab_size] f32. Used by tools/golden/compare_real.py.

#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "infer/score.h"

namespace {

std::optional<kogia::Compute> parse_compute(const std::string& text) {
  for (const kogia::Compute c : {kogia::Compute::f32, kogia::Compute::bf16, kogia::Compute::int16,
                                 kogia::Compute::int8, kogia::Compute::fp8}) {
    if (text == kogia::name(c)) return c;
  }
  return std::nullopt;
}

int run(const std::string& model, const std::string& ids_file, const std::string& compute) {
  std::ifstream in(ids_file);
  const std::vector<kogia::TokenId> ids{std::istream_iterator<kogia::TokenId>(in), {}};
  const auto engine = kogia::Engine::open(model, {.cpu = {},
                                                  .compute = parse_compute(compute),
                                                  .cache_dtype = {},
                                                  .ctx = static_cast<kogia::Index>(ids.size()),
                                                  .show_progress = false});
  kogia::for_each_logits(*engine, ids, [](kogia::Index, std::span<const float> logits) {
    std::fwrite(logits.data(), sizeof(float), logits.size(), stdout);
  });
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: logits_tool MODEL IDS_FILE [f32|bf16|int16|int8|fp8|default]\n", stderr);
    return 2;
  }
  try {
    return run(argv[1], argv[2], argc > 3 ? argv[3] : "default");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
