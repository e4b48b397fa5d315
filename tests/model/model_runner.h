#pragma once
// A model with a cache of its own, driven batch by batch: what the tests of src/model/ share.

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "device/cpu_device.h"
#include "formats/checkpoint.h"
#include "model/model.h"

namespace kogia::test {

struct RunnerOptions {
  Isa isa = Isa::scalar;
  int n_threads = 1;
  std::optional<Compute> compute = Compute::f32;
  MlaForm mla = MlaForm::kAbsorbed;
  std::optional<DType> cache_dtype = DType::f32;  // unset: the model's default
  bool guess_in_int8 = false;
  PackingOptions packing = {};
  std::function<void(const LoadProgress&)> on_progress = {};
};

/// Pages and length of one sequence in the runner's cache.
struct Timeline {
  std::vector<std::int32_t> pages;
  Index length = 0;
};

class ModelRunner {
 public:
  struct Part {
    Timeline* timeline = nullptr;
    std::span<const std::int32_t> ids;
  };
  struct Result {
    Index vocab_size = 0, hidden_size = 0;
    std::vector<float> logits;  // [T, vocab_size]
    std::vector<float> hidden;  // [T, hidden_size]

    std::span<const float> row(Index r) const {
      return std::span(logits).subspan(static_cast<std::size_t>(r * vocab_size),
                                       static_cast<std::size_t>(vocab_size));
    }
  };

  ModelRunner(const std::filesystem::path& path, const RunnerOptions& options, Index n_pages = 40)
      : checkpoint_(Checkpoint::open(path)),
        device_(make_cpu_device({.n_threads = options.n_threads, .isa = options.isa})),
        model_(Model::load(*checkpoint_, *device_,
                           {.compute = options.compute,
                            .mla = options.mla,
                            .guess_in_int8 = options.guess_in_int8,
                            .packing = options.packing,
                            .on_progress = options.on_progress})) {
    CacheMemory& m = cache_;
    m.spec = model_->cache_spec(options.cache_dtype.value_or(model_->default_cache_dtype()));
    m.layer_stride = (device_->cache_page_bytes(m.spec) + 63) / 64 * 64;
    m.page_stride = m.layer_stride * model_->n_cache_layers();
    // Filled with NaN: whatever is read before it was written shows.
    memory_.assign(static_cast<std::size_t>(m.page_stride * n_pages + 64), std::byte{0xFF});
    const auto at = reinterpret_cast<std::uintptr_t>(memory_.data());
    m.base = memory_.data() + (64 - at % 64) % 64;
    for (Index p = n_pages; p-- > 0;) free_.push_back(static_cast<std::int32_t>(p));
  }

  const Model& model() const { return *model_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }

  /// One batch; every row's logits.
  Result step(std::span<const Part> parts) {
    std::vector<std::int32_t> ids, rows;
    const std::vector<SequenceRows> sequences = lay_out(parts, ids);
    for (std::size_t i = 0; i < ids.size(); ++i) rows.push_back(static_cast<std::int32_t>(i));
    const Batch batch{.ids = ids, .sequences = sequences, .logit_rows = rows, .cache = cache_};
    return copy(model_->forward(batch, workspace_));
  }

  Result step(Timeline& timeline, std::span<const std::int32_t> ids) {
    const Part part{&timeline, ids};
    return step(std::span(&part, 1));
  }

  /// The multi-token prediction layer over a whole sequence: row i takes ids[i + 1] and the state
  /// of row i. Its cache layer lies in pages of its own.
  Result mtp(std::span<const std::int32_t> ids, const Result& main) {
    const auto n = static_cast<std::int32_t>(ids.size()) - 1;
    Timeline timeline;
    std::vector<std::int32_t> unused, rows;
    const Part part{&timeline, ids.subspan(1)};
    const std::vector<SequenceRows> sequences = lay_out(std::span(&part, 1), unused);
    for (std::int32_t i = 0; i < n; ++i) rows.push_back(i);
    const auto next = ids.subspan(1);
    const Batch batch{.ids = next, .sequences = sequences, .logit_rows = rows, .cache = cache_};
    const ConstMat hidden(main.hidden.data(), n, main.hidden_size);
    return copy(model_->forward_mtp(0, next, hidden, batch, workspace_));
  }

  void release(Timeline& timeline) {
    free_.insert(free_.end(), timeline.pages.begin(), timeline.pages.end());
    timeline = {};
  }

 private:
  std::vector<SequenceRows> lay_out(std::span<const Part> parts, std::vector<std::int32_t>& ids) {
    std::vector<SequenceRows> sequences;
    for (const Part& part : parts) {
      const auto n = static_cast<Index>(part.ids.size());
      Timeline& t = *part.timeline;
      while (static_cast<Index>(t.pages.size()) * kPageTokens < t.length + n) {
        if (free_.empty()) throw std::runtime_error("the test's cache is full");
        t.pages.push_back(free_.back());
        free_.pop_back();
      }
      sequences.push_back({.row_begin = static_cast<Index>(ids.size()),
                           .n_rows = n,
                           .first_pos = t.length,
                           .pages = t.pages.data()});
      ids.insert(ids.end(), part.ids.begin(), part.ids.end());
      t.length += n;
    }
    return sequences;
  }

  static Result copy(const ForwardResult& r) {
    Result out{
        .vocab_size = r.logits.cols, .hidden_size = r.hidden.cols, .logits = {}, .hidden = {}};
    for (Index i = 0; i < r.logits.rows; ++i) {
      out.logits.insert(out.logits.end(), r.logits.row(i), r.logits.row(i) + r.logits.cols);
    }
    for (Index i = 0; i < r.hidden.rows; ++i) {
      out.hidden.insert(out.hidden.end(), r.hidden.row(i), r.hidden.row(i) + r.hidden.cols);
    }
    return out;
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<const Model> model_;
  CacheMemory cache_;
  std::vector<std::byte> memory_;
  std::vector<std::int32_t> free_;
  Workspace workspace_;
};

/// Every instruction set by name; one that this machine lacks is skipped by that name.
inline std::vector<Isa> all_isas() { return {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon}; }
inline bool is_available(Isa isa) {
  const std::vector<Isa> have = available_isas();
  return std::find(have.begin(), have.end(), isa) != have.end();
}
#define KOGIA_SKIP_IF_MISSING(isa) \
  if (!is_available(isa)) GTEST_SKIP() << "this processor has no " << name(isa)

}  // namespace kogia::test
