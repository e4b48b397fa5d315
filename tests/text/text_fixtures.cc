#include "text_fixtures.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace kogia {

std::string read_file_for_test(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(ErrorCode::kNotFound, path + " cannot be read");
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

namespace {

template <class T>
std::optional<T> optional_field(const nlohmann::json& j, const char* key) {
  if (!j.contains(key) || j[key].is_null()) return {};
  return j[key].get<T>();
}

std::unique_ptr<Tokenizer> from_dump(const nlohmann::json& j) {
  GgufVocab vocab;
  vocab.model = j.at("model");
  vocab.pre = j.at("pre");
  vocab.tokens = j.at("tokens").get<std::vector<std::string>>();
  vocab.token_types = j.at("token_types").get<std::vector<std::int64_t>>();
  vocab.merges = j.at("merges").get<std::vector<std::string>>();
  vocab.bos = optional_field<TokenId>(j, "bos");
  vocab.eos = optional_field<TokenId>(j, "eos");
  vocab.add_bos = optional_field<bool>(j, "add_bos");
  return Tokenizer::from_gguf(vocab);
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer_for_test(const std::string& path) {
  namespace fs = std::filesystem;
  if (fs::is_directory(path)) {
    const std::string config = path + "/tokenizer_config.json";
    return Tokenizer::from_json(read_file_for_test(path + "/tokenizer.json"),
                                fs::exists(config) ? read_file_for_test(config) : "");
  }
  const std::string text = read_file_for_test(path);
  if (text.starts_with("{\"gguf\"")) return from_dump(nlohmann::json::parse(text));
  return Tokenizer::from_json(text, "");
}

std::string cached_tokenizer(const std::string& name) {
  const char* cache = std::getenv("KOGIA_CACHE");
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string root =
      cache != nullptr
          ? cache
          : std::string(xdg != nullptr ? xdg
                                       : std::string(home != nullptr ? home : "") + "/.cache") +
                "/kogia";
  const std::string path = root + "/tokenizers/" + name;
  if (!std::filesystem::exists(path + "/tokenizer.json")) {
    throw Error(ErrorCode::kNotFound,
                path + "/tokenizer.json is missing: ./check fetches it before the tests run");
  }
  return path;
}

const Tokenizer& shared_tokenizer(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, std::unique_ptr<Tokenizer>> loaded;
  const std::lock_guard lock(mutex);
  auto& tokenizer = loaded[name];
  if (!tokenizer) tokenizer = load_tokenizer_for_test(cached_tokenizer(name));
  return *tokenizer;
}

}  // namespace kogia
