// Products over threads: x is rounded once, then tiles of rows × panels of all products are handed
// out together.

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "base/error.h"
#include "device/cpu/cpu_features.h"
#include "device/cpu/linear.h"
#include "device/cpu/pack_panels.h"
#include "device/cpu/packed_matrix.h"
#include "device/reference/matrix.h"
#include "tensor/convert.h"
#include "tensor/gguf_blocks.h"

namespace kogia {
namespace {

#if defined(KOGIA_X86_KERNELS) || defined(KOGIA_ARM_KERNELS)

// Multiplications of a task at least, where there are as many: some microseconds.
constexpr Index kTaskProducts = Index{1} << 17;
// Tasks that a call's products are cut into at most, before each gets a few; more than there are
// threads, for balance.
constexpr Index kStretches = 128, kLeastStretches = 4;
// Calls with fewer run on the calling thread: waking another costs more.
constexpr Index kInlineProducts = Index{1} << 16;
// What a borrowed matrix is packed in at a time: fits a cache.
constexpr Index kStretchBytes = Index{256} << 10;
// Weights that stay in a core's cache for all rows of x, beside those rows.
constexpr Index kKeptBytes = Index{320} << 10;
// Numbers of x from which rounding it is worth a dispatch of its own.
constexpr Index kInlineRounding = Index{1} << 15;

/// x of one or several products, rounded.
struct RoundedX {
  const float* x = nullptr;  // of the caller: two products with the same share this
  Index x_stride = 0, rows = 0, cols = 0, group = 0, n_padded = 0;
  Rounding rounding = Rounding::none;
  Products form = Products::f32;
  bool with_sums = false;
  Index begin = 0, sums_begin = 0;  // in the scratch, 4-byte units
  Index stride = 0, sums_stride = 0;

  bool serves(const RoundedX& o) const {
    return x == o.x && x_stride == o.x_stride && rows == o.rows && cols == o.cols &&
           rounding == o.rounding && form == o.form &&
           (!o.with_sums || (with_sums && group == o.group));
  }
  bool as_it_is() const { return rounding == Rounding::none && n_padded == cols; }
};

struct Job {
  const LinearArgs* args;
  const PackedMatrix* matrix;
  const PackedView* w;
  Index x;  // which RoundedX
  Index first_task, panel_tasks, panels_per_task;
  bool keeps_panels = false;  // tasks of the same panels follow each other, not of the same rows
};

/// Kept from call to call, so that a decoded token allocates nothing.
struct Scratch {
  std::vector<RoundedX> xs;
  std::vector<Job> jobs;
  float* numbers = nullptr;
  Index capacity = 0;

  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { ::operator delete[](numbers, std::align_val_t{64}); }

  void reserve(Index n) {
    if (n <= capacity) return;
    ::operator delete[](numbers, std::align_val_t{64});
    numbers = nullptr, capacity = 0;
    const auto bytes = static_cast<std::size_t>(n) * sizeof(float);
    numbers = static_cast<float*>(::operator new[](bytes, std::align_val_t{64}));
    capacity = n;
  }
};

thread_local Scratch t_scratch;
thread_local Scratch t_panels;  // of a borrowed matrix

void check(const LinearArgs& a) {
  KOGIA_CHECK(a.w != nullptr && a.rows >= 0);
  KOGIA_CHECK(a.rows == 0 || (a.x_stride >= a.w->cols() && a.y_stride >= a.w->rows()));
}

bool is_whole(Products form) { return form == Products::int8 || form == Products::int16; }

bool needs_sums(const PackedView& w) {
  return is_whole(w.products) || (w.products == Products::bf16 && w.has_min);
}

/// Which rounded x this product reads; a new one where no product before has it.
Index find_x(const LinearArgs& a, const PackedView& w, Scratch& s) {
  const RoundedX want = {.x = a.x,
                         .x_stride = a.x_stride,
                         .rows = a.rows,
                         .cols = w.cols,
                         .group = w.group,
                         .n_padded = round_up(w.cols, 32),
                         .rounding = w.rounding,
                         .form = w.products,
                         .with_sums = needs_sums(w)};
  // Products that share x stand together; the other experts need not be searched.
  const Index n = static_cast<Index>(s.xs.size());
  for (Index i = n - 1; i >= std::max<Index>(0, n - 4); --i) {
    if (s.xs[static_cast<std::size_t>(i)].serves(want)) return i;
  }
  s.xs.push_back(want);
  return n;
}

Index values_of_word(Products form) {
  return form == Products::f32 ? 1 : form == Products::int8 ? 4 : 2;
}

/// Gives each its place in the scratch; returns the numbers needed.
Index place_xs(std::vector<RoundedX>& xs, Index whole_sums) {
  Index n = 0;
  for (RoundedX& x : xs) {
    if (x.as_it_is()) continue;
    x.begin = n;
    x.stride = round_up(x.n_padded / values_of_word(x.form), 16);
    n += x.rows * x.stride;
    if (!x.with_sums) continue;
    x.sums_begin = n;
    x.sums_stride = ceil_div(x.n_padded, x.group) * (is_whole(x.form) ? whole_sums : 1);
    n += round_up(x.rows * x.sums_stride, 16);
  }
  return n;
}

// Per 128 columns: s = max(max|x|, 1e-4) / 448, e4m3(x / s) s.
void round_row_e4m3(const ActivationRow& a) {
  float* out = static_cast<float*>(a.out);
  for (Index b = 0; b < a.n; b += 128) {
    const Index end = std::min(a.n, b + 128);
    float top = 0;
    for (Index i = b; i < end; ++i) top = std::max(top, std::fabs(a.x[i]));
    const float scale = std::max(top, 1e-4F) / 448;
    for (Index i = b; i < end; ++i) out[i] = e4m3_to_f32(f32_to_e4m3(a.x[i] / scale)) * scale;
  }
  std::fill(out + a.n, out + a.n_padded, 0.0F);
}

// Per 32 columns: d = max|x| / 32767, q = x / d to nearest even; q d.
void round_row_int16(const ActivationRow& a) {
  float* out = static_cast<float*>(a.out);
  for (Index b = 0; b < a.n; b += 32) {
    const Index end = std::min(a.n, b + 32);
    float top = 0;
    for (Index i = b; i < end; ++i) top = std::max(top, std::fabs(a.x[i]));
    const float most = whole_limit(Rounding::int16), d = top / most;
    const float inverse = top > 0 ? most / top : 0;
    for (Index i = b; i < end; ++i) out[i] = std::nearbyint(a.x[i] * inverse) * d;
  }
  std::fill(out + a.n, out + a.n_padded, 0.0F);
}

void round_rows(const RoundedX& x, Index begin, Index end, const LinearKernels& kernels,
                float* numbers) {
  for (Index r = begin; r < end; ++r) {
    const ActivationRow row = {
        .x = x.x + r * x.x_stride,
        .n = x.cols,
        .n_padded = x.n_padded,
        .group = x.group,
        .rounding = x.rounding,
        .form = x.form,
        .out = numbers + x.begin + r * x.stride,
        .sums = x.with_sums ? numbers + x.sums_begin + r * x.sums_stride : nullptr};
    if (row.rounding == Rounding::e4m3) {
      round_row_e4m3(row);
    } else if (row.rounding == Rounding::int16 && !kernels.pair_products) {
      round_row_int16(row);
    } else {
      kernels.round_row(row);
    }
  }
}

void round_all(const Scratch& s, const LinearKernels& kernels, ThreadPool& pool) {
  float* numbers = s.numbers;
  for (const RoundedX& x : s.xs) {
    if (x.as_it_is()) continue;
    if (x.rows * x.cols < kInlineRounding) {
      round_rows(x, 0, x.rows, kernels, numbers);
    } else {
      pool.parallel_for(x.rows, 16, [&](Index begin, Index end, int) {
        round_rows(x, begin, end, kernels, numbers);
      });
    }
  }
}

/// A borrowed matrix: stretches that fit a cache, each packed once for all rows.
Index cut_borrowed(Job& job) {
  const Index wide = 12;  // whatever number of panels a kernel takes at once
  job.panels_per_task = wide * std::max<Index>(1, kStretchBytes / (wide * job.w->panel_bytes));
  job.panel_tasks = ceil_div(job.w->n_panels(), job.panels_per_task);
  return job.panel_tasks;
}

/// What a thread keeps in its cache from task to task: the rows of x, and every task reads other
/// weights, all of them once for each kTileRows rows; or a stretch of panels, and x is read once
/// for each stretch. Whichever reads less.
void choose_order(Job& job, Index row_tasks, const RoundedX& x) {
  // Half of its bytes: x was just written and is nearer than weights are.
  const Index x_bytes = x.rows * x.n_padded / values_of_word(x.form) * 4 / 2;
  const Index w_bytes = job.w->n_panels() * job.w->panel_bytes;
  const Index wide = 3 * std::max<Index>(1, kKeptBytes / (3 * job.w->panel_bytes));
  const Index stretches = ceil_div(job.w->n_panels(), wide);
  job.keeps_panels = w_bytes + stretches * x_bytes < row_tasks * w_bytes + x_bytes;
  if (job.keeps_panels) job.panels_per_task = wide;
}

/// Cuts one of n_products into tasks; returns how many.
Index cut(Job& job, const RoundedX& x, Index n_products) {
  if (job.matrix->borrowed()) return cut_borrowed(job);
  const Index rows = std::min(job.args->rows, kTileRows);
  const Index wide = rows > 4 ? 3 : 4;  // panels that a kernel takes at once
  const Index products = wide * kPanelRows * std::max<Index>(1, job.w->cols) * rows;
  // Large matrices in longer stretches, and those of many experts: the next weights are prefetched
  // by who will read them.
  const Index stretches = std::max(kLeastStretches, kStretches / n_products);
  const Index stretch = ceil_div(job.w->n_panels(), wide * stretches);
  job.panels_per_task = wide * std::max(stretch, std::max<Index>(1, kTaskProducts / products));
  const Index row_tasks = ceil_div(job.args->rows, kTileRows);
  if (row_tasks > 1) choose_order(job, row_tasks, x);
  job.panel_tasks = ceil_div(job.w->n_panels(), job.panels_per_task);
  return job.panel_tasks * row_tasks;
}

/// The rows of y from `r` on.
LinearTile tile_of(const Scratch& s, const Job& job, Index r) {
  const LinearArgs& a = *job.args;
  const RoundedX& x = s.xs[static_cast<std::size_t>(job.x)];
  const bool as_it_is = x.as_it_is();
  const Index stride = as_it_is ? a.x_stride : x.stride;
  return {.w = job.w,
          .panel_begin = 0,
          .panel_end = 0,
          .x = (as_it_is ? a.x : s.numbers + x.begin) + r * stride,
          .x_stride = stride,
          .sums = x.with_sums ? s.numbers + x.sums_begin + r * x.sums_stride : nullptr,
          .sums_stride = x.with_sums ? x.sums_stride : 0,
          .rows = std::min(kTileRows, a.rows - r),
          .y = a.y + r * a.y_stride,
          .residual = a.residual == nullptr ? nullptr : a.residual + r * a.y_stride,
          .bias = a.bias,
          .y_stride = a.y_stride};
}

void run_task(const Scratch& s, const Job& job, Index task, const LinearKernels& kernels) {
  const Index row_tasks = ceil_div(job.args->rows, kTileRows);
  const Index rows = job.keeps_panels ? task % row_tasks : task / job.panel_tasks;
  const Index panels = job.keeps_panels ? task / row_tasks : task % job.panel_tasks;
  LinearTile tile = tile_of(s, job, rows * kTileRows);
  tile.panel_begin = panels * job.panels_per_task;
  tile.panel_end = std::min(job.w->n_panels(), tile.panel_begin + job.panels_per_task);
  kernels.tile(tile);
}

/// Packs a stretch into the thread's scratch and multiplies there, as a matrix of these rows alone.
void run_borrowed(const Scratch& s, const Job& job, Index task, const LinearKernels& kernels) {
  const Index begin = task * job.panels_per_task, row = begin * kPanelRows;
  const Index end = std::min(job.w->n_panels(), begin + job.panels_per_task);
  t_panels.reserve((end - begin) * job.w->panel_bytes / static_cast<Index>(sizeof(float)));
  std::byte* panels = reinterpret_cast<std::byte*>(t_panels.numbers);
  job.matrix->pack(begin, end, panels);

  PackedView stretch = *job.w;
  stretch.data = panels;
  stretch.rows = std::min(job.w->rows, end * kPanelRows) - row;
  for (Index r = 0; r < job.args->rows; r += kTileRows) {
    LinearTile tile = tile_of(s, job, r);
    tile.w = &stretch;
    tile.panel_end = end - begin;
    tile.y += row;
    if (tile.residual != nullptr) tile.residual += row;
    if (tile.bias != nullptr) tile.bias += row;
    kernels.tile(tile);
  }
}

void linear(std::span<const LinearArgs> products, ThreadPool& pool, const LinearKernels& kernels) {
  Scratch& s = t_scratch;
  s.xs.clear(), s.jobs.clear();
  Index n_tasks = 0, n_products = 0;
  for (const LinearArgs& a : products) {
    check(a);
    if (a.rows == 0 || a.w->rows() == 0) continue;
    const PackedMatrix& matrix = static_cast<const PackedMatrix&>(*a.w);
    const PackedView& w = matrix.view();
    Job job = {.args = &a,
               .matrix = &matrix,
               .w = &w,
               .x = find_x(a, w, s),
               .first_task = n_tasks,
               .panel_tasks = 0,
               .panels_per_task = 0};
    n_tasks += cut(job, s.xs[static_cast<std::size_t>(job.x)], std::ssize(products));
    n_products += a.rows * w.rows * w.cols;
    s.jobs.push_back(job);
  }
  s.reserve(place_xs(s.xs, kernels.whole_sums));
  round_all(s, kernels, pool);

  const auto run = [&s, &kernels](Index task, int) {
    const auto after = std::upper_bound(s.jobs.begin(), s.jobs.end(), task,
                                        [](Index t, const Job& job) { return t < job.first_task; });
    const Job& job = *(after - 1);
    const auto run_one = job.matrix->borrowed() ? run_borrowed : run_task;
    run_one(s, job, task - job.first_task, kernels);
  };
  if (n_products < kInlineProducts) {
    for (Index task = 0; task < n_tasks; ++task) run(task, 0);
  } else {
    pool.run(n_tasks, run);
  }
}

void embed(const EmbedArgs& a, ThreadPool& pool) {
  const PackedMatrix& table = static_cast<const PackedMatrix&>(*a.table);
  pool.parallel_for(static_cast<Index>(a.ids.size()), 16, [&](Index begin, Index end, int) {
    for (Index i = begin; i < end; ++i) {
      const Index id = a.ids[static_cast<std::size_t>(i)];
      KOGIA_CHECK(id >= 0 && id < table.rows());
      table.decode_row(id, a.y + i * table.cols());
    }
  });
}

PackedForm panel_form(const MatrixSource& source, const PackedView& layout, int variant) {
  return {.name = panel_layout_name(source, layout),
          .n_bytes = layout.n_panels() * layout.panel_bytes,
          .row_step = kPanelRows,
          .step_bytes = layout.panel_bytes,
          .variant = variant,
          .repacked = repacked_as(source, layout)};
}

template <const LinearKernels& kKernels>
struct Panels {
  static PackedView layout(const MatrixSource& source, const PackOptions& options, int variant) {
    reference::check_packable(source, options);
    return panel_layout(source, options, kKernels.pair_products, variant);
  }
  static PackedForm packed_form(const MatrixSource& source, const PackOptions& options,
                                std::optional<int> variant) {
    reference::check_packable(source, options);
    const int chosen = variant ? *variant : panel_variant(source, options, kKernels.pair_products);
    return panel_form(source, layout(source, options, chosen), chosen);
  }
  static void pack_rows(const MatrixSource& source, const PackOptions& options,
                        const PackedForm& form, Index first, Index n, std::byte* to) {
    const PackedView view = layout(source, options, form.variant);
    KOGIA_CHECK(first % kPanelRows == 0 && first + n <= view.rows);
    pack_panels(source, options.transpose, view, first / kPanelRows,
                ceil_div(first + n, kPanelRows), to);
  }
  static std::unique_ptr<Matrix> adopt(const MatrixSource& source, const PackOptions& options,
                                       const PackedForm& form,
                                       std::shared_ptr<const std::byte> packed) {
    KOGIA_CHECK(packed != nullptr);
    return std::make_unique<PackedMatrix>(source, options, layout(source, options, form.variant),
                                          std::move(packed));
  }
  static std::unique_ptr<Matrix> borrow(const MatrixSource& source, const PackOptions& options) {
    return std::make_unique<PackedMatrix>(source, options, layout(source, options, 0), nullptr);
  }
  static void linear(std::span<const LinearArgs> products, ThreadPool& pool) {
    kogia::linear(products, pool, kKernels);
  }
};

template <const LinearKernels& kKernels>
constexpr MatrixOps packed_ops(Compute (*default_compute)(DType)) {
  using P = Panels<kKernels>;
  return {.default_compute = default_compute,
          .packed_form = P::packed_form,
          .pack_rows = P::pack_rows,
          .adopt = P::adopt,
          .borrow = P::borrow,
          .embed = embed,
          .linear = P::linear};
}

#endif

#ifdef KOGIA_X86_KERNELS

// With bf16 dot products GGUF blocks are multiplied in bf16: whole numbers exact, no rounding of
// the activations to 8 bits.
Compute default_with_bf16(DType weights) {
  return is_block(weights) ? Compute::bf16 : reference::default_compute(weights);
}

// Where bf16 dot products are slow: blocks in 16-bit whole numbers, but for codes that are looked
// up; all else in f32.
Compute default_with_int16(DType weights) {
  if (!is_block(weights)) return Compute::f32;
  return nibble_values(weights) == nullptr ? Compute::int16 : Compute::bf16;
}

constexpr MatrixOps kAvx2 = packed_ops<avx2::kLinearKernels>(reference::default_compute);
constexpr MatrixOps kAvx2Vnni = packed_ops<avx2_vnni::kLinearKernels>(reference::default_compute);
constexpr MatrixOps kAvx512 = packed_ops<avx512::kLinearKernels>(default_with_bf16);
constexpr MatrixOps kAvx512Int16 = packed_ops<avx512::kLinearKernels>(default_with_int16);

#endif

#ifdef KOGIA_ARM_KERNELS

constexpr MatrixOps kNeon = packed_ops<neon::kLinearKernels>(reference::default_compute);
constexpr MatrixOps kNeonDot = packed_ops<neon_dot::kLinearKernels>(reference::default_compute);

#endif

constexpr MatrixOps kReference = {.default_compute = reference::default_compute,
                                  .packed_form = reference::packed_form,
                                  .pack_rows = reference::pack_rows,
                                  .adopt = reference::adopt,
                                  .borrow = reference::borrow,
                                  .embed = reference::embed,
                                  .linear = reference::linear};

}  // namespace

const MatrixOps& matrix_ops([[maybe_unused]] Isa isa, [[maybe_unused]] bool slow_bf16) {
#ifdef KOGIA_X86_KERNELS
  if (isa == Isa::avx2) return cpu_features().avx_vnni ? kAvx2Vnni : kAvx2;
  if (isa == Isa::avx512) return slow_bf16 ? kAvx512Int16 : kAvx512;
#endif
#ifdef KOGIA_ARM_KERNELS
  if (isa == Isa::neon) return cpu_features().dotprod ? kNeonDot : kNeon;
#endif
  return kReference;
}

}  // namespace kogia
