#include "infer/converted_text.h"

#include <filesystem>
#include <limits>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "formats/hf_config.h"
#include "formats/safetensors_writer.h"
#include "text/chat.h"
#include "text/tokenizer_convert.h"

namespace kogia {
namespace {

std::optional<TokenId> id_of(const GgufMetadata& m, std::string_view key) {
  const auto id = m.get_int(key);
  if (!id || *id < 0 || *id > std::numeric_limits<TokenId>::max()) return {};
  return static_cast<TokenId>(*id);
}

std::optional<ConvertedText> text_of_gguf(const GgufMetadata& m) {
  ConvertedText text;
  GgufVocab& v = text.vocab;
  v.model = m.get_string("tokenizer.ggml.model").value_or("none");
  if (v.model == "none" || v.model == "no_vocab") return {};
  v.pre = m.get_string("tokenizer.ggml.pre").value_or("");
  if (const auto* tokens = m.get_strings("tokenizer.ggml.tokens")) v.tokens = *tokens;
  if (const auto* types = m.get_ints("tokenizer.ggml.token_type")) v.token_types = *types;
  if (const auto* merges = m.get_strings("tokenizer.ggml.merges")) v.merges = *merges;
  v.bos = id_of(m, "tokenizer.ggml.bos_token_id");
  v.eos = id_of(m, "tokenizer.ggml.eos_token_id");
  v.eot = id_of(m, "tokenizer.ggml.eot_token_id");
  v.pad = id_of(m, "tokenizer.ggml.padding_token_id");
  v.add_bos = m.get_bool("tokenizer.ggml.add_bos_token");
  v.add_eos = m.get_bool("tokenizer.ggml.add_eos_token");
  text.chat_template = m.get_string("tokenizer.chat_template").value_or("");
  return text;
}

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "generation_config.json",
                                           "chat_template.jinja",
                                           "vocab.json",
                                           "merges.txt",
                                           "added_tokens.json"};

void set_id(GgufWriter& w, std::string_view key, std::optional<TokenId> id) {
  if (id) w.set(key, static_cast<std::uint32_t>(*id));
}

}  // namespace

std::optional<ConvertedText> read_text(const Checkpoint& source, Index vocab_size) {
  if (source.gguf() != nullptr) return text_of_gguf(source.gguf()->metadata());
  const auto json = source.text_file("tokenizer.json");
  if (!json) return {};
  const std::string config = source.text_file("tokenizer_config.json").value_or("");
  ConvertedText text;
  text.vocab = gguf_vocab_of_json(*json, config, static_cast<std::size_t>(vocab_size));
  text.chat_template =
      find_chat_template(source.text_file("chat_template.jinja").value_or(""), config);
  const auto fill = [&](std::optional<TokenId>& id, const char* key) {
    const HfConfig model = HfConfig::parse(*source.text_file("config.json"), "config.json");
    const std::vector<Index> ids = model.get_ints_or_one(key);
    if (!id && !ids.empty() && ids[0] >= 0 && ids[0] < vocab_size) {
      id = static_cast<TokenId>(ids[0]);
    }
  };
  fill(text.vocab.bos, "bos_token_id");
  fill(text.vocab.eos, "eos_token_id");
  return text;
}

void set_gguf_tokenizer(GgufWriter& w, const ConvertedText* text) {
  if (text == nullptr) {
    w.set("tokenizer.ggml.model", "none");
    return;
  }
  const GgufVocab& v = text->vocab;
  w.set("tokenizer.ggml.model", v.model);
  w.set("tokenizer.ggml.pre", v.pre);
  w.set("tokenizer.ggml.tokens", v.tokens);
  const std::vector<std::int32_t> types(v.token_types.begin(), v.token_types.end());
  if (!types.empty()) w.set("tokenizer.ggml.token_type", std::span(types));
  w.set("tokenizer.ggml.merges", v.merges);
  set_id(w, "tokenizer.ggml.bos_token_id", v.bos);
  set_id(w, "tokenizer.ggml.eos_token_id", v.eos);
  set_id(w, "tokenizer.ggml.eot_token_id", v.eot);
  set_id(w, "tokenizer.ggml.padding_token_id", v.pad);
  if (v.add_bos) w.set("tokenizer.ggml.add_bos_token", *v.add_bos);
  if (v.add_eos) w.set("tokenizer.ggml.add_eos_token", *v.add_eos);
  if (!text->chat_template.empty()) w.set("tokenizer.chat_template", text->chat_template);
}

void add_tokenizer_files(SafetensorsWriter& writer, const Checkpoint& source,
                         const ConvertedText* text) {
  if (source.gguf() == nullptr) {
    for (const char* file : kTokenizerFiles) {
      if (const auto bytes = source.text_file(file)) writer.add_text(file, *bytes);
    }
  } else if (text != nullptr) {
    writer.add_text("tokenizer.json", tokenizer_json_of(text->vocab));
    writer.add_text("tokenizer_config.json", tokenizer_config_of(text->vocab, text->chat_template));
  }
}

ConfigExtras config_extras(const Checkpoint& source, const ConvertedText* text) {
  ConfigExtras extras;
  if (source.gguf() == nullptr) {
    extras.source = *source.text_file("config.json");
    const HfConfig config = HfConfig::parse(extras.source, "config.json");
    extras.bos = config.get_ints_or_one("bos_token_id");
    extras.eos = config.get_ints_or_one("eos_token_id");
    extras.pad = config.get_ints_or_one("pad_token_id");
  } else if (text != nullptr) {
    const auto put = [](std::vector<Index>& ids, std::optional<TokenId> id) {
      if (id) ids.push_back(*id);
    };
    put(extras.bos, text->vocab.bos);
    put(extras.eos, text->vocab.eos);
    if (text->vocab.eot != text->vocab.eos) put(extras.eos, text->vocab.eot);
    put(extras.pad, text->vocab.pad);
  }
  return extras;
}

std::string model_name(const Checkpoint& source) {
  if (source.gguf() != nullptr) {
    if (const auto name = source.gguf()->metadata().get_string("general.name")) return *name;
  }
  std::filesystem::path path = std::filesystem::path(source.path()).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const std::string stem = source.gguf() ? path.stem().string() : path.filename().string();
  return stem.empty() ? "model" : stem;
}

}  // namespace kogia
