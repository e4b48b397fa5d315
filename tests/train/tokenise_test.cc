// Texts become rows: each ends in the tokenizer's end of text, and what is held out depends on the
// text alone.

#include "train/tokenise.h"

#include <csignal>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "support/temp_dir.h"
#include "text/bpe_trainer.h"
#include "text/tokenizer_convert.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;
using Texts = std::vector<std::string>;

/// `n` texts of 1 to 40 words, none like another; one says the words of the end token.
Texts some_texts(int first, int n) {
  Texts texts;
  for (int i = first; i < first + n; ++i) {
    std::string text = "text " + std::to_string(i);
    for (int word = 0; word < i % 40; ++word) text += " and word " + std::to_string(word * i % 7);
    texts.push_back(text);
  }
  texts[0] += trained_special_tokens()[1] + " goes on";
  return texts;
}

class Tokenise : public testing::Test {
 protected:
  Tokenise() {
    BpeTrainer trainer({.vocab_size = 300});
    for (const std::string& text : some_texts(0, 50)) trainer.add(text);
    const GgufVocab vocab = trainer.train();
    tokenizer_json_ = tokenizer_json_of(vocab);
    dir_.write("tokenizer.json", tokenizer_json_);
    name_end_of_text(trained_special_tokens()[1]);
  }

  void name_end_of_text(const std::string& token) const {
    dir_.write("tokenizer_config.json", nlohmann::json{{"eos_token", token}}.dump());
  }
  std::string write_source(const std::string& name, const Texts& texts,
                           const std::string& field = "text") const {
    std::string lines;
    for (const std::string& text : texts) lines += nlohmann::json{{field, text}}.dump() + "\n";
    return dir_.write(name, lines).string();
  }

  RunConfig config_of(const Texts& paths, Index sequence_length = 4096, double holdout = 0) const {
    RunConfig config;
    for (const std::string& path : paths) config.data.sources.push_back({.path = path});
    config.data.tokenizer = dir_ / "tokenizer.json";
    config.data.cache = dir_ / "cache";
    config.data.sequence_length = sequence_length;
    config.data.holdout = holdout;
    config.model.config["vocab_size"] = 300;
    return config;
  }
  static std::unique_ptr<Corpus> open(const RunConfig& config) {
    return open_corpus(config, load_tokenizer(config), {.n_threads = 2});
  }
  std::unique_ptr<Tokenizer> tokenizer() const {
    return Tokenizer::from_json(tokenizer_json_, read_file(dir_ / "tokenizer_config.json"));
  }

  /// The texts of rows that are long enough for all; each has its begin, and its end once.
  std::multiset<std::string> texts_of(const std::vector<PackedRow>& rows) const {
    const auto reader = tokenizer();
    const TokenId end_of_text = *reader->eos();
    std::multiset<std::string> texts;
    for (const PackedRow& row : rows) {
      for (std::size_t d = 0; d < row.document_begin.size(); ++d) {
        const auto begin = row.ids.begin() + row.document_begin[d];
        const auto end = row.ids.begin() + row.document_end(d);
        EXPECT_EQ(std::count(begin, end, end_of_text), *(end - 1) == end_of_text ? 1 : 0);
        if (*(end - 1) != end_of_text) continue;  // the row is full
        EXPECT_EQ(*begin, *reader->bos()) << "as this tokenizer begins a text";
        texts.insert(reader->decode({begin + 1, end - 1}, false));
      }
    }
    return texts;
  }
  /// All texts to learn from, of one epoch of one source.
  std::multiset<std::string> learnt(const RunConfig& whole) const {
    std::multiset<std::string> texts;
    for (const RunConfig::Source& source : whole.data.sources) {
      RunConfig one = whole;
      one.data.sources = {source};
      one.data.sequence_length = open(one)->n_train_tokens();  // an epoch is a row
      texts.merge(texts_of(open(one)->rows(0, 1)));
    }
    return texts;
  }

  TempDir dir_;
  std::string tokenizer_json_;
};

std::multiset<std::string> set_of(const Texts& texts) { return {texts.begin(), texts.end()}; }

// Bits per byte divide by these: together the tokens of a text have its bytes, marks of its ends
// none.
TEST_F(Tokenise, BytesOfTokensAreThoseOfTheText) {
  Texts texts = some_texts(0, 30);
  texts.push_back("naïve 東京 \xF0\x9F\x90\x8B");
  RunConfig config = config_of({write_source("a.jsonl", texts)});
  config.data.sequence_length = open(config)->n_train_tokens();
  const auto corpus = open(config);
  Index bytes = 0, expected = 0;
  const PackedRow row = corpus->rows(0, 1)[0];
  for (const std::int32_t id : row.ids) {
    bytes += corpus->token_bytes()[static_cast<std::size_t>(id)];
  }
  for (const std::string& text : texts) expected += static_cast<Index>(text.size());
  EXPECT_EQ(bytes, expected);
}

// cases.md R09: the end is a token to learn, and words that look like it are not the end.
TEST_F(Tokenise, EachTextComesWithItsEnd) {
  const Texts texts = some_texts(0, 60);
  EXPECT_EQ(learnt(config_of({write_source("a.jsonl", texts)})), set_of(texts));
}

// cases.md R09: a text that is cut has no end there, and what follows is not predicted from it.
TEST_F(Tokenise, ACutTextHasNoEnd) {
  const auto corpus = open(config_of({write_source("a.jsonl", some_texts(30, 40))}, 64));
  const TokenId end = *tokenizer()->eos();
  int cut = 0, ended = 0;
  for (const PackedRow& row : corpus->rows(0, 100)) {
    ASSERT_EQ(row.ids.size(), 64U);
    ASSERT_EQ(row.document_begin[0], 0);
    for (std::size_t d = 0; d < row.document_begin.size(); ++d) {
      const bool last = d + 1 == row.document_begin.size();
      const bool has_end = row.ids[static_cast<std::size_t>(row.document_end(d)) - 1] == end;
      EXPECT_TRUE(has_end || last) << "only the end of a row cuts";
      (has_end ? ended : cut) += 1;
    }
  }
  EXPECT_GT(cut, 50);
  EXPECT_GT(ended, 50);
}

TEST_F(Tokenise, WhatIsHeldOutDependsOnTheTextAlone) {
  const Texts a = some_texts(0, 300), b = some_texts(1000, 300);
  Texts turned(b.rbegin(), b.rend());
  turned.insert(turned.end(), a.begin(), a.end());
  const RunConfig two =
      config_of({write_source("a.jsonl", a), write_source("b.jsonl", b)}, 4096, 0.2);
  const RunConfig one = config_of({write_source("c.jsonl", turned)}, 1 << 16, 0.2);
  const auto held = texts_of(open(one)->validation_rows(0));
  EXPECT_NEAR(static_cast<double>(held.size()), 120, 30);
  RunConfig wide = two;
  wide.data.sequence_length = 1 << 16;
  EXPECT_EQ(texts_of(open(wide)->validation_rows(0)), held);

  std::multiset<std::string> all = learnt(two);
  EXPECT_EQ(all.size() + held.size(), 600U);
  for (const std::string& text : held) EXPECT_EQ(all.count(text), 0U) << text;
  all.insert(held.begin(), held.end());
  EXPECT_EQ(all, set_of(turned));
}

TEST_F(Tokenise, IsDoneOnceAndAgainForSomethingElse) {
  const std::string path = write_source("a.jsonl", some_texts(0, 50));
  RunConfig config = config_of({path});
  const auto is_new = [&] {
    const Index bytes = bytes_to_tokenise(config, load_tokenizer(config));
    EXPECT_TRUE(bytes == 0 || bytes == static_cast<Index>(fs::file_size(path)));
    open(config);
    EXPECT_EQ(bytes_to_tokenise(config, load_tokenizer(config)), 0);
    return bytes != 0;
  };
  EXPECT_TRUE(is_new());
  EXPECT_FALSE(is_new());
  config.data.sources[0].weight = 3;
  config.data.sequence_length = 7;
  config.data.seed = 9;
  EXPECT_FALSE(is_new()) << "the ids are the same";

  config.data.holdout = 0.5;
  EXPECT_TRUE(is_new());
  write_source("a.jsonl", some_texts(0, 51));
  EXPECT_TRUE(is_new()) << "another text";
  name_end_of_text(trained_special_tokens()[2]);
  EXPECT_TRUE(is_new()) << "another end of text";
  write_source("a.jsonl", some_texts(0, 52), "body");
  config.data.sources[0].field = "body";
  EXPECT_TRUE(is_new());
  for (const auto& entry : fs::directory_iterator(config.data.cache)) {
    fs::resize_file(entry.path(), fs::file_size(entry.path()) / 2);
  }
  EXPECT_TRUE(is_new()) << "damaged";
}

TEST_F(Tokenise, WhatCannotBeTokensIsRefused) {
  RunConfig config = config_of({write_source("a.jsonl", some_texts(0, 5))});
  config.model.config["vocab_size"] = tokenizer()->n_tokens() - 1;
  EXPECT_THROW(open(config), Error);
  config = config_of({dir_.write("bad.jsonl", "{\"text\": 3}\n").string()});
  EXPECT_THROW(open(config), Error);
  EXPECT_TRUE(fs::is_empty(config.data.cache)) << "nothing half done is left";
  fs::remove(dir_ / "tokenizer_config.json");
  dir_.write("tokenizer_config.json", "{}");
  EXPECT_THROW(open(config_of({write_source("a.jsonl", some_texts(0, 5))})), Error);
}

TEST_F(Tokenise, CtrlCLeavesNothing) {
  const RunConfig config = config_of({write_source("a.jsonl", some_texts(0, 500))});
  const InterruptGuard ctrl_c;
  std::raise(SIGINT);
  try {
    open(config);
    ADD_FAILURE() << "went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInterrupted);
  }
  clear_interrupt();
  EXPECT_TRUE(fs::is_empty(config.data.cache));
  EXPECT_GT(open(config)->n_train_tokens(), 0);
}

}  // namespace
}  // namespace kogia::test
