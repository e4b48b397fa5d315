#pragma once
// A model ready for use: checkpoint, device, weights, tokenizer, template and cache pool in one
// place.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/cpu_device.h"
#include "infer/cache_pool.h"
#include "model/model.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace kogia {

struct EngineOptions {
  CpuOptions cpu;
  std::optional<Compute> compute;
  MlaForm mla = MlaForm::kAbsorbed;
  std::optional<DType> cache_dtype;  // f32 or bf16; unset: Model::default_cache_dtype()
  Index ctx =
      0;  // tokens the cache can hold; 0: the model's maximum, or what fits in a quarter of memory
  Index chunk = 512;       // rows of a step, at most
  Index cache_tokens = 0;  // of all texts together, at least ctx; 0: see Engine::cache()
  bool load_mtp = false;
  bool guess_in_int8 = false;  // see LoadOptions
  bool need_mtp = false;       // open() throws Error (usage) where there are no such layers to load
  PackingOptions packing = {};
  bool show_progress = true;
};

/// generation_config.json (or nothing, for GGUF).
struct GenerationDefaults {
  std::optional<double> temperature, top_p, repetition_penalty;
  std::optional<Index> top_k;
  std::vector<TokenId>
      eos;  // every id that ends a turn: config, generation_config, tokenizer, GGUF eot
};

class Engine {
 public:
  /// `path` as Checkpoint::open takes it.
  static std::unique_ptr<Engine> open(const std::filesystem::path& path,
                                      const EngineOptions& options);
  ~Engine();

  const EngineOptions& options() const;
  const Checkpoint& checkpoint() const;
  const Model& model() const;
  Device& device() const;
  /// Room for two contexts, and where a quarter of memory holds more (up to 64), for more.
  CachePool& cache() const;
  PagePool& pages() const;  // of cache()
  Workspace& workspace() const;
  const Tokenizer* tokenizer()
      const;  // null where the checkpoint has none; see tokenizer_problem()
  std::string tokenizer_problem()
      const;                         // why there is none ("no tokenizer.json", "model 'llama' …")
  std::string chat_problem() const;  // why the template that is there cannot be used; else empty
  const ChatTemplate* chat() const;  // null where there is none
  const GenerationDefaults& defaults() const;
  Index ctx() const;
  Index vocab_size() const;
  /// Ids that may be sampled: rows of the head beyond the tokenizer are masked.
  Index n_valid_ids() const;

 private:
  struct Parts;
  explicit Engine(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

/// Opens only the text part (for `tokenize`): a directory, a .gguf or a tokenizer.json.
std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& path);

}  // namespace kogia
