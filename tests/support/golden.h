#pragma once
// The checkpoints of tests/data/golden and what the oracles say of them (see its README.md).

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/index.h"
#include "support/temp_dir.h"

namespace kogia::test {

inline std::filesystem::path golden_folder(const std::string& name) {
  return std::filesystem::path(KOGIA_TEST_DATA) / "golden" / name;
}

struct Expected {
  std::vector<std::int32_t> ids;
  std::vector<double> logprobs;               // [i]: of ids[i + 1] after ids[0 .. i]
  std::map<Index, std::vector<double>> rows;  // position: the whole vocabulary after it
  std::vector<std::int32_t> greedy;           // after the first n_prompt ids
  std::vector<double> margins;                // to the second best, of each of greedy
  std::vector<double> mtp_logprobs;           // [i]: of ids[i + 2]; empty without an MTP layer
  std::string oracle;
  static constexpr std::size_t n_prompt = 24;
};

inline Expected read_expected(const std::string& name) {
  const auto json = nlohmann::json::parse(read_file(golden_folder(name) / "expected.json"));
  Expected e;
  json.at("ids").get_to(e.ids);
  json.at("logprobs").get_to(e.logprobs);
  json.at("oracle").get_to(e.oracle);
  json.at("greedy").at("ids").get_to(e.greedy);
  json.at("greedy").at("margins").get_to(e.margins);
  if (json.contains("mtp_logprobs")) json.at("mtp_logprobs").get_to(e.mtp_logprobs);
  for (const auto& [position, row] : json.at("rows").items()) {
    e.rows[std::stol(position)] = row.get<std::vector<double>>();
  }
  return e;
}

/// log softmax in f64.
inline std::vector<double> log_softmax(std::span<const float> logits) {
  double top = -HUGE_VAL, sum = 0;
  for (const float z : logits) top = std::max(top, static_cast<double>(z));
  for (const float z : logits) sum += std::exp(static_cast<double>(z) - top);
  std::vector<double> out;
  out.reserve(logits.size());
  for (const float z : logits) out.push_back(static_cast<double>(z) - top - std::log(sum));
  return out;
}

/// Names of the cases, and the files in which their model lies.
struct GoldenFile {
  std::string name;            // v3, v3/new.gguf
  std::string expected;        // v3
  std::filesystem::path path;  // a folder or a .gguf
};

inline std::vector<GoldenFile> golden_files() {
  std::vector<GoldenFile> out;
  for (const char* name :
       {"v2_lite", "v2_group", "v2_norm", "v3", "v3_tf5", "v3_ties", "v3_fp8", "v3_fp8_ue8m0",
        "v3_fp8_e8m0", "qwen2", "qwen2_tied", "qwen3", "llama", "llama_tied"}) {
    out.push_back({name, name, golden_folder(name)});
  }
  for (const char* name :
       {"v2_lite/new", "v2_lite/kv_b", "v2_lite/old", "v3/new", "v3/kv_b", "qwen2/new", "qwen3/new",
        "llama/new", "v2_quantised/kv_b", "v3_quantised/new", "qwen2_quantised/new",
        "qwen3_quantised/new", "llama_quantised/new", "v3_rare/new", "qwen3_rare/new"}) {
    const std::string text = name;
    out.push_back({text + ".gguf", text.substr(0, text.find('/')), golden_folder(text + ".gguf")});
  }
  return out;
}

}  // namespace kogia::test
