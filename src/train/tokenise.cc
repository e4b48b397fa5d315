#include "train/tokenise.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/mapped_file.h"
#include "base/thread_pool.h"
#include "train/text_files.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

// Of text that is tokenised side by side.
constexpr std::size_t kBatchBytes = std::size_t{4} << 20;
constexpr int kVersion = 3;

std::string text_of(const fs::path& path) { return std::string(MappedFile::open(path).text()); }

/// All that the ids of a source depend on.
Hash128 key_of(const RunConfig& config, const CheckpointTokenizer& tokenizer,
               const RunConfig::Source& source) {
  std::string words =
      fmt::format("tokens {}\n{}\n{}\n{}\n", kVersion, fs::absolute(source.path).string(),
                  source.field, config.data.holdout);
  words += fmt::format("{} {}\n", fs::file_size(source.path),
                       fs::last_write_time(source.path).time_since_epoch().count());
  words += tokenizer.text("tokenizer.json");
  words += tokenizer.text("tokenizer_config.json");  // names the end of text
  return hash_bytes_128(std::as_bytes(std::span(words)));
}

struct Places {
  Hash128 key;
  fs::path train, held_out;
};

Places places_of(const RunConfig& config, const CheckpointTokenizer& tokenizer,
                 const RunConfig::Source& source) {
  const Hash128 key = key_of(config, tokenizer, source);
  return {.key = key,
          .train = config.data.cache / (key.hex() + ".tokens"),
          .held_out = config.data.cache / (key.hex() + ".held-out.tokens")};
}

std::optional<Corpus::Source> opened(const Places& places, double weight) {
  Corpus::Source source{.train = TokenFile::open(places.train, places.key),
                        .held_out = TokenFile::open(places.held_out, places.key),
                        .weight = weight};
  if (!source.train || !source.held_out) return {};
  return source;
}

/// Documents gathered until they are worth the threads.
class Tokeniser {
 public:
  Tokeniser(const RunConfig& config, const Tokenizer& tokenizer, const Places& places,
            ThreadPool& pool)
      : holdout_(config.data.holdout),
        tokenizer_(tokenizer),
        pool_(pool),
        train_(places.train, tokenizer.n_tokens(), places.key),
        held_out_(places.held_out, tokenizer.n_tokens(), places.key) {}

  void add(std::string_view text) {
    throw_if_interrupted();
    texts_.emplace_back(text);
    n_bytes_ += text.size();
    if (n_bytes_ >= kBatchBytes) flush();
  }
  void commit() {
    flush();
    train_.commit();
    held_out_.commit();
  }

 private:
  void flush() {
    std::vector<std::vector<TokenId>> ids(texts_.size());
    pool_.run(static_cast<Index>(texts_.size()), [&](Index i, int) {
      const auto at = static_cast<std::size_t>(i);
      ids[at] = tokenizer_.encode(texts_[at], {.add_special = true, .parse_added = false});
      ids[at].push_back(*tokenizer_.eos());
    });
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::uint64_t hash = hash_bytes(std::as_bytes(std::span(texts_[i])));
      const bool held = static_cast<double>(hash >> 11) * 0x1p-53 < holdout_;
      (held ? held_out_ : train_).add_document(ids[i]);
    }
    texts_.clear();
    n_bytes_ = 0;
  }

  double holdout_;
  const Tokenizer& tokenizer_;
  ThreadPool& pool_;
  TokenFileWriter train_, held_out_;
  std::vector<std::string> texts_;
  std::size_t n_bytes_ = 0;
};

/// By id; control tokens stand for no text.
std::vector<Index> bytes_of_tokens(const Tokenizer& tokenizer) {
  std::vector<Index> bytes;
  for (TokenId id = 0; id < tokenizer.n_tokens(); ++id) {
    const bool control = tokenizer.is_special(id) || id == tokenizer.eos() || id == tokenizer.bos();
    bytes.push_back(control ? 0 : static_cast<Index>(tokenizer.token_bytes(id).size()));
  }
  return bytes;
}

}  // namespace

RunTokenizer load_tokenizer(const RunConfig& config) {
  const fs::path& json = config.data.tokenizer;
  RunTokenizer run;
  CheckpointTokenizer& parts = run.parts;
  parts.files.push_back({"tokenizer.json", text_of(json)});
  for (const char* name : {"tokenizer_config.json", "chat_template.jinja"}) {
    const fs::path beside = json.parent_path() / name;
    if (fs::exists(beside)) parts.files.push_back({name, text_of(beside)});
  }
  run.tokenizer =
      Tokenizer::from_json(parts.text("tokenizer.json"), parts.text("tokenizer_config.json"));
  if (!run.tokenizer->eos()) {
    throw Error(ErrorCode::kUsage, fmt::format("{}: names no end of text", json.string()),
                "tokenizer_config.json beside it says which token it is: eos_token");
  }
  const Index vocabulary = config.model.config.value("vocab_size", Index{0});
  if (run.tokenizer->n_tokens() > vocabulary) {
    throw_error(ErrorCode::kUsage, "{}: has {} tokens, model.vocab_size is {}", json.string(),
                run.tokenizer->n_tokens(), vocabulary);
  }
  if (run.tokenizer->bos()) parts.bos = {*run.tokenizer->bos()};
  parts.eos = {*run.tokenizer->eos()};
  return run;
}

Index bytes_to_tokenise(const RunConfig& config, const RunTokenizer& tokenizer) {
  Index n = 0;
  for (const RunConfig::Source& source : config.data.sources) {
    const Places places = places_of(config, tokenizer.parts, source);
    if (!opened(places, 1)) n += static_cast<Index>(fs::file_size(source.path));
  }
  return n;
}

std::unique_ptr<Corpus> open_corpus(const RunConfig& config, const RunTokenizer& tokenizer,
                                    const TokeniseOptions& options) {
  fs::create_directories(config.data.cache);
  std::optional<ThreadPool> pool;
  std::vector<Corpus::Source> sources;
  for (const RunConfig::Source& source : config.data.sources) {
    const Places places = places_of(config, tokenizer.parts, source);
    std::optional<Corpus::Source> made = opened(places, source.weight);
    if (!made) {
      if (!pool) pool.emplace(options.n_threads);
      Tokeniser tokeniser(config, *tokenizer.tokenizer, places, *pool);
      TextFileOptions how;
      how.field = source.field;
      for_each_document(
          source.path, how, [&](std::string_view text) { tokeniser.add(text); }, options.on_bytes);
      tokeniser.commit();
      made = opened(places, source.weight);
      KOGIA_CHECK(made.has_value());
    }
    sources.push_back(std::move(*made));
  }
  return std::make_unique<Corpus>(std::move(sources), config.data.sequence_length,
                                  static_cast<std::uint64_t>(config.data.seed),
                                  bytes_of_tokens(*tokenizer.tokenizer));
}

}  // namespace kogia
