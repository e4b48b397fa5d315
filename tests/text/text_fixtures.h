#pragma once
// Tokenizers and recorded answers that the tests of src/text share.

#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace kogia {

std::string read_file_for_test(const std::string& path);

/// A directory or tokenizer.json of Hugging Face, or the JSON dump of a GGUF's tokenizer.
std::unique_ptr<Tokenizer> load_tokenizer_for_test(const std::string& path);

/// $KOGIA_CACHE/tokenizers/NAME, which ./check fills. Throws a clear sentence if it is not there.
std::string cached_tokenizer(const std::string& name);
/// SmolLM2's GGUF in the cache, read as far as the tokenizer goes. (text/ and formats/ do not know
/// each other; the real reader has tests of its own.)
struct SmollmForTest {
  GgufVocab vocab;
  std::string chat_template;
};
const SmollmForTest& smollm_for_test();

/// One of the cached tokenizers, or "smollm", loaded once per program.
const Tokenizer& shared_tokenizer(const std::string& name);

}  // namespace kogia
