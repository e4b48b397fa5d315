#pragma once
// An engine that says what a test tells it to: generate() and its batcher are compiled against this
// one, so that every turn of its loop can be met without a model.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "infer/engine.h"

namespace kogia::test {

struct Script {
  std::vector<std::string> words;  // token i decodes to words[i]; the vocabulary
  std::vector<TokenId> special;    // hidden from decoded text
  std::vector<TokenId> eos;
  /// After history of length n the likeliest token is likeliest.at(n); 0 where nothing is said.
  std::map<std::size_t, TokenId> likeliest;
  Index ctx = 1000;
  bool has_tokenizer = true;
  /// Called when a drawn token is computed, with the length then reached.
  std::function<void(std::size_t)> on_append = {};
};

std::unique_ptr<Engine> scripted_engine(Script script);

}  // namespace kogia::test
