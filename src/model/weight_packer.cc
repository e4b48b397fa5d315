#include "model/weight_packer.h"

#include <algorithm>
#include <mutex>

#include "base/error.h"

namespace kogia {
namespace {

constexpr Index kPageBytes = 4096;
// Of the source, in a part: small beside any memory, large beside the cost of handing it out.
constexpr Index kPartBytes = Index{8} << 20;

/// Counts parts from several threads and tells the caller, one at a time.
class Counter {
 public:
  Counter(Index total, const std::function<void(const LoadProgress&)>& tell)
      : progress_{.total_bytes = total}, tell_(tell) {}
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
    if (job.options.transpose) step = rows;
    for (Index first = 0; first < rows; first += step) {
      parts.push_back({.job = &job,
                       .form = &form,
                       .first = first,
                       .n = std::min(step, rows - first),
                       .offset = plan.offsets[i] + first / form.row_step * form.step_bytes});
    }
  }
  return parts;
}

void WeightPacker::release(const Part& part) const {
  const MatrixSource& s = part.job->source;
  const Index size = row_bytes(s.dtype, s.cols);
  if (part.job->options.transpose) return checkpoint_.release(s.data, s.rows * size);
  checkpoint_.release(s.data + part.first * size, part.n * size);
}

void WeightPacker::pack(const PackPlan& plan, std::byte* memory) const {
  const std::vector<Part> parts = parts_of(plan);
  Index total = 0;
  for (const PackJob& job : jobs_) total += job.source_bytes();
  Counter counter(total, on_progress_);
  device_.parallel(static_cast<Index>(parts.size()), [&](Index i) {
    const Part& part = parts[static_cast<std::size_t>(i)];
    const PackJob& job = *part.job;
    device_.pack_rows(job.source, job.options, *part.form, part.first, part.n,
                      memory + part.offset);
    release(part);
    counter.add(job.source_bytes() / std::max<Index>(1, job.packed_rows()) * part.n);
  });
}

void WeightPacker::adopt(const PackPlan& plan,
                         const std::shared_ptr<const std::byte>& memory) const {
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    const PackJob& job = jobs_[i];
    // Each shares the ownership of the whole.
    const std::shared_ptr<const std::byte> at(memory, memory.get() + plan.offsets[i]);
    *job.out = device_.adopt(job.source, job.options, plan.forms[i], at);
  }
}

void WeightPacker::borrow() const {
  for (const PackJob& job : jobs_) *job.out = device_.borrow(job.source, job.options);
}

}  // namespace kogia
