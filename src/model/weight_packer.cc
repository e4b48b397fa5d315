#include "model/weight_packer.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "base/hash.h"
#include "base/interrupt.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

constexpr Index kPageBytes = 4096;
// Of the source, in a part: small beside any memory, large beside the cost of handing it out.
constexpr Index kPartBytes = Index{8} << 20;

/// Counts parts from several threads and tells the caller, one at a time.
class Counter {
 public:
  Counter(std::string_view what, Index total, const std::function<void(const LoadProgress&)>& tell)
      : progress_{.what = what, .total_bytes = total}, tell_(tell) {}
  void add(Index n) {
    if (!tell_) return;
    const std::scoped_lock lock(mutex_);
    progress_.done_bytes += n;
    tell_(progress_);
  }

 private:
  std::mutex mutex_;
  LoadProgress progress_;
  const std::function<void(const LoadProgress&)>& tell_;
};

/// Buffers that threads borrow for a part.
class Buffers {
 public:
  std::vector<std::byte> take(Index n) {
    std::vector<std::byte> buffer;
    {
      const std::scoped_lock lock(mutex_);
      if (!free_.empty()) buffer = std::move(free_.back()), free_.pop_back();
    }
    buffer.resize(static_cast<std::size_t>(n));
    return buffer;
  }
  void give_back(std::vector<std::byte> buffer) {
    const std::scoped_lock lock(mutex_);
    free_.push_back(std::move(buffer));
  }

 private:
  std::mutex mutex_;
  std::vector<std::vector<std::byte>> free_;
};

/// Sums of hashes, whatever order the parts are done in.
class Sums {
 public:
  explicit Sums(std::size_t n) : sums_(n) {}
  void add(std::size_t i, std::uint64_t hash) { sums_[i].fetch_add(hash); }
  std::vector<std::uint64_t> values() const { return {sums_.begin(), sums_.end()}; }

 private:
  std::vector<std::atomic<std::uint64_t>> sums_;
};

std::vector<std::byte> rounded_rows(const PackJob& job, Index first, Index n) {
  const MatrixSource& s = job.source;
  const Index from = row_bytes(s.dtype, s.cols), to = row_bytes(*job.rounded, s.cols);
  std::vector<std::byte> blocks(static_cast<std::size_t>(n * to));
  std::vector<float> values(static_cast<std::size_t>(s.cols));
  for (Index r = 0; r < n; ++r) {
    dequantize_row(s.dtype, s.data + (first + r) * from, values.data(), s.cols);
    quantize_row(*job.rounded, values.data(), blocks.data() + r * to, s.cols);
  }
  return blocks;
}

}  // namespace

WeightPacker::WeightPacker(std::span<const PackJob> jobs, const Checkpoint& checkpoint,
                           Device& device,
                           const std::function<void(const LoadProgress&)>& on_progress)
    : jobs_(jobs), checkpoint_(checkpoint), device_(device), on_progress_(on_progress) {}

PackPlan WeightPacker::plan() const {
  PackPlan plan;
  plan.forms.resize(jobs_.size());
  device_.parallel(static_cast<Index>(jobs_.size()), [&](Index i) {
    const auto at = static_cast<std::size_t>(i);
    const PackJob& job = jobs_[at];
    if (job.rounded) {  // the plain rule of a format gives values that any of its layouts holds
      plan.forms[at] = form_of(job, 0);
      return;
    }
    plan.forms[at] = device_.packed_form(job.source, job.options);
    checkpoint_.release(job.source.data, job.source_bytes());  // it may have looked at the values
  });
  for (const PackedForm& form : plan.forms) {
    plan.offsets.push_back(plan.n_bytes);
    plan.n_bytes += round_up(form.n_bytes, kPageBytes);
  }
  return plan;
}

// In the order of the jobs, which is about that of the file. A transposed matrix reads all of its
// source for any of its rows, and is small.
std::vector<WeightPacker::Part> WeightPacker::parts_of(const PackPlan& plan) const {
  std::vector<Part> parts;
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    const PackJob& job = jobs_[i];
    const PackedForm& form = plan.forms[i];
    const Index rows = job.packed_rows();
    const Index row_size = std::max<Index>(1, job.source_bytes() / std::max<Index>(1, rows));
    Index step = std::max<Index>(1, kPartBytes / row_size / form.row_step) * form.row_step;
    if (job.options.transpose) step = std::max<Index>(1, rows);
    for (Index first = 0; first < rows; first += step) {
      const Index begin = first / form.row_step * form.step_bytes, last = first + step;
      const Index end = last < rows ? last / form.row_step * form.step_bytes : form.n_bytes;
      parts.push_back({.job = &job,
                       .form = &form,
                       .matrix = i,
                       .first = first,
                       .n = std::min(step, rows - first),
                       .offset = plan.offsets[i] + begin,
                       .n_bytes = end - begin});
    }
  }
  return parts;
}

std::span<const std::byte> WeightPacker::source_of(const Part& part) const {
  const MatrixSource& s = part.job->source;
  const auto size = static_cast<std::size_t>(row_bytes(s.dtype, s.cols));
  if (part.job->options.transpose) return {s.data, static_cast<std::size_t>(s.rows) * size};
  return {s.data + static_cast<std::size_t>(part.first) * size,
          static_cast<std::size_t>(part.n) * size};
}

void WeightPacker::for_parts(const PackPlan& plan, std::string_view what,
                             const std::function<void(const Part&)>& work) const {
  const std::vector<Part> parts = parts_of(plan);
  Index total = 0;
  for (const Part& part : parts) total += static_cast<Index>(source_of(part).size());
  Counter counter(what, total, on_progress_);
  device_.parallel(static_cast<Index>(parts.size()), [&](Index i) {
    const Part& part = parts[static_cast<std::size_t>(i)];
    work(part);
    const auto source = source_of(part);
    checkpoint_.release(source.data(), static_cast<Index>(source.size()));
    counter.add(static_cast<Index>(source.size()));
  });
}

void WeightPacker::pack_part(const Part& part, std::byte* to) const {
  const PackJob& job = *part.job;
  if (!job.rounded) {
    device_.pack_rows(job.source, job.options, *part.form, part.first, part.n, to);
    return;
  }
  // The part's rows as a matrix of their own.
  MatrixSource rows = job.packed_source();
  rows.rows = part.n;
  const std::vector<std::byte> blocks = rounded_rows(job, part.first, part.n);
  rows.data = blocks.data();
  device_.pack_rows(rows, job.options, *part.form, 0, part.n, to);
}

void WeightPacker::pack(const PackPlan& plan, std::byte* memory) const {
  for_parts(plan, "packing weights",
            [&](const Part& part) { pack_part(part, memory + part.offset); });
}

// The first part of a matrix answers for its scales.
std::uint64_t WeightPacker::hash_source(const Part& part) const {
  std::uint64_t hash = hash_bytes(source_of(part), static_cast<std::uint64_t>(part.first));
  const MatrixSource& s = part.job->source;
  if (part.first != 0 || s.scale == nullptr) return hash;
  const Index size = row_bytes(s.scale_dtype, s.scale_cols), begin = s.first_row / s.block_rows;
  const Index end = ceil_div(s.first_row + s.rows, s.block_rows);
  return hash +
         hash_bytes({s.scale + begin * size, static_cast<std::size_t>((end - begin) * size)});
}

WeightHashes WeightPacker::pack_to(const PackPlan& plan, AtomicFile& file) const {
  Sums source(jobs_.size()), packed(jobs_.size());
  Buffers buffers;
  for_parts(plan, "packing weights", [&](const Part& part) {
    throw_if_interrupted();
    std::vector<std::byte> buffer = buffers.take(part.n_bytes);
    pack_part(part, buffer.data());
    source.add(part.matrix, hash_source(part));
    packed.add(part.matrix, hash_bytes(buffer, static_cast<std::uint64_t>(part.first)));
    file.write_at(part.offset, buffer);
    buffers.give_back(std::move(buffer));
  });
  return {source.values(), packed.values()};
}

WeightHashes WeightPacker::hash(const PackPlan& plan, const std::byte* memory) const {
  Sums source(jobs_.size()), packed(jobs_.size());
  for_parts(plan, "checking weights", [&](const Part& part) {
    const auto seed = static_cast<std::uint64_t>(part.first);
    source.add(part.matrix, hash_source(part));
    packed.add(part.matrix,
               hash_bytes({memory + part.offset, static_cast<std::size_t>(part.n_bytes)}, seed));
  });
  return {source.values(), packed.values()};
}

PackedForm WeightPacker::form_of(const PackJob& job, int variant) const {
  return device_.packed_form(job.packed_source(), job.options, variant);
}

void WeightPacker::adopt(const PackPlan& plan,
                         const std::shared_ptr<const std::byte>& memory) const {
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    const PackJob& job = jobs_[i];
    // Each shares the ownership of the whole.
    const std::shared_ptr<const std::byte> at(memory, memory.get() + plan.offsets[i]);
    *job.out = device_.adopt(job.packed_source(), job.options, plan.forms[i], at);
  }
}

void WeightPacker::borrow() const {
  for (const PackJob& job : jobs_) *job.out = device_.borrow(job.source, job.options);
}

}  // namespace kogia
