// P05: a chunk of a prompt reads each expert's weights once, however many of its tokens go there.

#include <map>
#include <set>

#include <gtest/gtest.h>

#include "device/cpu_device.h"
#include "formats/checkpoint.h"
#include "model/model.h"
#include "model/synth.h"
#include "model/synth_plan.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

/// Passes everything on, and notes which matrices linear() is given.
class Watched final : public Device {
 public:
  std::string name() const override { return inner_->name(); }
  int n_threads() const override { return inner_->n_threads(); }
  Compute default_compute(DType w) const override { return inner_->default_compute(w); }
  PackedForm packed_form(const MatrixSource& s, const PackOptions& o,
                         std::optional<int> v) const override {
    return inner_->packed_form(s, o, v);
  }
  void pack_rows(const MatrixSource& s, const PackOptions& o, const PackedForm& f, Index first,
                 Index n, std::byte* to) const override {
    inner_->pack_rows(s, o, f, first, n, to);
  }
  std::unique_ptr<Matrix> adopt(const MatrixSource& s, const PackOptions& o, const PackedForm& f,
                                std::shared_ptr<const std::byte> p) const override {
    return inner_->adopt(s, o, f, std::move(p));
  }
  std::unique_ptr<Matrix> borrow(const MatrixSource& s, const PackOptions& o) const override {
    return inner_->borrow(s, o);
  }
  Index cache_page_bytes(const CacheSpec& spec) const override {
    return inner_->cache_page_bytes(spec);
  }
  void embed(const EmbedArgs& a) override { inner_->embed(a); }
  void linear(std::span<const LinearArgs> products) override {
    for (const LinearArgs& p : products) {
      EXPECT_GT(p.rows, 0) << "an expert without rows costs nothing";
      ++reads[p.w];
    }
    inner_->linear(products);
  }
  void rms_norm(const RmsNormArgs& a) override { inner_->rms_norm(a); }
  void rope(const RopeArgs& a) override { inner_->rope(a); }
  void cache_append(const CacheAppendArgs& a) override { inner_->cache_append(a); }
  void cache_read(const CacheReadArgs& a) override { inner_->cache_read(a); }
  void attention(const AttentionArgs& a) override { inner_->attention(a); }
  void silu_mul(const SiluMulArgs& a) override { inner_->silu_mul(a); }
  void route(const RouteArgs& a) override { inner_->route(a); }
  void gather_rows(const GatherRowsArgs& a) override { inner_->gather_rows(a); }
  void combine(const CombineArgs& a) override { inner_->combine(a); }
  void log_prob(const LogProbArgs& a) override { inner_->log_prob(a); }
  void parallel(Index n, const std::function<void(Index)>& job) override {
    inner_->parallel(n, job);
  }

  std::map<const Matrix*, Index> reads;

 private:
  std::unique_ptr<Device> inner_ = make_cpu_device({.n_threads = 2, .isa = {}});
};

constexpr Index kExperts = 256, kTopK = 8, kWidth = 48;

// One dense layer and one of 256 experts, top 8 of 4 of 8 groups as in V3.
ModelConfig many_experts() {
  ModelConfig c = synth_config("v3-tiny");
  c.vocab_size = 512;
  c.hidden_size = 64;
  c.intermediate_size = 96;
  c.moe_intermediate_size = kWidth;
  c.num_hidden_layers = 2;
  c.num_nextn_predict_layers = 0;
  c.n_routed_experts = kExperts;
  c.num_experts_per_tok = kTopK;
  c.n_group = 8;
  c.topk_group = 4;
  return c;
}

class ExpertReads : public testing::Test {
 protected:
  ExpertReads() {
    synthesize({.name = "many-experts", .output = folder_.path() / "model", .n_threads = 2},
               many_experts());
    checkpoint_ = Checkpoint::open(folder_.path() / "model");
    model_ = Model::load(*checkpoint_, device_, {});
    memory_.spec = model_->cache_spec(DType::bf16);
    memory_.layer_stride = round_up(device_.cache_page_bytes(memory_.spec), 64);
    memory_.page_stride = model_->n_cache_layers() * memory_.layer_stride;
    bytes_.resize(static_cast<std::size_t>(8 * memory_.page_stride + 64));
    const auto at = reinterpret_cast<std::uintptr_t>(bytes_.data());
    memory_.base = bytes_.data() + (64 - at % 64) % 64;
    for (std::int32_t i = 0; i < 512; ++i) ids_.push_back(i * 37 % 512);
  }

  /// Logits after the last of n tokens that stand at `begin`.
  std::vector<float> step(Index begin, Index n) {
    const std::int32_t pages[] = {0, 1, 2, 3, 4, 5, 6, 7};
    const SequenceRows rows{.row_begin = 0, .n_rows = n, .first_pos = begin, .pages = pages};
    const auto last = static_cast<std::int32_t>(n - 1);
    const auto ids = std::span<const std::int32_t>(ids_).subspan(static_cast<std::size_t>(begin),
                                                                 static_cast<std::size_t>(n));
    device_.reads.clear();
    const ConstMat logits =
        model_
            ->forward(
                {.ids = ids, .sequences = {&rows, 1}, .logit_rows = {&last, 1}, .cache = memory_},
                workspace_)
            .logits;
    return {logits.row(0), logits.row(0) + logits.cols};
  }
  /// Of the last step: experts whose weights were read, and how often at most.
  Index n_experts_read() const {
    Index n = 0;
    for (const auto& [matrix, times] : device_.reads) {
      n += matrix->rows() == kWidth && matrix->cols() == 64;  // gate and up
    }
    // The shared expert has the same shape.
    return n / 2 - 1;
  }
  Index most_reads() const {
    Index most = 0;
    for (const auto& [matrix, times] : device_.reads) most = std::max(most, times);
    return most;
  }

  TempDir folder_;
  Watched device_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<const Model> model_;
  CacheMemory memory_;
  std::vector<std::byte> bytes_;
  std::vector<std::int32_t> ids_;
  Workspace workspace_;
};

TEST_F(ExpertReads, OncePerChunk) {
  step(0, 64);
  EXPECT_EQ(most_reads(), 1);
  EXPECT_GT(n_experts_read(), 64) << "as random routing goes";
  EXPECT_LE(n_experts_read(), kExperts);
  const Index of_64 = n_experts_read();
  step(0, 512);
  EXPECT_EQ(most_reads(), 1);
  EXPECT_GT(n_experts_read(), of_64);
  EXPECT_LE(n_experts_read(), kExperts) << "not 4,096, which reading one by one would be";
  step(511, 1);
  EXPECT_EQ(n_experts_read(), kTopK);
}

TEST_F(ExpertReads, OneByOneGivesTheSameBits) {
  const std::vector<float> together = step(0, 64);
  std::vector<float> alone;
  Index n_reads = 0;
  for (Index i = 0; i < 64; ++i) {
    alone = step(i, 1);
    n_reads += n_experts_read();
  }
  EXPECT_EQ(n_reads, 64 * kTopK);
  EXPECT_EQ(alone, together);
}

}  // namespace
}  // namespace kogia::test
