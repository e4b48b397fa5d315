#include "cli/prompt.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "cli/command_line.h"
#include "cli/output.h"
#include "formats/checkpoint.h"

namespace kogia::cli {

bool is_stream(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  return path == "-" || std::filesystem::is_fifo(status) ||
         std::filesystem::is_character_file(status) || std::filesystem::is_socket(status);
}

std::string read_text(const std::string& path) {
  if (is_stream(path)) {
    std::ifstream file;
    if (path != "-") file.open(path, std::ios::binary);
    std::istream& in = path == "-" ? std::cin : file;
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  const MappedFile file = MappedFile::open(path);
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<TokenId> read_ids(const std::string& path, Index vocab_size) {
  const std::string text = read_text(path);
  const std::string where = path == "-" ? "standard input" : path;
  std::vector<TokenId> ids;
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  for (std::size_t begin = 0; (begin = text.find_first_not_of(kSpace, begin)) != text.npos;) {
    const std::size_t end = std::min(text.find_first_of(kSpace, begin), text.size());
    const std::string_view word = std::string_view(text).substr(begin, end - begin);
    const auto id = parse_index(word);
    if (!id) {
      throw_error(ErrorCode::kInvalid,
                  "{}: number {} is '{}', expected decimal token ids separated by white space",
                  where, ids.size() + 1, word.substr(0, 40));
    }
    if (*id < 0 || *id >= vocab_size) {
      throw_error(ErrorCode::kInvalid, "{}: id {} (number {}) is outside the vocabulary, 0 to {}",
                  where, *id, ids.size() + 1, vocab_size - 1);
    }
    ids.push_back(static_cast<TokenId>(*id));
    begin = end;
  }
  if (ids.empty()) throw_error(ErrorCode::kInvalid, "{}: holds no token id", where);
  return ids;
}

const Tokenizer& require_tokenizer(const Engine& engine, const std::string& instead) {
  if (const Tokenizer* tokenizer = engine.tokenizer()) return *tokenizer;
  throw Error(ErrorCode::kNotFound,
              engine.checkpoint().path() + ": no tokenizer: " + engine.tokenizer_problem(),
              instead);
}

void require_chat_template(const Engine& engine, const std::string& instead) {
  if (engine.chat() != nullptr) return;
  if (engine.chat_problem().empty()) {
    throw Error(ErrorCode::kUsage, "messages need a chat template, and the checkpoint has none",
                instead);
  }
  throw Error(ErrorCode::kInvalid, "chat template: " + engine.chat_problem(), instead);
}

std::vector<TokenId> raw_prompt(const Engine& engine, const std::string& text) {
  const Tokenizer& tokenizer = require_tokenizer(engine, "give token ids instead: --ids FILE");
  return tokenizer.encode(text, {.add_special = true, .parse_added = true});
}

std::vector<TokenId> chat_prompt(const Engine& engine, const std::vector<ChatMessage>& messages,
                                 const ChatOptions& options) {
  for (const ChatMessage& message : messages) {
    if (is_utf8(message.content)) continue;
    throw Error(ErrorCode::kUsage,
                "the text is no valid UTF-8: '" + printable(message.content) + "'",
                "a chat template takes characters; --raw takes any bytes");
  }
  RenderedChat rendered = engine.chat()->render(messages, options);
  for (const std::string& warning : rendered.warnings) log_warning("{}", warning);
  return std::move(rendered.ids);
}

}  // namespace kogia::cli
