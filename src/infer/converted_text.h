#pragma once
// The texts of a checkpoint (tokenizer, template, names) on their way into another container.

#include <optional>
#include <string>

#include "formats/checkpoint.h"
#include "model/config_write.h"
#include "text/tokenizer.h"

namespace kogia {

class GgufWriter;
class SafetensorsWriter;

struct ConvertedText {
  GgufVocab vocab;
  std::string chat_template;  // empty: none
};

/// The tokenizer of a checkpoint of either kind; nullopt where it has none. One that the other
/// container cannot hold throws Error.
std::optional<ConvertedText> read_text(const Checkpoint& source, Index vocab_size);

/// tokenizer.* keys; without a tokenizer "none", which llama.cpp takes.
void set_gguf_tokenizer(GgufWriter& writer, const ConvertedText* text);
/// tokenizer.json, tokenizer_config.json, ...: those of a folder as they are, else made anew.
void add_tokenizer_files(SafetensorsWriter& writer, const Checkpoint& source,
                         const ConvertedText* text);
ConfigExtras config_extras(const Checkpoint& source, const ConvertedText* text);
/// general.name, or the name of the folder.
std::string model_name(const Checkpoint& source);

}  // namespace kogia
