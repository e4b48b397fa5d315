// A run file from a stranger: read or refused; what is read is written to the same again.

#include <string_view>

#include "base/error.h"
#include "train/run_file.h"
#include "train/schedule.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Before a zero byte an override, behind it the file.
  std::string_view text(reinterpret_cast<const char*>(data), size);
  kogia::RunFileOptions options{
      .overrides = {}, .home = "/home", .cache = "/cache", .resolved = true};
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    options.overrides.emplace_back(text.substr(0, zero));
    text.remove_prefix(zero + 1);
  }
  kogia::RunConfig config;
  try {
    config = kogia::parse_run_file(text, "/folder/run.toml", options);
  } catch (const kogia::Error&) {
    return 0;
  }
  for (const kogia::Index step : {kogia::Index{0}, config.trainer.steps - 1}) {
    const double lr = kogia::learning_rate(config, step);
    KOGIA_CHECK(lr >= 0 && lr <= config.optimizer.lr);
    KOGIA_CHECK(kogia::batch_size(config, step) >= 1 && kogia::rows_before(config, step) >= 0);
  }
  const std::string written = kogia::to_toml(config);
  options.overrides.clear();
  const kogia::RunConfig again = kogia::parse_run_file(written, "/folder/run.toml", options);
  KOGIA_CHECK(kogia::to_toml(again) == written);
  KOGIA_CHECK(!kogia::first_difference(config, again));
  return 0;
}
