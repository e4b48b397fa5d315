// Runs a fuzz target without libFuzzer: over each file of the seed corpus, over cut-off copies of
// it and over copies with damaged bytes. What is damaged is keyed by file and attempt, so a failure
// comes back.
//
//   fuzz_NAME FOLDER|FILE...
//
// A crash, an uncaught exception or an allocation beyond the limit ends the process; the last line
// on standard error names the file and the damage.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/resource.h>

#include "base/random.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
// There only in builds with a sanitizer.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t kCuts = 24, kDamages = 72;
constexpr std::size_t kLargestDamagedFile = std::size_t{1}
                                            << 18;  // larger seeds run once, as they are
constexpr rlim_t kMemoryLimit = rlim_t{4} << 30;

std::string g_now = "nothing yet";

void report() { std::fprintf(stderr, "failed on %s\n", g_now.c_str()); }

void report_signal(int signal_number) {  // not async-safe; the process is lost anyway
  report();
  ::signal(signal_number, SIG_DFL);
  ::raise(signal_number);
}

void report_deaths() {
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(report);
    ::signal(SIGABRT, report_signal);
    return;
  }
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT}) ::signal(number, report_signal);
}

[[noreturn]] void report_exception() {
  if (const std::exception_ptr thrown = std::current_exception()) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "uncaught exception: %s\n", e.what());
    } catch (...) {
      std::fputs("uncaught exception of an unknown type\n", stderr);
    }
  }
  std::abort();
}

// The sanitizers reserve terabytes of addresses; they have limits of their own (ASAN_OPTIONS).
void limit_memory() {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return;
#endif
#endif
  const rlimit limit{kMemoryLimit, kMemoryLimit};
  ::setrlimit(RLIMIT_AS, &limit);
#endif
}

// The exact size on the heap, so that a read past the end is seen by AddressSanitizer.
void run_one(const Bytes& bytes, std::string what) {
  g_now = std::move(what);
  const Bytes exact(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

Bytes damage(Bytes bytes, const kogia::Philox& random) {
  const std::uint64_t n_edits = 1 + random.below(4, 0);
  for (std::uint64_t edit = 1; edit <= n_edits && !bytes.empty(); ++edit) {
    const auto at = static_cast<std::size_t>(random.below(bytes.size(), 4 * edit));
    const auto value = static_cast<std::uint8_t>(random.below(256, 4 * edit + 1));
    switch (random.below(4, 4 * edit + 2)) {
      case 0:
        bytes[at] = value;
        break;
      case 1:
        bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1u << (value % 8)));
        break;
      case 2:
        bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      default:
        bytes[at] = value % 2 == 0 ? 0xFF : 0;
        break;
    }
  }
  return bytes;
}

void run_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const Bytes bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const std::string name = path.string();
  run_one(bytes, name);
  if (bytes.size() > kLargestDamagedFile) return;

  std::uint64_t file_key = 0;
  for (const char c : path.filename().string())
    file_key = file_key * 131 + static_cast<unsigned char>(c);
  for (std::uint64_t i = 0; i < kCuts && i < bytes.size(); ++i) {
    const std::size_t n = kogia::Philox(file_key, 1).below(bytes.size(), i);
    run_one(Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n)),
            name + " cut to " + std::to_string(n) + " bytes");
  }
  for (std::uint64_t i = 0; i < kDamages; ++i) {
    run_one(damage(bytes, kogia::Philox(file_key, 2, i)),
            name + " with damage " + std::to_string(i));
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::set_terminate(report_exception);
  report_deaths();
  limit_memory();
  std::vector<fs::path> files;
  for (int i = 1; i < argc; ++i) {
    if (!fs::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(argv[i])) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  if (files.empty()) {
    std::fputs("no corpus: a fuzz target needs at least one seed\n", stderr);
    return 1;
  }
  std::ranges::sort(files);
  run_one({}, "the empty input");
  for (const fs::path& file : files) run_file(file);
  std::printf("%zu seeds and their damaged copies: nothing broke\n", files.size());
  return 0;
}
