// A small program for tools/differential_tokenizer.py: loads one tokenizer, then answers lines.
//
//   text_tool DIR|tokenizer.json|GGUF-DUMP.json   lines on stdin: hex of the text; on stdout: ids,
//   and hex of their bytes
//
// A GGUF dump is {"pre", "tokens", "types", "merges", …} as tools/golden/make_text_fixtures.py
// writes it (this program does not know GGUF: text and formats stand on one floor).

#include <fstream>
#include <iostream>
#include <sstream>

#include "base/error.h"
#include "text_fixtures.h"

namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2)
      throw kogia::Error(kogia::ErrorCode::kUsage, "text_tool PATH [--add-special] [--plain]");
    kogia::EncodeOptions options;
    for (int i = 2; i < argc; ++i) {
      if (std::string(argv[i]) == "--add-special") options.add_special = true;
      if (std::string(argv[i]) == "--plain") options.parse_added = false;
    }
    const auto tokenizer = kogia::load_tokenizer_for_test(argv[1]);
    std::string line;
    while (std::getline(std::cin, line)) {
      const auto ids = tokenizer->encode(from_hex(line), options);
      std::string out;
      for (const auto id : ids) out += std::to_string(id) + ' ';
      out += '|';
      for (const char c : tokenizer->decode(ids, false))
        out += fmt::format("{:02x}", static_cast<unsigned char>(c));
      std::cout << out << '\n';
    }
    return 0;
  } catch (const kogia::Error& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}
