#include "infer/engine.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>

#include <unistd.h>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/progress.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/hf_config.h"
#include "model/rewrite.h"

namespace kogia {
namespace {

// ---------------------------------------------------------------------------------------------------
// Text: tokenizer and template

std::optional<TokenId> get_id(const GgufMetadata& m, std::string_view key) {
  const auto id = m.get_int(key);
  if (!id || *id < 0 || *id > std::numeric_limits<TokenId>::max()) return {};
  return static_cast<TokenId>(*id);
}

std::unique_ptr<Tokenizer> tokenizer_of(const GgufMetadata& m) {
  GgufVocab vocab;
  vocab.model = m.require_string("tokenizer.ggml.model");
  vocab.pre = m.get_string("tokenizer.ggml.pre").value_or("");
  if (const auto* tokens = m.get_strings("tokenizer.ggml.tokens")) vocab.tokens = *tokens;
  if (const auto* types = m.get_ints("tokenizer.ggml.token_type")) vocab.token_types = *types;
  if (const auto* merges = m.get_strings("tokenizer.ggml.merges")) vocab.merges = *merges;
  vocab.bos = get_id(m, "tokenizer.ggml.bos_token_id");
  vocab.eos = get_id(m, "tokenizer.ggml.eos_token_id");
  vocab.eot = get_id(m, "tokenizer.ggml.eot_token_id");
  vocab.pad = get_id(m, "tokenizer.ggml.padding_token_id");
  vocab.add_bos = m.get_bool("tokenizer.ggml.add_bos_token");
  vocab.add_eos = m.get_bool("tokenizer.ggml.add_eos_token");
  return Tokenizer::from_gguf(vocab);
}

std::unique_ptr<Tokenizer> tokenizer_of(const Checkpoint& checkpoint) {
  if (checkpoint.gguf() != nullptr) return tokenizer_of(checkpoint.gguf()->metadata());
  const auto json = checkpoint.text_file("tokenizer.json");
  if (!json) throw_error(ErrorCode::kNotFound, "{}: no tokenizer.json", checkpoint.path());
  return Tokenizer::from_json(*json, checkpoint.text_file("tokenizer_config.json").value_or(""));
}

std::unique_ptr<ChatTemplate> template_of(const Checkpoint& checkpoint,
                                          const Tokenizer& tokenizer) {
  const std::string source =
      checkpoint.gguf() != nullptr
          ? checkpoint.gguf()->metadata().get_string("tokenizer.chat_template").value_or("")
          : find_chat_template(checkpoint.text_file("chat_template.jinja").value_or(""),
                               checkpoint.text_file("tokenizer_config.json").value_or(""));
  if (source.empty()) return nullptr;
  const auto text = [&](std::optional<TokenId> id) {
    return id ? tokenizer.token_bytes(*id) : std::string();
  };
  return ChatTemplate::create(source, tokenizer, text(tokenizer.bos()), text(tokenizer.eos()));
}

std::string_view text_of(const MappedFile& file) {
  constexpr Index kMaxBytes = Index{1} << 28;  // the largest published one has 36 MB
  if (file.size() > kMaxBytes) {
    throw_error(ErrorCode::kInvalid, "{} bytes, expected a tokenizer.json of at most {}",
                file.size(), kMaxBytes);
  }
  return file.text();
}

// ---------------------------------------------------------------------------------------------------
// Defaults of generation

GenerationDefaults defaults_of(const Checkpoint& checkpoint, const Tokenizer* tokenizer) {
  GenerationDefaults d;
  std::set<TokenId> eos;
  const auto add = [&](std::optional<TokenId> id) {
    if (id) eos.insert(*id);
  };
  if (checkpoint.gguf() != nullptr) {
    const GgufMetadata& m = checkpoint.gguf()->metadata();
    add(get_id(m, "tokenizer.ggml.eos_token_id"));
    add(get_id(m, "tokenizer.ggml.eot_token_id"));
  }
  for (const char* file : {"config.json", "generation_config.json"}) {
    const auto text = checkpoint.text_file(file);
    if (!text) continue;
    const HfConfig json = HfConfig::parse(*text, file);
    for (const Index id : json.get_ints_or_one("eos_token_id")) {
      if (id >= 0 && id <= std::numeric_limits<TokenId>::max()) add(static_cast<TokenId>(id));
    }
    if (std::string_view(file) == "config.json") continue;
    d.temperature = json.get_float("temperature");
    d.top_p = json.get_float("top_p");
    d.top_k = json.get_int("top_k");
    if (d.top_k && *d.top_k < 0) d.top_k = 0;  // -1 means off elsewhere
    if (!json.get_bool("do_sample").value_or(true)) d.temperature = 0;
    d.repetition_penalty = json.get_float("repetition_penalty");
  }
  if (tokenizer != nullptr) add(tokenizer->eos());
  d.eos.assign(eos.begin(), eos.end());
  return d;
}

// ---------------------------------------------------------------------------------------------------
// Weights and cache

void check_mtp(const Checkpoint& checkpoint) {
  const ModelConfig config = ModelConfig::from_checkpoint(checkpoint);
  if (has_mtp(checkpoint, config)) return;
  const bool in_config = config.num_nextn_predict_layers > 0;
  throw Error(ErrorCode::kUsage,
              fmt::format("{}: no layers of multi-token prediction ({})", checkpoint.path(),
                          in_config ? "num_nextn_predict_layers says there are, the weights lack"
                                    : "num_nextn_predict_layers is 0"),
              "--speculate lookup works with every model");
}

std::unique_ptr<const Model> load_model(const Checkpoint& checkpoint, Device& device,
                                        const EngineOptions& o) {
  std::optional<Progress> bar;
  std::string what;
  Index shown = 0;
  LoadOptions load{.compute = o.compute,
                   .mla = o.mla,
                   .load_mtp = o.load_mtp,
                   .guess_in_int8 = o.guess_in_int8,
                   .packing = o.packing,
                   .on_progress = {}};
  if (o.show_progress) {
    load.on_progress = [&](const LoadProgress& p) {
      if (!bar || what != p.what) {
        bar.emplace(std::string(p.what), p.total_bytes, ProgressUnit::kBytes);
        what = p.what;
        shown = 0;
      }
      bar->add(p.done_bytes - shown);
      shown = p.done_bytes;
    };
  }
  auto model = Model::load(checkpoint, device, load);
  if (bar) bar->finish();
  return model;
}

/// Tokens whose cache a quarter of memory holds, in whole pages, at least one.
Index tokens_in_a_quarter(const Model& model, DType cache_dtype) {
  const Index per_token = model.cache_spec(cache_dtype).values_per_token() *
                          model.n_cache_layers() * (cache_dtype == DType::f32 ? 4 : 2);
  const Index memory =
      static_cast<Index>(sysconf(_SC_PHYS_PAGES)) * static_cast<Index>(sysconf(_SC_PAGESIZE));
  return std::max<Index>(memory / 4 / per_token / kPageTokens * kPageTokens, kPageTokens);
}

/// The model's maximum, or what a quarter of memory holds of it.
Index choose_ctx(const Model& model, DType cache_dtype, Index asked) {
  if (asked > 0) return asked;
  return std::min(model.config().max_position_embeddings, tokens_in_a_quarter(model, cache_dtype));
}

/// A text ends in a page of its own, so what holds one context has room for a second one beside it.
Index choose_cache_tokens(const Model& model, DType cache_dtype, Index ctx, Index asked) {
  const Index whole = round_up(ctx, kPageTokens);
  if (asked == 0) {
    return std::max(2 * whole, std::min(64 * whole, tokens_in_a_quarter(model, cache_dtype)));
  }
  if (asked < ctx) {
    throw Error(ErrorCode::kUsage,
                fmt::format("a cache of {} tokens cannot hold a context of {}", asked, ctx),
                "expected at least as many, or a smaller --ctx");
  }
  return round_up(asked, kPageTokens);
}

}  // namespace

struct Engine::Parts {
  EngineOptions options;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Device> device;
  std::unique_ptr<const Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string tokenizer_problem, chat_problem;
  std::unique_ptr<ChatTemplate> chat;
  GenerationDefaults defaults;
  Index ctx = 0;
  std::unique_ptr<CachePool> cache;
  Workspace workspace;
};

Engine::Engine(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Engine::~Engine() = default;

std::unique_ptr<Engine> Engine::open(const std::filesystem::path& path,
                                     const EngineOptions& options) {
  auto p = std::make_unique<Parts>();
  p->options = options;
  p->checkpoint = Checkpoint::open(path);
  p->device = make_cpu_device(options.cpu);
  // A checkpoint without a usable tokenizer still runs from ids.
  try {
    p->tokenizer = tokenizer_of(*p->checkpoint);
  } catch (const Error& e) {
    p->tokenizer_problem = e.what();
  }
  if (p->tokenizer && p->tokenizer->n_tokens() == 0) {
    p->tokenizer.reset();
    p->tokenizer_problem = "the tokenizer has no tokens";
  }
  // Nor does a template that does not compile keep anybody from raw text.
  try {
    if (p->tokenizer) p->chat = template_of(*p->checkpoint, *p->tokenizer);
  } catch (const Error& e) {
    p->chat_problem = e.what();
  }
  p->defaults = defaults_of(*p->checkpoint, p->tokenizer.get());
  if (options.need_mtp) check_mtp(*p->checkpoint);
  p->model = load_model(*p->checkpoint, *p->device, options);
  const DType cache_dtype = options.cache_dtype.value_or(p->model->default_cache_dtype());
  if (cache_dtype != DType::f32 && cache_dtype != DType::bf16) {
    throw_error(ErrorCode::kUsage, "cache type {}: expected f32 or bf16", name(cache_dtype));
  }
  p->ctx = choose_ctx(*p->model, cache_dtype, options.ctx);
  p->cache = std::make_unique<CachePool>(
      *p->model, cache_dtype,
      choose_cache_tokens(*p->model, cache_dtype, p->ctx, options.cache_tokens));
  return std::unique_ptr<Engine>(new Engine(std::move(p)));
}

const EngineOptions& Engine::options() const { return parts_->options; }
const Checkpoint& Engine::checkpoint() const { return *parts_->checkpoint; }
const Model& Engine::model() const { return *parts_->model; }
Device& Engine::device() const { return *parts_->device; }
CachePool& Engine::cache() const { return *parts_->cache; }
PagePool& Engine::pages() const { return parts_->cache->pages(); }
Workspace& Engine::workspace() const { return parts_->workspace; }
const Tokenizer* Engine::tokenizer() const { return parts_->tokenizer.get(); }
std::string Engine::tokenizer_problem() const { return parts_->tokenizer_problem; }
const ChatTemplate* Engine::chat() const { return parts_->chat.get(); }
std::string Engine::chat_problem() const { return parts_->chat_problem; }
const GenerationDefaults& Engine::defaults() const { return parts_->defaults; }
Index Engine::ctx() const { return parts_->ctx; }

Index Engine::vocab_size() const { return parts_->model->config().vocab_size; }

Index Engine::n_valid_ids() const {
  const Index vocab = parts_->model->config().vocab_size;
  return parts_->tokenizer ? std::min<Index>(vocab, parts_->tokenizer->n_tokens()) : vocab;
}

std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  if (path.extension() == ".gguf") return tokenizer_of(*Checkpoint::open(path));
  const fs::path json = fs::is_directory(path) ? path / "tokenizer.json" : path;
  if (!fs::exists(json)) {
    if (fs::is_directory(path))
      return tokenizer_of(*Checkpoint::open(path));  // a directory with a GGUF
    throw_error(ErrorCode::kNotFound, "{}: no such file", path.string());
  }
  const fs::path config = json.parent_path() / "tokenizer_config.json";
  const MappedFile file = MappedFile::open(json);
  const MappedFile settings = fs::exists(config) ? MappedFile::open(config) : MappedFile();
  try {
    return Tokenizer::from_json(text_of(file), text_of(settings));
  } catch (const Error& e) {
    throw Error(e.code(), json.string() + ": " + e.what(), e.help());
  }
}

}  // namespace kogia
