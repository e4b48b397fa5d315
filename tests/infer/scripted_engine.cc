#include "scripted_engine.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "infer/runner.h"

namespace kogia {
namespace {

class WordTokenizer final : public Tokenizer {
 public:
  explicit WordTokenizer(const test::Script& script) : script_(script) {}
  std::vector<TokenId> encode(std::string_view, const EncodeOptions&) const override { return {}; }
  std::vector<TokenId> encode_trusted(std::string_view, std::span<const ByteRange>) const override {
    return {};
  }
  std::string decode(std::span<const TokenId> ids, bool skip_special) const override {
    std::string text;
    for (const TokenId id : ids) {
      if (!(skip_special && is_special(id))) text += token_bytes(id);
    }
    return text;
  }
  std::string token_bytes(TokenId id) const override {
    return has_token(id) ? script_.words[static_cast<std::size_t>(id)] : std::string();
  }
  TokenId n_tokens() const override { return static_cast<TokenId>(script_.words.size()); }
  bool has_token(TokenId id) const override { return id >= 0 && id < n_tokens(); }
  bool is_special(TokenId id) const override { return std::ranges::count(script_.special, id) > 0; }
  bool is_added(TokenId id) const override {
    return is_special(id) || token_bytes(id).starts_with('<');
  }
  std::optional<TokenId> find(std::string_view content) const override {
    const auto found = std::ranges::find(script_.words, content);
    if (found == script_.words.end()) return {};
    return static_cast<TokenId>(found - script_.words.begin());
  }
  std::vector<std::string> added_contents() const override { return {}; }
  std::optional<TokenId> bos() const override { return {}; }
  std::optional<TokenId> eos() const override { return {}; }
  bool adds_bos() const override { return false; }

 private:
  const test::Script& script_;
};

// Only log_prob() is asked for.
class LogProbDevice final : public Device {
 public:
  std::string name() const override { return "script"; }
  int n_threads() const override { return 1; }
  Compute default_compute(DType) const override { return Compute::f32; }
  PackedForm packed_form(const MatrixSource&, const PackOptions&,
                         std::optional<int>) const override {
    return {};
  }
  void pack_rows(const MatrixSource&, const PackOptions&, const PackedForm&, Index, Index,
                 std::byte*) const override {}
  std::unique_ptr<Matrix> adopt(const MatrixSource&, const PackOptions&, const PackedForm&,
                                std::shared_ptr<const std::byte>) const override {
    return {};
  }
  std::unique_ptr<Matrix> borrow(const MatrixSource&, const PackOptions&) const override {
    return {};
  }
  Index cache_page_bytes(const CacheSpec&) const override { return 0; }
  void embed(const EmbedArgs&) override {}
  void linear(std::span<const LinearArgs>) override {}
  void rms_norm(const RmsNormArgs&) override {}
  void rope(const RopeArgs&) override {}
  void cache_append(const CacheAppendArgs&) override {}
  void cache_read(const CacheReadArgs&) override {}
  void attention(const AttentionArgs&) override {}
  void silu_mul(const SiluMulArgs&) override {}
  void route(const RouteArgs&) override {}
  void gather_rows(const GatherRowsArgs&) override {}
  void combine(const CombineArgs&) override {}
  void parallel(Index n, const std::function<void(Index)>& job) override {
    for (Index i = 0; i < n; ++i) job(i);
  }
  void log_prob(const LogProbArgs& a) override {
    for (std::size_t r = 0; r < a.ids.size(); ++r) {
      const float* row = a.logits + static_cast<Index>(r) * a.stride;
      double sum = 0;
      for (Index i = 0; i < a.n; ++i) sum += std::exp(static_cast<double>(row[i]));
      a.log_prob[r] = static_cast<float>(static_cast<double>(row[a.ids[r]]) - std::log(sum));
    }
  }
};

}  // namespace

struct Engine::Parts {
  explicit Parts(test::Script s) : script(std::move(s)), tokenizer(script) {
    defaults.eos = script.eos;
  }
  test::Script script;
  WordTokenizer tokenizer;
  LogProbDevice device;
  GenerationDefaults defaults;
  EngineOptions options;
  PagePool pages{2 * ceil_div(script.ctx, kPageTokens)};
};

namespace {
// Engine::open takes a path; the script to open lies here.
test::Script next_script;
test::Script* current_script = nullptr;
}  // namespace

Engine::Engine(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Engine::~Engine() = default;
std::unique_ptr<Engine> Engine::open(const std::filesystem::path&, const EngineOptions&) {
  auto parts = std::make_unique<Parts>(std::move(next_script));
  current_script = &parts->script;
  return std::unique_ptr<Engine>(new Engine(std::move(parts)));
}
const Tokenizer* Engine::tokenizer() const {
  return parts_->script.has_tokenizer ? &parts_->tokenizer : nullptr;
}
std::string Engine::tokenizer_problem() const { return "no tokenizer.json"; }
Device& Engine::device() const { return parts_->device; }
const GenerationDefaults& Engine::defaults() const { return parts_->defaults; }
Index Engine::ctx() const { return parts_->script.ctx; }
const EngineOptions& Engine::options() const { return parts_->options; }
PagePool& Engine::pages() const { return parts_->pages; }
CachePool& Engine::cache() const { KOGIA_CHECK(false && "there is no memory behind the pages"); }
Index Engine::vocab_size() const { return n_valid_ids(); }
Index Engine::n_valid_ids() const { return static_cast<Index>(parts_->script.words.size()); }

// The likeliest token gets logit 5, the others 0.
ForwardResult Runner::run(const StepPlan& plan) {
  test::Script& script = *current_script;
  const auto n_words = static_cast<Index>(script.words.size());
  static std::vector<float> logits;
  logits.clear();
  for (const ScheduledRows& rows : plan.rows) {
    const Index end = rows.first_pos + static_cast<Index>(rows.ids.size());
    if (rows.wants_logits) {
      for (Index n = end - rows.n_drafts; n <= end; ++n) {
        logits.resize(logits.size() + script.words.size(), 0);
        const auto found = script.likeliest.find(static_cast<std::size_t>(n));
        const auto id = found == script.likeliest.end() ? 0 : found->second;
        logits[logits.size() - script.words.size() + static_cast<std::size_t>(id)] = 5;
      }
    }
    if (rows.first_pos > 0 && script.on_append) script.on_append(static_cast<std::size_t>(end));
  }
  return {.logits = {logits.data(), static_cast<Index>(logits.size()) / n_words, n_words},
          .hidden = {}};
}

namespace test {

std::unique_ptr<Engine> scripted_engine(Script script) {
  next_script = std::move(script);
  return Engine::open({}, {});
}

}  // namespace test
}  // namespace kogia
