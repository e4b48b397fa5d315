// tokenizer.json of Hugging Face `tokenizers`, as far as byte-level BPE goes, with what
// tokenizer_config.json adds to it. Everything else is refused by name.

#include <algorithm>

#include <nlohmann/json.hpp>
#include <simdjson.h>

#include "base/error.h"
#include "text/bpe_tokenizer.h"
#include "text/json.h"

namespace kogia {
namespace {

namespace dom = simdjson::dom;
using Element = dom::element;

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;

template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw_error(ErrorCode::kUnsupported, "tokenizer.json: {}",
              fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
[[noreturn]] void invalid(fmt::format_string<Args...> format, Args&&... args) {
  throw_error(ErrorCode::kInvalid, "tokenizer.json: {}",
              fmt::format(format, std::forward<Args>(args)...));
}

// The member of an object; a null element counts as absent.
std::optional<Element> member(Element object, std::string_view key) {
  Element value;
  if (!object.is_object() || object[key].get(value) != simdjson::SUCCESS || value.is_null())
    return {};
  return value;
}
std::string_view string_member(Element object, std::string_view key, std::string_view where) {
  const auto value = member(object, key);
  std::string_view text;
  if (!value || value->get(text) != simdjson::SUCCESS)
    invalid("{}.{} is missing or no string", where, key);
  return text;
}
bool bool_member(Element object, std::string_view key, bool otherwise, std::string_view where) {
  const auto value = member(object, key);
  bool b = otherwise;
  if (value && value->get(b) != simdjson::SUCCESS)
    invalid("{}.{} is not true or false", where, key);
  return b;
}
dom::array array_of(std::optional<Element> value, std::string_view where) {
  dom::array list;
  if (!value || value->get(list) != simdjson::SUCCESS) invalid("{} is missing or no list", where);
  return list;
}
TokenId token_id(Element value, std::string_view where) {
  std::int64_t id = -1;
  if (value.get(id) != simdjson::SUCCESS || id < 0 || id > kMaxTokenId) {
    invalid("{}: a token id is not a number from 0 to {}", where, kMaxTokenId);
  }
  return static_cast<TokenId>(id);
}

class Loader {
 public:
  std::unique_ptr<Tokenizer> load(std::string_view json, std::string_view config) {
    const Element root = parse(json);
    const auto model = member(root, "model");
    if (!model) invalid("model is missing");
    read_model(*model);
    read_added(root);
    if (const auto n = member(root, "normalizer")) read_normalizer(*n);
    const auto p = member(root, "pre_tokenizer");
    if (!p) refuse("pre_tokenizer is null; only byte-level BPE is supported");
    read_pretokenizer(*p, 0);
    if (!parts_.pretokenizer.ends_in_byte_level())
      refuse("pre_tokenizer has no ByteLevel at its end");
    if (const auto d = member(root, "decoder")) read_decoder(*d);
    if (const auto post = member(root, "post_processor")) read_post_processor(*post, 0);
    if (!config.empty()) read_config(parse_json(config, "tokenizer_config.json"));
    if (!parts_.bos && parts_.prefix.size() == 1) parts_.bos = parts_.prefix[0];
    for (const TokenId id : parts_.prefix) check_known(id);
    for (const TokenId id : parts_.suffix) check_known(id);
    return std::make_unique<BpeTokenizer>(std::move(parts_));
  }

 private:
  Element parse(std::string_view json) {
    if (json.empty()) invalid("the file is empty");
    if (json.size() > kMaxFileBytes) refuse("the file is larger than 1 GiB");
    Element root;
    if (const auto error = parser_.parse(json.data(), json.size()).get(root)) {
      invalid("not JSON: {}", simdjson::error_message(error));
    }
    if (!root.is_object()) invalid("not an object");
    return root;
  }

  void check_known(TokenId id) const {
    const auto i = static_cast<std::size_t>(id);
    if (i < parts_.entries.size() && !parts_.entries[i].empty()) return;
    if (std::ranges::find(parts_.added, id, &AddedToken::id) != parts_.added.end()) return;
    invalid("post_processor adds token {}, which does not exist", id);
  }

  void read_model(Element model) {
    const std::string_view type = string_member(model, "type", "model");
    if (type != "BPE") refuse("model is {}, only BPE is supported", type);
    if (member(model, "dropout")) refuse("model.dropout is set: it would draw tokens at random");
    if (member(model, "unk_token"))
      refuse("model.unk_token is set; only byte-level BPE is supported");
    if (bool_member(model, "byte_fallback", false, "model"))
      refuse("model.byte_fallback is true; only byte-level BPE is supported");
    for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (member(model, key) && !string_member(model, key, "model").empty())
        refuse("model.{} is set", key);
    }
    parts_.ignore_merges = bool_member(model, "ignore_merges", false, "model");
    read_vocab(model);
    read_merges(model);
  }

  void read_vocab(Element model) {
    dom::object vocab;
    const auto value = member(model, "vocab");
    if (!value || value->get(vocab) != simdjson::SUCCESS)
      invalid("model.vocab is missing or no object");
    for (const auto& [spelt, id_value] : vocab) {
      const auto id = static_cast<std::size_t>(token_id(id_value, "model.vocab"));
      if (id >= parts_.entries.size())
        parts_.entries.resize(std::max(id + 1, parts_.entries.size() * 2));
      if (!parts_.entries[id].empty()) {
        invalid("model.vocab gives id {} to '{}' and to '{}'", id, parts_.entries[id], spelt);
      }
      parts_.entries[id] = spelt;
    }
    while (!parts_.entries.empty() && parts_.entries.back().empty()) parts_.entries.pop_back();
  }

  // "left right" or ["left", "right"]
  void read_merges(Element model) {
    const dom::array merges = array_of(member(model, "merges"), "model.merges");
    for (const Element merge : merges) {
      std::string_view text;
      dom::array pair;
      if (merge.get(text) == simdjson::SUCCESS) {
        const std::size_t space = text.find(' ');
        if (space == std::string_view::npos ||
            text.find(' ', space + 1) != std::string_view::npos) {
          invalid("model.merges[{}] is '{}', not two parts", parts_.merges.size(), text);
        }
        parts_.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
      std::string_view left, right;
      if (merge.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
          pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
        invalid("model.merges[{}] is not a pair of strings", parts_.merges.size());
      }
      parts_.merges.emplace_back(left, right);
    }
  }

  void read_added(Element root) {
    if (!member(root, "added_tokens")) return;
    StringTable entry_ids(parts_.entries.size());
    for (std::size_t id = 0; id < parts_.entries.size(); ++id) {
      if (!parts_.entries[id].empty())
        entry_ids.insert(parts_.entries[id], static_cast<TokenId>(id));
    }
    for (const Element token : array_of(member(root, "added_tokens"), "added_tokens")) {
      const auto id = member(token, "id");
      if (!id) invalid("an entry of added_tokens has no id");
      AddedToken added;
      added.content = string_member(token, "content", "added_tokens");
      if (added.content.empty()) continue;
      const TokenId in_vocab = entry_ids.find(added.content);
      added.id = in_vocab >= 0 ? in_vocab : token_id(*id, "added_tokens");
      added.single_word = bool_member(token, "single_word", false, "added_tokens");
      added.lstrip = bool_member(token, "lstrip", false, "added_tokens");
      added.rstrip = bool_member(token, "rstrip", false, "added_tokens");
      added.special = bool_member(token, "special", false, "added_tokens");
      added.normalized = bool_member(token, "normalized", !added.special, "added_tokens");
      parts_.added.push_back(std::move(added));
    }
  }

  void read_normalizer(Element normalizer) {
    const std::string_view type = string_member(normalizer, "type", "normalizer");
    if (type == "NFC") {
      parts_.nfc = true;
    } else if (type == "Sequence") {
      for (const Element n :
           array_of(member(normalizer, "normalizers"), "normalizer.normalizers")) {
        const std::string_view inner = string_member(n, "type", "normalizer.normalizers");
        if (inner != "NFC") refuse("normalizer {} is not supported, only NFC", inner);
        parts_.nfc = true;
      }
    } else {
      refuse("normalizer {} is not supported, only NFC", type);
    }
  }

  void read_pretokenizer(Element p, int depth) {
    if (depth > 4) refuse("pre_tokenizer is nested too deep");
    const std::string_view type = string_member(p, "type", "pre_tokenizer");
    if (parts_.pretokenizer.ends_in_byte_level())
      refuse("pre_tokenizer {} stands after ByteLevel", type);
    if (type == "Sequence") {
      for (const Element step :
           array_of(member(p, "pretokenizers"), "pre_tokenizer.pretokenizers")) {
        read_pretokenizer(step, depth + 1);
      }
    } else if (type == "Split") {
      read_split(p);
    } else if (type == "Digits") {
      parts_.pretokenizer.add_digits(
          bool_member(p, "individual_digits", false, "pre_tokenizer.Digits"));
    } else if (type == "ByteLevel") {
      parts_.pretokenizer.add_byte_level(
          bool_member(p, "add_prefix_space", true, "pre_tokenizer.ByteLevel"),
          bool_member(p, "use_regex", true, "pre_tokenizer.ByteLevel"));
    } else {
      refuse("pre_tokenizer {} is not supported (Sequence, Split, Digits and ByteLevel are)", type);
    }
  }

  void read_split(Element p) {
    using Behavior = Pretokenizer::Behavior;
    constexpr std::pair<std::string_view, Behavior> kBehaviors[] = {
        {"Isolated", Behavior::kIsolated},
        {"Removed", Behavior::kRemoved},
        {"MergedWithPrevious", Behavior::kMergedWithPrevious},
        {"MergedWithNext", Behavior::kMergedWithNext},
        {"Contiguous", Behavior::kContiguous}};
    const std::string_view name = string_member(p, "behavior", "pre_tokenizer.Split");
    const auto* behavior =
        std::ranges::find(kBehaviors, name, &std::pair<std::string_view, Behavior>::first);
    if (behavior == std::end(kBehaviors))
      refuse("pre_tokenizer.Split.behavior {} is not supported", name);
    const auto pattern = member(p, "pattern");
    if (!pattern) invalid("pre_tokenizer.Split.pattern is missing");
    std::string regex;
    if (member(*pattern, "String")) {
      for (const char c : string_member(*pattern, "String", "pre_tokenizer.Split.pattern")) {
        if (std::string_view("\\[](){}.*+?^$|").find(c) != std::string_view::npos)
          regex.push_back('\\');
        regex.push_back(c);
      }
    } else {
      regex = string_member(*pattern, "Regex", "pre_tokenizer.Split.pattern");
    }
    parts_.pretokenizer.add_split(regex, behavior->second,
                                  bool_member(p, "invert", false, "pre_tokenizer.Split"));
  }

  static void read_decoder(Element decoder) {
    const std::string_view type = string_member(decoder, "type", "decoder");
    if (type != "ByteLevel") refuse("decoder {} is not supported, only ByteLevel", type);
  }

  void read_post_processor(Element post, int depth) {
    if (depth > 4) refuse("post_processor is nested too deep");
    const std::string_view type = string_member(post, "type", "post_processor");
    if (type == "ByteLevel") return;  // offsets only
    if (type == "Sequence") {
      for (const Element p : array_of(member(post, "processors"), "post_processor.processors")) {
        read_post_processor(p, depth + 1);
      }
    } else if (type == "TemplateProcessing") {
      read_template(post);
    } else {
      refuse("post_processor {} is not supported (ByteLevel, TemplateProcessing and Sequence are)",
             type);
    }
  }

  void read_template(Element post) {
    const auto specials = member(post, "special_tokens");
    bool after_text = false;
    for (const Element piece : array_of(member(post, "single"), "post_processor.single")) {
      if (member(piece, "Sequence")) {
        if (after_text) refuse("post_processor.single has the text twice");
        after_text = true;
        continue;
      }
      const auto token = member(piece, "SpecialToken");
      if (!token)
        invalid("post_processor.single has an entry that is neither Sequence nor SpecialToken");
      const std::string_view name = string_member(*token, "id", "post_processor.single");
      const auto special = specials ? member(*specials, name) : std::nullopt;
      if (!special) invalid("post_processor.special_tokens lacks '{}'", name);
      for (const Element id :
           array_of(member(*special, "ids"), "post_processor.special_tokens.ids")) {
        (after_text ? parts_.suffix : parts_.prefix).push_back(token_id(id, "post_processor"));
        if (parts_.prefix.size() + parts_.suffix.size() > 64)
          refuse("post_processor adds more than 64 tokens");
      }
    }
  }

  void read_config(const nlohmann::ordered_json& config) {
    if (!config.is_object())
      throw_error(ErrorCode::kInvalid, "tokenizer_config.json is not an object");
    parts_.bos = named_token(config, "bos_token");
    parts_.eos = named_token(config, "eos_token");
    if (const auto add = flag(config, "add_bos_token")) apply_bos(*add);
    if (const auto add = flag(config, "add_eos_token")) apply_eos(*add);
  }

  static std::optional<bool> flag(const nlohmann::ordered_json& config, const char* key) {
    const auto value = config.find(key);
    if (value == config.end() || !value->is_boolean()) return {};
    return value->get<bool>();
  }

  // A string, or an object with `content`.
  std::optional<TokenId> named_token(const nlohmann::ordered_json& config, const char* key) const {
    auto value = config.find(key);
    if (value == config.end()) return {};
    const auto& content =
        value->is_object() && value->contains("content") ? (*value)["content"] : *value;
    if (!content.is_string()) return {};
    const auto& text = content.get_ref<const std::string&>();
    const auto token = std::ranges::find(parts_.added, text, &AddedToken::content);
    if (token != parts_.added.end()) return token->id;
    const auto entry = std::ranges::find(parts_.entries, text);
    if (entry != parts_.entries.end()) return static_cast<TokenId>(entry - parts_.entries.begin());
    return {};
  }

  void apply_bos(bool add) {
    std::vector<TokenId>& prefix = parts_.prefix;
    if (add && !parts_.bos) {
      throw_error(ErrorCode::kInvalid,
                  "tokenizer_config.json: add_bos_token is true, but bos_token is no token");
    }
    const bool there = parts_.bos && !prefix.empty() && prefix.front() == *parts_.bos;
    if (add && !there) prefix.insert(prefix.begin(), *parts_.bos);
    if (!add && there) prefix.erase(prefix.begin());
  }

  void apply_eos(bool add) {
    std::vector<TokenId>& suffix = parts_.suffix;
    if (add && !parts_.eos) {
      throw_error(ErrorCode::kInvalid,
                  "tokenizer_config.json: add_eos_token is true, but eos_token is no token");
    }
    const bool there = parts_.eos && !suffix.empty() && suffix.back() == *parts_.eos;
    if (add && !there) suffix.push_back(*parts_.eos);
    if (!add && there) suffix.pop_back();
  }

  dom::parser parser_;
  TokenizerParts parts_;
};

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json,
                                                std::string_view config) {
  return Loader().load(tokenizer_json, config);
}

}  // namespace kogia
