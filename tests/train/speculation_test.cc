// Models that have learnt to predict several tokens at once, and the drafts that their layers make:
// the answer is the plain one, and the drafts are what the layers say of the whole text.

#include <algorithm>
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "device/cpu_device.h"
#include "infer/answer.h"
#include "infer/batcher.h"
#include "infer/cache_fingerprint.h"
#include "infer/disk_tier.h"
#include "infer/drafter.h"
#include "infer/page_store.h"
#include "infer/session_pages.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "train/run_file.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;

/// A made-up language of 64 words: each follows from the one before, and one in eight does not.
std::vector<TokenId> text_of(std::uint64_t key, std::size_t n) {
  const Philox random(5, key);
  std::vector<TokenId> ids;
  for (std::uint64_t i = 0; i < n; ++i) {
    const TokenId odd = random.below(8, i) == 0 ? 1 : 0;
    ids.push_back(ids.empty() ? static_cast<TokenId>(random.below(64, 1000))
                              : (ids.back() * 5 + 7 + odd) % 64);
  }
  return ids;
}

class Rows final : public RowSource {
 public:
  std::vector<PackedRow> rows(Index first, Index n) override {
    std::vector<PackedRow> rows;
    for (Index r = first; r < first + n; ++r) {
      rows.push_back({.ids = text_of(static_cast<std::uint64_t>(r), 49), .document_begin = {0}});
    }
    return rows;
  }
  std::vector<PackedRow> validation_rows(Index n) override { return rows(1'000'000, n); }
};

/// Trained once each, by depth.
class Speculation : public testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<TempDir>();
    dir_->write("text.jsonl", "{}");
    dir_->write("tokenizer.json", "{}");
    dir_->write("run.toml", kTinyRun);
  }
  static void TearDownTestSuite() { dir_.reset(); }

  static fs::path trained(int depth) {
    const fs::path folder = *dir_ / std::to_string(depth);
    if (fs::exists(folder)) return folder / "latest";
    RunFileOptions options;
    options.overrides = {"trainer.steps=120", "trainer.batch_size=8", "trainer.eval_every=0",
                         "model.num_nextn_predict_layers=" + std::to_string(depth)};
    options.cache = *dir_ / "cache";
    const RunConfig config = read_run_file(*dir_ / "run.toml", options);
    const auto device = make_cpu_device({.n_threads = 2});
    Rows rows;
    RunFolder run(folder);
    Trainer trainer(config, *device, rows, run, std::nullopt,
                    {.files = {{"tokenizer.json", "{}"}}, .bos = {}, .eos = {}});
    trainer.run([](const StepReport&) {});
    return folder / "latest";
  }
  static std::unique_ptr<Engine> open(int depth, Index cache_tokens = 0,
                                      MlaForm mla = MlaForm::kAbsorbed,
                                      bool guess_in_int8 = false) {
    return Engine::open(trained(depth), {.cpu = {.n_threads = 2, .isa = {}},
                                         .compute = {},
                                         .mla = mla,
                                         .cache_dtype = {},
                                         .ctx = kCtx,
                                         .cache_tokens = cache_tokens,
                                         .load_mtp = true,
                                         .guess_in_int8 = guess_in_int8,
                                         .need_mtp = true,
                                         .show_progress = false});
  }

  static constexpr Index kCtx = 320;
  static inline std::unique_ptr<TempDir> dir_;
};

BatcherOptions drafting(std::optional<Index> n_drafts = {}) {
  return {.make_batch_drafter = [n_drafts](Engine& engine) {
    return make_mtp_drafter(engine, {.n_drafts = n_drafts});
  }};
}

GenerateOptions asked(double temperature, Index max_tokens, std::uint64_t key) {
  return {.sampling = {.temperature = temperature, .seed = 5},
          .max_tokens = max_tokens,
          .prompt_key = key};
}

TEST_P(Speculation, AnswersAreThePlainOnesWhateverIsDrafted) {
  const auto engine = open(GetParam());
  // Eight pages: some texts are set back and computed again.
  const auto tight = open(GetParam(), /*cache_tokens=*/8 * 64, MlaForm::kAbsorbed,
                          /*guess_in_int8=*/true);
  for (const double temperature : {0.0, 0.7, 1.3}) {
    std::vector<std::vector<TokenId>> prompts;
    std::vector<Generation> plain;
    for (std::uint64_t i = 0; i < 12; ++i) {
      // Some begin as others do.
      prompts.push_back(text_of(1000 + i % 8, static_cast<std::size_t>(1 + 23 * i % 200)));
      Batcher alone(*engine, {.reuse_prefixes = false});
      plain.push_back(
          generate(alone, prompts[i], asked(temperature, 30 + static_cast<Index>(5 * i), i)));
      EXPECT_EQ(plain.back().drafts.all.n_drafted, 0);
    }
    for (const std::optional<Index> n_drafts : {std::optional<Index>(), {1}, {2}, {3}}) {
      BatcherOptions options = drafting(n_drafts);
      options.step_tokens = 24;
      options.max_sequences = 5;
      options.planned_tokens = 8;
      Batcher batcher(*tight, options);
      std::map<std::size_t, Generation> done;
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        batcher.submit({.prompt = prompts[i],
                        .options = asked(temperature, 30 + static_cast<Index>(5 * i), i)},
                       {.on_done = [&done, i](Generation g) { done[i] = std::move(g); }});
      }
      while (batcher.step()) batcher.check_pages();
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        EXPECT_EQ(done[i].ids, plain[i].ids) << "prompt " << i << " at " << temperature;
        EXPECT_EQ(done[i].logprobs, plain[i].logprobs);
      }
      if (!n_drafts) continue;
      EXPECT_GT(batcher.stats().n_accepted, batcher.stats().n_drafted / 10);
    }
    EXPECT_GT(engine->pages().n_pages(), tight->pages().n_pages());
  }
}

TEST_P(Speculation, GuessesRightWhatItHasLearnt) {
  const auto engine = open(GetParam());
  Batcher batcher(*engine, drafting(GetParam()));
  Index n_tokens = 0, n_steps = 0;
  std::vector<DraftCount> at(static_cast<std::size_t>(GetParam()));
  for (std::uint64_t i = 0; i < 10; ++i) {
    const Generation g = generate(batcher, text_of(2000 + i, 40), asked(0, 60, i));
    n_tokens += static_cast<Index>(g.ids.size());
    n_steps += g.drafts.n_steps;
    ASSERT_EQ(g.drafts.at.size(), at.size());
    for (std::size_t k = 0; k < at.size(); ++k) {
      at[k].n_drafted += g.drafts.at[k].n_drafted;
      at[k].n_accepted += g.drafts.at[k].n_accepted;
    }
  }
  for (const DraftCount& depth : at) {
    EXPECT_GT(static_cast<double>(depth.n_accepted), 0.7 * static_cast<double>(depth.n_drafted));
  }
  EXPECT_GT(static_cast<double>(n_tokens), (1 + 0.7 * GetParam()) * static_cast<double>(n_steps));
}

/// Makes the drafts once more, from the whole text and nothing else.
class Checked final : public BatchDrafter {
 public:
  Checked(Engine& engine, Engine& other, Index n_drafts, Index& n_checked)
      : inner_(make_mtp_drafter(engine, {.n_drafts = n_drafts})),
        engine_(other),
        n_drafts_(n_drafts),
        n_checked_(n_checked) {}
  void propose(std::span<Reader> readers) override {
    // Now more and now fewer, also none for a long time.
    for (Reader& r : readers) {
      const auto n = static_cast<std::uint64_t>(r.answer->history().size());
      const auto most = n % 120 < 50 ? Index{0} : static_cast<Index>(Philox(n).below(4, 0));
      r.max_drafts = std::min(r.max_drafts, most);
    }
    inner_->propose(readers);
    for (const Reader& r : readers) {
      const auto history = r.answer->history();
      if (r.drafts.empty() || history.size() % 3 != 0) continue;
      const auto most = static_cast<std::size_t>(std::min(r.max_drafts, n_drafts_));
      const auto expected = from_scratch({history.begin(), history.end()}, most);
      EXPECT_EQ(r.drafts, expected) << "behind " << history.size() << " tokens";
      ++n_checked_;
    }
  }
  void begin(const StepPlan& plan) override { inner_->begin(plan); }
  void computed(std::span<const Computed> rows) override { inner_->computed(rows); }
  void record(SequenceId id, Index drafted, Index accepted, Index rows, double seconds) override {
    inner_->record(id, drafted, accepted, rows, seconds);
  }
  void remove(SequenceId id) override { inner_->remove(id); }

 private:
  std::vector<TokenId> from_scratch(std::vector<TokenId> tokens, std::size_t n) {
    const Model& model = engine_.model();
    const auto n_rows = static_cast<Index>(tokens.size()) - 1;
    std::vector<std::int32_t> pages;
    for (Index p = 0; p * kPageTokens < n_rows; ++p) pages.push_back(static_cast<std::int32_t>(p));
    const SequenceRows rows{
        .row_begin = 0, .n_rows = n_rows, .first_pos = 0, .pages = pages.data()};
    const Batch main{.ids = std::span(tokens).first(static_cast<std::size_t>(n_rows)),
                     .sequences = {&rows, 1},
                     .logit_rows = {},
                     .cache = engine_.cache().memory()};
    Workspace workspace;
    const auto copy = [](ConstMat m) {
      return std::vector<float>(m.data, m.data + m.rows * m.stride);
    };
    std::vector<float> hidden = copy(model.forward(main, workspace).hidden);
    std::vector<TokenId> drafts;
    const auto last = static_cast<std::int32_t>(n_rows) - 1;
    for (std::size_t k = 0; k < n; ++k) {
      const auto next = std::span(tokens).subspan(k + 1);
      const Batch ahead{.ids = next,
                        .sequences = {&rows, 1},
                        .logit_rows = {&last, 1},
                        .cache = engine_.cache().mtp()->memory()};
      const auto result =
          model.forward_mtp(static_cast<Index>(k), next,
                            {hidden.data(), n_rows, model.config().hidden_size}, ahead, workspace);
      const float* row = result.logits.row(0);
      tokens.push_back(static_cast<TokenId>(std::max_element(row, row + result.logits.cols) - row));
      drafts.push_back(tokens.back());
      hidden = copy(result.hidden);
    }
    return drafts;
  }

  std::unique_ptr<BatchDrafter> inner_;
  Engine& engine_;
  Index n_drafts_;
  Index& n_checked_;
};

TEST_P(Speculation, DraftsAreThoseOfTheWholeText) {
  const auto engine = open(GetParam()), other = open(GetParam());
  Index n_checked = 0, n_accepted = 0, n_drafted = 0;
  for (Index n_drafts = 1; n_drafts <= GetParam(); ++n_drafts) {
    Batcher batcher(*engine, {.step_tokens = 24,
                              .max_sequences = 3,
                              .reuse_prefixes = false,
                              .make_batch_drafter = [&](Engine& e) {
                                return std::make_unique<Checked>(e, *other, n_drafts, n_checked);
                              }});
    for (std::uint64_t i = 0; i < 6; ++i) {
      batcher.submit({.prompt = text_of(3000 + i, 2 + 31 * i), .options = asked(0, 120, i)}, {});
    }
    batcher.run();
    n_drafted += batcher.stats().n_drafted;
    n_accepted += batcher.stats().n_accepted;
  }
  EXPECT_GT(n_checked, 20);
  EXPECT_GT(n_accepted, 0);
  EXPECT_LT(n_accepted, n_drafted) << "what follows a wrong draft has been seen too";
}

// The layers' losses in training are what the serving path says of the same text, computed in
// pieces of any size.
TEST_P(Speculation, TrainingAndServingAreOneForward) {
  const auto engine = open(GetParam(), 0, MlaForm::kExpanded);
  const Model& model = engine->model();
  const std::vector<TokenId> text = text_of(4000, 101);
  const auto n = static_cast<Index>(text.size()) - 1;
  const std::vector<std::int32_t> pages = {0, 1};
  const SequenceRows whole{.row_begin = 0, .n_rows = n, .first_pos = 0, .pages = pages.data()};
  const auto at_depth = [](const auto& v, Index k) {
    return std::span(v).subspan(static_cast<std::size_t>(k));
  };

  // One memory for all layers, as in training.
  PagedMemory all(model, engine->cache().memory().spec.dtype, 0, model.n_cache_layers(), 2);
  Workspace workspace;
  const std::vector<float> weights(static_cast<std::size_t>(GetParam()) + 1, 1.0F);
  const Index begin = 0;
  const auto losses =
      model.forward_train({.ids = std::span(text).first(static_cast<std::size_t>(n)),
                           .targets = at_depth(text, 1),
                           .sequences = {&whole, 1},
                           .packed_rows = {&begin, 1},
                           .cache = all.memory(),
                           .loss_weights = weights,
                           .row_weights = weights},
                          workspace);
  ASSERT_EQ(losses.size(), weights.size());

  const Index width = model.config().hidden_size;
  std::vector<float> states, next_states;
  std::vector<Index> choices;                  // of the main model at each position
  std::vector<bool> right(text.size(), true);  // the guesses from each position, so far
  for (Index k = 0; k <= GetParam(); ++k) {
    double sum = 0;
    Index n_drafted = 0, n_accepted = 0;
    next_states.clear();
    const Index n_rows = n - k;
    for (Index pos = 0, piece = 1; pos < n_rows; pos += piece, piece = piece * 3 % 17) {
      piece = std::min(piece, n_rows - pos);
      const SequenceRows rows{
          .row_begin = 0, .n_rows = piece, .first_pos = pos, .pages = pages.data()};
      std::vector<std::int32_t> logit_rows;
      for (Index r = 0; r < piece; ++r) logit_rows.push_back(static_cast<std::int32_t>(r));
      const auto ids = at_depth(text, pos + k).first(static_cast<std::size_t>(piece));
      const Batch batch{
          .ids = ids,
          .sequences = {&rows, 1},
          .logit_rows = logit_rows,
          .cache = k == 0 ? engine->cache().memory() : engine->cache().mtp()->memory()};
      const ForwardResult result =
          k == 0 ? model.forward(batch, workspace)
                 : model.forward_mtp(k - 1, ids, {states.data() + pos * width, piece, width}, batch,
                                     workspace);
      for (Index r = 0; r < piece; ++r) {
        const auto logprobs =
            log_softmax({result.logits.row(r), static_cast<std::size_t>(result.logits.cols)});
        sum -= logprobs[static_cast<std::size_t>(text[static_cast<std::size_t>(pos + r + k + 1)])];
        next_states.insert(next_states.end(), result.hidden.row(r), result.hidden.row(r) + width);
        const Index choice = std::ranges::max_element(logprobs) - logprobs.begin();
        if (k == 0) choices.push_back(choice);
        const auto at = static_cast<std::size_t>(pos + r);
        if (k == 0 || !right[at]) continue;
        ++n_drafted;
        right[at] = choice == choices[at + static_cast<std::size_t>(k)];
        if (right[at]) ++n_accepted;
      }
    }
    states = next_states;
    const TrainLoss& loss = losses[static_cast<std::size_t>(k)];
    ASSERT_EQ(loss.n, n_rows);
    EXPECT_NEAR(sum, loss.sum, 1e-5 * sum) << "depth " << k;
    EXPECT_EQ(loss.n_drafted, n_drafted) << "depth " << k;
    EXPECT_EQ(loss.n_accepted, n_accepted) << "depth " << k;
    if (k == 0) continue;
    EXPECT_GT(loss.n_accepted, n_rows / 4) << "it has learnt something";
    EXPECT_LT(loss.n_accepted, n_rows);
  }
}

// What is found in memory keeps the layers' caches, what comes from a disk or a file has none.
TEST_P(Speculation, GoesOnBehindWhatIsCached) {
  const std::vector<TokenId> prompt = text_of(5000, 150);
  const GenerateOptions options = asked(0.5, 80, 1);
  const TempDir dir;
  Generation plain;
  {
    const auto engine = open(GetParam());
    Batcher batcher(*engine, {});
    plain = generate(batcher, prompt, options);
  }
  const auto with_disk = [&](Engine& engine) {
    return PageStore::open({.folder = dir.path() / "pages",
                            .fingerprint = cache_fingerprint(engine),
                            .page_bytes = engine.cache().page_bytes()});
  };
  {
    const auto engine = open(GetParam());
    const auto store = with_disk(*engine);
    DiskTier tier(*engine, *store);
    BatcherOptions o = drafting(GetParam());
    o.lower_tier = &tier;
    Batcher batcher(*engine, o);
    for (const Index n_computed : {150, 1}) {
      const Generation g = generate(batcher, prompt, options);
      EXPECT_EQ(g.ids, plain.ids);
      EXPECT_EQ(g.n_prompt_computed, n_computed) << "the second time it is in memory";
      EXPECT_GT(2 * g.drafts.all.n_accepted, g.drafts.all.n_drafted);
    }
    store->flush();
    std::vector<TokenId> text = prompt;
    text.insert(text.end(), plain.ids.begin(), plain.ids.end());
    save_session(*engine, batcher.prefixes(), dir.path() / "session", "", text);
  }
  {
    const auto engine = open(GetParam());
    const auto store = with_disk(*engine);
    DiskTier tier(*engine, *store);
    BatcherOptions o = drafting(GetParam());
    o.lower_tier = &tier;
    Batcher batcher(*engine, o);
    const Generation g = generate(batcher, prompt, options);
    EXPECT_EQ(g.ids, plain.ids);
    EXPECT_EQ(g.n_prompt_computed, 150 - 128) << "full pages come from the disk";
    EXPECT_GT(2 * g.drafts.all.n_accepted, g.drafts.all.n_drafted);
  }
  {
    const auto engine = open(GetParam());
    Batcher batcher(*engine, drafting(GetParam()));
    load_session(*engine, batcher.prefixes(), dir.path() / "session", "");
    const Generation g = generate(batcher, prompt, options);
    EXPECT_EQ(g.ids, plain.ids);
    EXPECT_LT(g.n_prompt_computed, 64);
    EXPECT_GT(2 * g.drafts.all.n_accepted, g.drafts.all.n_drafted);
  }
}

TEST_P(Speculation, PagesAreTheSameWithAndWithoutIt) {
  const auto with = open(GetParam());
  const auto without = Engine::open(trained(GetParam()), {.cpu = {.n_threads = 2, .isa = {}},
                                                          .compute = {},
                                                          .cache_dtype = {},
                                                          .ctx = kCtx,
                                                          .show_progress = false});
  EXPECT_EQ(cache_fingerprint(*with), cache_fingerprint(*without));
  EXPECT_EQ(with->cache().page_bytes(), without->cache().page_bytes());
}

TEST_P(Speculation, NothingIsDraftedWhereRowsAreOtherSums) {
  const auto engine = open(GetParam(), 0, MlaForm::kAuto);
  Batcher batcher(*engine, drafting(GetParam()));
  EXPECT_EQ(generate(batcher, text_of(1, 20), asked(0, 20, 0)).drafts.all.n_drafted, 0);
}

INSTANTIATE_TEST_SUITE_P(Depths, Speculation, testing::Values(1, 2, 3));

TEST(SpeculationErrors, NeedsLayersToDraftWith) {
  for (const char* name : {"qwen2", "v2_lite", "v3/kv_b.gguf"}) {
    try {
      Engine::open(golden_folder(name), {.cpu = {.n_threads = 1, .isa = {}},
                                         .compute = {},
                                         .cache_dtype = {},
                                         .load_mtp = true,
                                         .need_mtp = true,
                                         .show_progress = false});
      ADD_FAILURE() << name << " was opened";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      EXPECT_THAT(e.what(), testing::HasSubstr("no layers of multi-token prediction"));
      EXPECT_THAT(e.what(), testing::HasSubstr("num_nextn_predict_layers"));
    }
  }
}

}  // namespace
}  // namespace kogia::test
