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

namespace {

std::string cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  if (const std::string cache = variable("KOGIA_CACHE"); !cache.empty()) return cache;
  const std::string xdg = variable("XDG_CACHE_HOME");
  return (xdg.empty() ? variable("HOME") + "/.cache" : xdg) + "/kogia";
}

// The key-value part of a GGUF v3, trusted: enough for one known file.
class GgufReader {
 public:
  explicit GgufReader(const std::string& path) : in_(path, std::ios::binary) {
    if (!in_)
      throw Error(ErrorCode::kNotFound,
                  path + " is missing: ./check fetches it before the tests run");
    in_.ignore(16);  // magic, version, number of tensors
    n_ = number<std::uint64_t>();
  }
  std::uint64_t n() const { return n_; }
  std::string text() {
    std::string s(number<std::uint64_t>(), '\0');
    in_.read(s.data(), static_cast<std::streamsize>(s.size()));
    return s;
  }
  nlohmann::json value() { return value_of(number<std::uint32_t>()); }

 private:
  template <class T>
  T number() {
    T x{};
    in_.read(reinterpret_cast<char*>(&x), sizeof x);
    return x;
  }
  nlohmann::json value_of(std::uint32_t type) {
    switch (type) {
      case 4:
        return number<std::uint32_t>();
      case 5:
        return number<std::int32_t>();
      case 6:
        return number<float>();
      case 7:
        return number<std::uint8_t>() != 0;
      case 8:
        return text();
      case 9: {
        const auto inner = number<std::uint32_t>();
        const auto size = number<std::uint64_t>();
        auto list = nlohmann::json::array();
        for (std::uint64_t i = 0; i < size; ++i) list.push_back(value_of(inner));
        return list;
      }
      default:
        throw Error(ErrorCode::kUnsupported, "a type that SmolLM2's file does not use");
    }
  }
  std::ifstream in_;
  std::uint64_t n_ = 0;
};

}  // namespace

const SmollmForTest& smollm_for_test() {
  static const SmollmForTest smollm = [] {
    GgufReader reader(cache_folder() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    nlohmann::json keys;
    for (std::uint64_t i = 0; i < reader.n(); ++i) {
      const std::string key = reader.text();
      keys[key] = reader.value();
    }
    const auto get = [&](const char* key) { return keys.at(std::string("tokenizer.ggml.") + key); };
    SmollmForTest s;
    s.vocab.model = get("model").get<std::string>();
    s.vocab.pre = get("pre").get<std::string>();
    s.vocab.tokens = get("tokens").get<std::vector<std::string>>();
    s.vocab.token_types = get("token_type").get<std::vector<std::int64_t>>();
    s.vocab.merges = get("merges").get<std::vector<std::string>>();
    s.vocab.bos = get("bos_token_id").get<TokenId>();
    s.vocab.eos = get("eos_token_id").get<TokenId>();
    s.vocab.add_bos = get("add_bos_token").get<bool>();
    s.chat_template = keys.at("tokenizer.chat_template").get<std::string>();
    return s;
  }();
  return smollm;
}

std::string cached_tokenizer(const std::string& name) {
  const std::string path = cache_folder() + "/tokenizers/" + name;
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
  if (!tokenizer) {
    tokenizer = name == "smollm" ? Tokenizer::from_gguf(smollm_for_test().vocab)
                                 : load_tokenizer_for_test(cached_tokenizer(name));
  }
  return *tokenizer;
}

}  // namespace kogia
