#include "text/tokenizer_convert.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/json.h"
#include "text/pretokenizer.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;
// Keys sorted: a vocabulary in an ordered_json would be searched from end to end for each key.
using Tree = nlohmann::json;

constexpr std::int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

/// Published files write line breaks in patterns as they are or as escapes.
std::string canonical(std::string_view pattern) {
  std::string out;
  for (const char c : pattern) {
    if (c == '\r') {
      out += "\\r";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out.push_back(c);
    }
  }
  return out;
}

/// False where a GGUF's name cannot stand for a step.
bool collect_steps(const Tree& p, std::vector<PretokenizerStep>& steps) {
  const std::string type = p.value("type", "");
  if (type == "Sequence") {
    return std::ranges::all_of(p.at("pretokenizers"),
                               [&](const Tree& step) { return collect_steps(step, steps); });
  }
  if (type == "Split") {
    const Tree& pattern = p.at("pattern");
    if (!pattern.contains("Regex") || p.value("behavior", "") != "Isolated" ||
        p.value("invert", false)) {
      return false;
    }
    steps.push_back({PretokenizerStep::kSplit, canonical(pattern.at("Regex").get<std::string>())});
    return true;
  }
  if (type == "Digits") {
    steps.push_back({.kind = PretokenizerStep::kDigits});
    return p.value("individual_digits", false);
  }
  steps.push_back({.kind = PretokenizerStep::kByteLevel, .use_regex = p.value("use_regex", true)});
  return type == "ByteLevel" && !p.value("add_prefix_space", true);
}

bool has_nfc(const Tree& root) {
  const auto n = root.find("normalizer");
  if (n == root.end() || n->is_null()) return false;
  return n->value("type", "") != "Sequence" || !n->at("normalizers").empty();
}

std::string pretokenizer_name(const Tree& root) {
  std::vector<PretokenizerStep> steps;
  const bool known = collect_steps(root.at("pre_tokenizer"), steps);
  const auto names = known ? gguf_pretokenizer_names(steps) : std::vector<std::string>();
  if (names.empty()) {
    throw Error(ErrorCode::kUnsupported,
                "tokenizer.json: no name that GGUFs use stands for this pre_tokenizer",
                "a wrong one would change the numbers in every prompt; --no-tokenizer leaves the "
                "tokenizer out");
  }
  // A tokenizer of Qwen's pattern without NFC is that of DeepSeek's distilled models.
  if (names.front() == "qwen2" && !has_nfc(root)) return "deepseek-r1-qwen";
  return names.front();
}

void put_merges(const Tree& model, GgufVocab& out) {
  for (const Tree& merge : model.at("merges")) {
    if (merge.is_string()) {
      out.merges.push_back(merge.get<std::string>());
      continue;
    }
    const auto left = merge.at(0).get<std::string>(), right = merge.at(1).get<std::string>();
    if ((left + right).find(' ') != std::string::npos) {
      throw_error(ErrorCode::kUnsupported,
                  "tokenizer.json: merge '{}' + '{}' holds a space, which GGUF cannot say", left,
                  right);
    }
    out.merges.push_back(left + " " + right);
  }
}

void put_token(GgufVocab& out, std::size_t id, const std::string& text, std::int64_t type) {
  if (id >= out.tokens.size()) {
    throw Error(ErrorCode::kInvalid,
                fmt::format("tokenizer.json: token {} is beyond the {} rows of the embedding", id,
                            out.tokens.size()),
                "is it the tokenizer of this model?");
  }
  out.tokens[id] = text;
  out.token_types[id] = type;
}

std::optional<TokenId> id_of(const Tokenizer& tokenizer, const Json& config, const char* key) {
  const auto at = config.find(key);
  if (at == config.end()) return {};
  const Json& text = at->is_object() && at->contains("content") ? at->at("content") : *at;
  return text.is_string() ? tokenizer.find(text.get<std::string>()) : std::nullopt;
}

Json spelt_step(const PretokenizerStep& step) {
  switch (step.kind) {
    case PretokenizerStep::kSplit:
      return {{"type", "Split"},
              {"pattern", {{"Regex", step.pattern}}},
              {"behavior", "Isolated"},
              {"invert", false}};
    case PretokenizerStep::kDigits:
      return {{"type", "Digits"}, {"individual_digits", true}};
    default:
      return {{"type", "ByteLevel"},
              {"add_prefix_space", false},
              {"trim_offsets", true},
              {"use_regex", step.use_regex}};
  }
}

bool is_added(const GgufVocab& vocab, std::size_t id) {
  const std::int64_t type = vocab.token_types.empty() ? kNormal : vocab.token_types[id];
  return (type == kControl || type == kUserDefined) && !vocab.tokens[id].empty();
}

Json added_tokens(const GgufVocab& vocab) {
  Json added = Json::array();
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id) {
    if (!is_added(vocab, id)) continue;
    added.push_back({{"id", id},
                     {"content", vocab.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", vocab.token_types[id] == kControl}});
  }
  return added;
}

/// Added tokens too: outside the vocabulary they would be numbered anew.
Json vocabulary(const GgufVocab& vocab) {
  Json out = Json::object();
  auto& entries = out.get_ref<Json::object_t&>();
  entries.reserve(vocab.tokens.size());
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id) {
    const std::int64_t type = vocab.token_types.empty() ? kNormal : vocab.token_types[id];
    // emplace_back: assignment by key would search all earlier names
    if (type != kUnused && !vocab.tokens[id].empty()) entries.emplace_back(vocab.tokens[id], id);
  }
  return out;
}

const std::string& text_of(const GgufVocab& vocab, TokenId id) {
  return vocab.tokens[static_cast<std::size_t>(id)];
}

bool adds_bos(const GgufVocab& vocab) {
  return vocab.bos && vocab.add_bos.value_or(gguf_pretokenizer(vocab.pre).add_bos);
}
bool adds_eos(const GgufVocab& vocab) { return vocab.eos && vocab.add_eos.value_or(false); }

Json post_processor(const GgufVocab& vocab) {
  Json byte_level = {{"type", "ByteLevel"},
                     {"add_prefix_space", true},
                     {"trim_offsets", false},
                     {"use_regex", true}};
  if (!adds_bos(vocab) && !adds_eos(vocab)) return byte_level;
  Json single = Json::array(), pair = Json::array(), tokens = Json::object();
  const auto special = [&](TokenId id, Json& list, int type) {
    const std::string& text = text_of(vocab, id);
    list.push_back({{"SpecialToken", {{"id", text}, {"type_id", type}}}});
    tokens[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
  };
  const auto part = [&](Json& list, const char* name, int type) {
    if (adds_bos(vocab)) special(*vocab.bos, list, type);
    list.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    if (adds_eos(vocab)) special(*vocab.eos, list, type);
  };
  part(single, "A", 0);
  part(pair, "A", 0);
  part(pair, "B", 1);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

}  // namespace

GgufVocab gguf_vocab_of_json(std::string_view tokenizer_json, std::string_view config_json,
                             std::size_t vocab_size) {
  const auto tokenizer = Tokenizer::from_json(tokenizer_json, config_json);  // checks all of it
  const Tree root = Tree::parse(tokenizer_json);
  const Json config =
      config_json.empty() ? Json::object() : parse_json(config_json, "tokenizer_config.json");
  GgufVocab out;
  out.model = "gpt2";
  out.pre = pretokenizer_name(root);
  out.tokens.resize(vocab_size);
  out.token_types.assign(vocab_size, kUnused);
  for (std::size_t id = 0; id < vocab_size; ++id) out.tokens[id] = fmt::format("[PAD{}]", id);
  for (const auto& [text, id] : root.at("model").at("vocab").items()) {
    put_token(out, id.get<std::size_t>(), text, kNormal);
  }
  for (const std::string& content : tokenizer->added_contents()) {
    const TokenId id = *tokenizer->find(content);
    put_token(out, static_cast<std::size_t>(id), content,
              tokenizer->is_special(id) ? kControl : kUserDefined);
  }
  put_merges(root.at("model"), out);
  out.bos = tokenizer->bos();
  out.eos = tokenizer->eos();
  out.pad = id_of(*tokenizer, config, "pad_token");
  out.add_bos = tokenizer->adds_bos();
  const auto add_eos = config.find("add_eos_token");
  out.add_eos = add_eos != config.end() && add_eos->is_boolean() && add_eos->get<bool>();
  return out;
}

std::string tokenizer_json_of(const GgufVocab& vocab) {
  Tokenizer::from_gguf(vocab);  // checks all of it
  const GgufPretokenizer named = gguf_pretokenizer(vocab.pre);
  Json steps = Json::array();
  for (const PretokenizerStep& step : gguf_pretokenizer_steps(vocab.pre)) {
    steps.push_back(spelt_step(step));
  }
  Json merges = Json::array();
  for (const std::string& merge : vocab.merges) merges.push_back(merge);
  const Json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens(vocab)},
                     {"normalizer", named.nfc ? Json{{"type", "NFC"}} : Json(nullptr)},
                     {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}}},
                     {"post_processor", post_processor(vocab)},
                     {"decoder",
                      {{"type", "ByteLevel"},
                       {"add_prefix_space", true},
                       {"trim_offsets", true},
                       {"use_regex", true}}},
                     {"model",
                      {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", nullptr},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", false},
                       {"byte_fallback", false},
                       {"ignore_merges", named.ignore_merges},
                       {"vocab", vocabulary(vocab)},
                       {"merges", std::move(merges)}}}};
  return root.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string tokenizer_config_of(const GgufVocab& vocab, std::string_view chat_template) {
  Json config;
  config["add_bos_token"] = adds_bos(vocab);
  config["add_eos_token"] = adds_eos(vocab);
  for (const auto& [key, id] :
       {std::pair("bos_token", vocab.bos), std::pair("eos_token", vocab.eos),
        std::pair("pad_token", vocab.pad)}) {
    const bool there = id && *id >= 0 && static_cast<std::size_t>(*id) < vocab.tokens.size();
    config[key] = there ? Json(text_of(vocab, *id)) : Json(nullptr);
  }
  if (!chat_template.empty()) config["chat_template"] = chat_template;
  config["clean_up_tokenization_spaces"] = false;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  return config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace kogia
