#pragma once
// Matrices of a checkpoint into the device's layout, as a stream: parts of all matrices side by
// side, and the pages of a part that is done are given back, so that no more than the packed
// weights and a few parts are ever in memory.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "model/model.h"

namespace kogia {

/// A matrix that a model wants.
struct PackJob {
  std::string id;  // tensor, rows and transposition: no two of a model are equal
  MatrixSource source;
  PackOptions options;
  std::unique_ptr<Matrix>* out;

  Index source_bytes() const { return source.rows * row_bytes(source.dtype, source.cols); }
  Index packed_rows() const { return options.transpose ? source.cols : source.rows; }
};

/// Where the packed matrices stand in one stretch of memory, each at the begin of a page.
struct PackPlan {
  std::vector<PackedForm> forms;
  std::vector<Index> offsets;
  Index n_bytes = 0;
};

class WeightPacker {
 public:
  /// All must outlive it.
  WeightPacker(std::span<const PackJob> jobs, const Checkpoint& checkpoint, Device& device,
               const std::function<void(const LoadProgress&)>& on_progress);

  PackPlan plan() const;
  /// Writes every matrix to its place in plan.n_bytes of zeros.
  void pack(const PackPlan& plan, std::byte* memory) const;
  /// Matrices over memory that has been packed.
  void adopt(const PackPlan& plan, const std::shared_ptr<const std::byte>& memory) const;
  /// Matrices that stay in the checkpoint.
  void borrow() const;

 private:
  struct Part {
    const PackJob* job;
    const PackedForm* form;
    Index first, n;  // rows of the packed matrix
    Index offset;    // in the plan's memory
  };
  std::vector<Part> parts_of(const PackPlan& plan) const;
  void release(const Part& part) const;

  std::span<const PackJob> jobs_;
  const Checkpoint& checkpoint_;
  Device& device_;
  const std::function<void(const LoadProgress&)>& on_progress_;
};

}  // namespace kogia
