#pragma once
// A tokenizer from the form of one container into that of the other.

#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace kogia {

/// tokenizer.json and tokenizer_config.json as the keys of a GGUF. `vocab_size` rows: those without
/// a token become unused ones, as llama.cpp asks for one each.
/// Errors  a tokenizer that is no byte-level BPE, whose pre-tokenizer no GGUF name stands for, or
///         that has more tokens than the model has rows, is refused by name
GgufVocab gguf_vocab_of_json(std::string_view tokenizer_json, std::string_view config,
                             std::size_t vocab_size);

/// tokenizer.json of a GGUF's tokenizer: the same ids for the same text.
std::string tokenizer_json_of(const GgufVocab& vocab);
/// tokenizer_config.json beside it, with the chat template if there is one.
std::string tokenizer_config_of(const GgufVocab& vocab, std::string_view chat_template);

}  // namespace kogia
