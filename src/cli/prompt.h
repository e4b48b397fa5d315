#pragma once
// From the words of a command line to the ids of a prompt.

#include <optional>
#include <string>
#include <vector>

#include "infer/engine.h"

namespace kogia::cli {

/// "-" (standard input), a pipe, a device: what is read from front to end, once.
bool is_stream(const std::string& path);

/// The whole of a file, or of standard input for "-".
std::string read_text(const std::string& path);

/// Decimal numbers separated by white space. Errors name the file, the word and its place.
/// `vocab_size` bounds them.
std::vector<TokenId> read_ids(const std::string& path, Index vocab_size);

/// The engine's tokenizer, or an Error that says why there is none and what to do instead.
const Tokenizer& require_tokenizer(const Engine& engine, const std::string& instead);

/// Throws Error that says why the checkpoint has no chat template, or none that works.
void require_chat_template(const Engine& engine, const std::string& instead);

/// The text as it stands, added tokens inside it read as such, BOS where the tokenizer adds one.
std::vector<TokenId> raw_prompt(const Engine& engine, const std::string& text);

/// A conversation through the checkpoint's template, which is there (its warnings go to the log).
std::vector<TokenId> chat_prompt(const Engine& engine, const std::vector<ChatMessage>& messages,
                                 const ChatOptions& options = {});

}  // namespace kogia::cli
