// Damaged checkpoints through the whole of a load and one token: each is refused with a sentence
// that names the place, or runs. No signal, no hang, no memory beyond the file's size and 1 GiB.

#include "infer/damage.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <new>
#include <set>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "infer/engine.h"
#include "infer/score.h"
#include "model/synth.h"
#include "model/synth_plan.h"
#include "support/golden.h"
#include "support/sanitized.h"
#include "support/temp_dir.h"
#include "tensor/convert.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kMutations = kSanitized ? 60 : 500;  // of a form and family
constexpr int kWorkers = 2;
constexpr rlim_t kSpareBytes = rlim_t{1} << 30;
constexpr int kMostSeconds = 10;  // of a processor, so that a busy machine is no hang

// --- what is damaged
// -------------------------------------------------------------------------------

Files read_files(const fs::path& folder, std::initializer_list<const char*> names) {
  Files out;
  for (const char* name : names) out[name] = read_file(folder / name);
  return out;
}

/// A safetensors file of some of the tensors of another.
class Part {
 public:
  void add(const std::string& name, const std::string& dtype, const Json& shape,
           const std::string& bytes) {
    header_[name] = {{"dtype", dtype},
                     {"shape", shape},
                     {"data_offsets", {data_.size(), data_.size() + bytes.size()}}};
    data_ += bytes;
  }
  std::string bytes() const {
    const std::string text = header_.dump();
    const std::uint64_t n = text.size();
    std::string out(sizeof(n), '\0');
    std::memcpy(out.data(), &n, sizeof(n));
    return out + text + data_;
  }

 private:
  Json header_ = Json::object();
  std::string data_;
};

template <class Use>  // use(name, dtype, shape, bytes)
void for_each_tensor(const std::string& file, const Use& use) {
  std::uint64_t n = 0;
  std::memcpy(&n, file.data(), sizeof(n));
  const Json header = Json::parse(file.substr(sizeof(n), n));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const std::size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    const std::string dtype = entry["dtype"];
    use(name, dtype, entry["shape"], file.substr(sizeof(n) + n + begin, end - begin));
  }
}

/// The same in two shards with an index.
Files in_shards(const Files& plain) {
  const char* const names[] = {"model-00001-of-00002.safetensors",
                               "model-00002-of-00002.safetensors"};
  Part parts[2];
  Json map = Json::object();
  std::size_t i = 0;
  for_each_tensor(plain.at("model.safetensors"), [&](const std::string& name, const auto&... rest) {
    parts[i % 2].add(name, rest...);
    map[name] = names[i++ % 2];
  });
  Files out = {{"config.json", plain.at("config.json")}};
  for (int p = 0; p < 2; ++p) out[names[p]] = parts[p].bytes();
  out["model.safetensors.index.json"] = Json{{"weight_map", map}}.dump(1);
  return out;
}

/// The same with projections in E4M3 and block scales.
Files in_fp8(const Files& plain) {
  Part part;
  const auto convert = [&](const std::string& name, const std::string& dtype, const Json& shape,
                           const std::string& bytes) {
    const bool projection = name.ends_with("_proj.weight") || name.ends_with("_with_mqa.weight");
    if (!projection || name.ends_with("eh_proj.weight")) {
      return part.add(name, dtype, shape, bytes);
    }
    const Index rows = shape[0], cols = shape[1];
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    std::string codes(values.size(), '\0');
    dequantize_row(dtype == "F32" ? DType::f32 : DType::bf16, bytes.data(), values.data(),
                   rows * cols);
    quantize_row(DType::f8_e4m3, values.data(), codes.data(), rows * cols);
    part.add(name, "F8_E4M3", shape, codes);
    const std::vector<float> scales(
        static_cast<std::size_t>(ceil_div(rows, 128) * ceil_div(cols, 128)), 1.0F);
    part.add(name + "_scale_inv", "F32", {ceil_div(rows, 128), ceil_div(cols, 128)},
             {reinterpret_cast<const char*>(scales.data()), scales.size() * sizeof(float)});
  };
  for_each_tensor(plain.at("model.safetensors"), convert);
  Json config = Json::parse(plain.at("config.json"));
  config["quantization_config"] = {{"activation_scheme", "dynamic"},
                                   {"fmt", "e4m3"},
                                   {"quant_method", "fp8"},
                                   {"weight_block_size", {128, 128}}};
  return {{"config.json", config.dump(1)}, {"model.safetensors", part.bytes()}};
}

/// A GGUF with a tokenizer.
Files synthetic() {
  ModelConfig c = synth_config("v3-tiny");
  c.num_hidden_layers = 2, c.vocab_size = 288;
  c.hidden_size = c.intermediate_size = c.moe_intermediate_size = 32;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.qk_nope_head_dim = c.v_head_dim = c.kv_lora_rank = c.q_lora_rank = 32;
  c.qk_rope_head_dim = c.rope.dims = 16;
  c.n_routed_experts = 8, c.n_group = 4, c.topk_group = 2, c.num_experts_per_tok = 2;
  const TempDir folder;
  synthesize(
      {.name = "v3-tiny", .weights = "Q8_0", .output = folder / "model.gguf", .n_threads = 1}, c);
  return {{"model.gguf", read_file(folder / "model.gguf")}};
}

Files files_of(const std::string& form, const std::string& family) {
  const fs::path folder = golden_folder(family);
  if (form == "tokenizer") return synthetic();
  if (form == "gguf") return {{"model.gguf", read_file(folder / "new.gguf")}};
  const Files plain = read_files(folder, {"config.json", "model.safetensors"});
  if (form == "shards") return in_shards(plain);
  return form == "fp8" ? in_fp8(plain) : plain;
}

/// Whatever a sentence can name: files, and all that has a name in them.
std::set<std::string> places_in(const Files& files) {
  std::set<std::string> out;
  for (const auto& [name, bytes] : files) {
    out.insert(name);
    std::string word;
    for (const char c : bytes) {
      if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.') {
        word += c;
        continue;
      }
      if (word.size() >= 5 && std::isalpha(static_cast<unsigned char>(word[0]))) out.insert(word);
      word.clear();
    }
  }
  return out;
}

// --- one after another, in processes that may die
// --------------------------------------------------

enum class Outcome { kNotRun, kRan, kRefused, kWrong };

struct Result {
  Outcome outcome;
  char file[64];
  char text[600];
};

/// In memory that the workers share.
struct Board {
  std::atomic<int> next;
  std::atomic<int> now[kWorkers];
  Result results[kMutations];
};

void put(char* to, std::size_t size, const std::string& text) {
  const std::size_t n = std::min(size - 1, text.size());
  std::memcpy(to, text.data(), n);
  to[n] = '\0';
}

/// Names the file or its folder, or what is in it, and nothing that a terminal would obey.
bool is_sentence(const std::string& message, const fs::path& path,
                 const std::set<std::string>& places) {
  const bool clean = std::ranges::none_of(
      message, [](unsigned char c) { return (c < ' ' && c != '\n') || c == 0x7F; });
  const bool named = message.find(path.string()) != std::string::npos ||
                     std::ranges::any_of(places, [&](const std::string& place) {
                       return message.find(place) != std::string::npos;
                     });
  return clean && named && message.size() < 9000;
}

/// Loads and computes a token.
Outcome try_out(const fs::path& path, const std::set<std::string>& places, std::string& text) {
  try {
    const auto engine = Engine::open(path, {.cpu = {.n_threads = 1, .isa = {}},
                                            .compute = {},
                                            .cache_dtype = {},
                                            .ctx = 64,
                                            .load_mtp = true,
                                            .show_progress = false});
    const TokenId first[] = {0};
    Index n = 0;
    for_each_logits(*engine, first,
                    [&](Index, auto logits) { n = static_cast<Index>(logits.size()); });
    if (n == engine->model().config().vocab_size) return Outcome::kRan;
    text = fmt::format("{} logits", n);
  } catch (const Error& error) {
    text = error.what();
    if (is_sentence(text, path, places)) return Outcome::kRefused;
    text = "no sentence that names a place: " + text;
  } catch (const std::exception& error) {
    text = fmt::format("uncaught: {}", error.what());
  }
  return Outcome::kWrong;
}

void limit_memory(const Files& files) {
  if (kSanitized) return;  // they reserve terabytes of addresses
  long pages = 0;
  if (FILE* f = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(f, "%ld", &pages) != 1) pages = 0;
    std::fclose(f);
  }
  rlim_t bytes = static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
  for (const auto& [name, content] : files) bytes += content.size();
  const rlimit limit{bytes + kSpareBytes, bytes + kSpareBytes};
  ::setrlimit(RLIMIT_AS, &limit);
}

class Damage : public testing::TestWithParam<std::pair<std::string, std::string>> {
 protected:
  void SetUp() override {
    files_ = files_of(GetParam().first, GetParam().second);
    places_ = places_in(files_);
    void* memory =
        ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    board_ = new (memory) Board();
  }
  void TearDown() override { ::munmap(board_, sizeof(Board)); }

  fs::path folder_of(int worker) const { return folder_ / std::to_string(worker); }

  /// Where a checkpoint of these files lies for a worker.
  fs::path lay_out(const Files& files, int worker) const {
    const fs::path folder = folder_of(worker);
    fs::remove_all(folder);
    fs::create_directories(folder);
    for (const auto& [name, bytes] : files) {
      folder_.write(std::to_string(worker) + "/" + name, bytes);
    }
    return files_.size() == 1 ? folder / files_.begin()->first : folder;
  }

  void run_one(int i, int worker) {
    Result& result = board_->results[i];
    Dice dice(/*seed=*/17, static_cast<std::uint64_t>(i));
    std::string what, text;
    const Files files = damaged(files_, dice, what);
    put(result.file, sizeof(result.file), what);
    const fs::path path = lay_out(files, worker);
    const itimerval limit{.it_interval = {}, .it_value = {.tv_sec = kMostSeconds, .tv_usec = 0}};
    ::setitimer(ITIMER_PROF, &limit, nullptr);  // SIGPROF ends the process
    result.outcome = try_out(path, places_, text);
    put(result.text, sizeof(result.text), text);
  }

  [[noreturn]] void work(int worker) {
    const std::string log = (folder_ / ("log" + std::to_string(worker))).string();
    const int fd = ::open(log.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    ::dup2(fd, STDERR_FILENO);
    limit_memory(files_);
    for (int i = board_->next++; i < kMutations; i = board_->next++) {
      board_->now[worker] = i;
      run_one(i, worker);
    }
    ::_exit(0);
  }

  pid_t start(int worker) {
    const pid_t child = ::fork();
    if (child == 0) work(worker);
    return child;
  }

  void run_all() {
    pid_t children[kWorkers];
    for (int w = 0; w < kWorkers; ++w) children[w] = start(w);
    for (int left = kWorkers; left > 0;) {
      int status = 0;
      const pid_t child = ::waitpid(-1, &status, 0);
      ASSERT_GT(child, 0);
      const int w = static_cast<int>(std::find(children, children + kWorkers, child) - children);
      if (w == kWorkers) continue;
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        --left;
        continue;
      }
      Result& result = board_->results[board_->now[w]];
      result.outcome = Outcome::kWrong;
      const std::string log = read_file(folder_ / ("log" + std::to_string(w)));
      const std::string how = WIFSIGNALED(status)
                                  ? std::string(::strsignal(WTERMSIG(status)))
                                  : fmt::format("exit code {}", WEXITSTATUS(status));
      put(result.text, sizeof(result.text), how + ": " + log.substr(0, 500));
      children[w] = start(w);
    }
  }

  TempDir folder_;
  Files files_;
  std::set<std::string> places_;
  Board* board_ = nullptr;
};

TEST_P(Damage, IsRefusedByNameOrRuns) {
  std::string text;
  ASSERT_EQ(try_out(lay_out(files_, 0), places_, text), Outcome::kRan) << "intact: " << text;
  run_all();
  int ran = 0, refused = 0;
  for (int i = 0; i < kMutations; ++i) {
    const Result& result = board_->results[i];
    ran += result.outcome == Outcome::kRan ? 1 : 0;
    refused += result.outcome == Outcome::kRefused ? 1 : 0;
    EXPECT_TRUE(result.outcome == Outcome::kRan || result.outcome == Outcome::kRefused)
        << "mutation " << i << ", " << result.file << ": " << result.text;
  }
  RecordProperty("ran", ran);
  RecordProperty("refused", refused);
  // Mutations that all do the same would show nothing.
  EXPECT_GT(ran, kMutations / 50);
  EXPECT_GT(refused, kMutations / 4);
}

std::vector<std::pair<std::string, std::string>> cases() {
  std::vector<std::pair<std::string, std::string>> out;
  for (const char* form : {"safetensors", "shards", "fp8", "gguf"}) {
    for (const char* family : {"v2_lite", "v3", "qwen2", "qwen3", "llama"}) {
      out.emplace_back(form, family);
    }
  }
  // Of other block formats; with a tokenizer.
  for (const char* family : {"v3_rare", "qwen3_rare", "llama_quantised"}) {
    out.emplace_back("gguf", family);
  }
  out.emplace_back("tokenizer", "v3");
  return out;
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Damage, testing::ValuesIn(cases()), [](const auto& info) {
  return info.param.first + "_" + info.param.second;
});

}  // namespace
}  // namespace kogia::test
