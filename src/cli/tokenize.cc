// kogia tokenize: standard input to token ids.

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_flags.h"
#include "cli/output.h"
#include "cli/prompt.h"

namespace kogia::cli {
namespace {

struct TokenizeFlags {
  std::string model;
  bool json = false, bos = false, pieces = false, plain = false;
  EngineFlags unused;
  std::uint64_t unused_seed = 0;
};

CommandLine describe(TokenizeFlags& f) {
  return {
      .name = "tokenize",
      .summary =
          "Reads standard input and prints its token ids. Any bytes are taken. Added tokens "
          "inside the text, such as <think>, are read as tokens, as Hugging Face does.",
      .positionals = {{"MODEL", std::string(kModelHelp) + "; a tokenizer.json alone will do",
                       &f.model}},
      .groups = {{"Text",
                  {{.flags = "--bos",
                    .value = {},
                    .help = "add the special tokens that the tokenizer puts around a text",
                    .target = &f.bos},
                   {.flags = "--plain",
                    .value = {},
                    .help = "added tokens inside the text stay text, as in the content of a chat "
                            "message",
                    .target = &f.plain}}},
                 {"Output",
                  {{.flags = "--pieces",
                    .value = {},
                    .help = "one token a line, with its text",
                    .target = &f.pieces},
                   {.flags = "--json",
                    .value = {},
                    .help = "one object: {\"ids\":[...]}",
                    .target = &f.json}}},
                 accepted_without_effect(f.unused, f.unused_seed)},
      .examples = {"echo -n \"Hello, world\" | kogia tokenize DeepSeek-V3 --json"}};
}

std::string shown(const std::string& bytes) {
  const std::string quoted =
      nlohmann::json(bytes).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return printable(quoted);
}

}  // namespace

int tokenize_command(Arguments arguments) {
  TokenizeFlags f;
  if (!parse(describe(f), arguments)) return 0;
  const auto tokenizer = open_tokenizer(find_model(f.model));
  const std::vector<TokenId> ids =
      tokenizer->encode(read_text("-"), {.add_special = f.bos, .parse_added = !f.plain});

  nlohmann::ordered_json object;
  if (f.json) object["ids"] = ids;
  std::string text;
  for (const TokenId id : ids) {
    const std::string piece = f.pieces ? tokenizer->token_bytes(id) : std::string();
    if (f.json) {
      if (f.pieces) object["pieces"].push_back(piece);
    } else if (f.pieces) {
      text += fmt::format("{:>7}  {}\n", id, shown(piece));
    } else {
      text += fmt::format("{}{}", text.empty() ? "" : " ", id);
    }
  }
  if (f.json) {
    write_json(object);
  } else {
    write_out(f.pieces ? text : text + "\n");
  }
  return 0;
}

}  // namespace kogia::cli
