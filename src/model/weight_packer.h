#pragma once
// Matrices of a checkpoint into the device's layout, as a stream: parts of all matrices side by
// side, and the pages of a part that is done are given back, so that no more than the packed
// weights and a few parts are ever in memory.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/atomic_file.h"
#include "formats/checkpoint.h"
#include "model/model.h"

namespace kogia {

/// A matrix that a model wants.
struct PackJob {
  std::string id;  // tensor, rows and transposition: no two of a model are equal
  MatrixSource source;
  PackOptions options;
  std::unique_ptr<Matrix>* out;
  /// Plain values are first rounded to this block format; not where they stay in the checkpoint.
  std::optional<DType> rounded = {};

  Index source_bytes() const { return source.rows * row_bytes(source.dtype, source.cols); }
  Index packed_rows() const { return options.transpose ? source.cols : source.rows; }
  /// What the device packs. Where that is rounded first, its data must not be looked at: rows are
  /// made when they are needed.
  MatrixSource packed_source() const {
    if (!rounded) return source;
    return {.dtype = *rounded, .rows = source.rows, .cols = source.cols, .data = source.data};
  }
};

/// Where the packed matrices stand in one stretch of memory, each at the begin of a page.
struct PackPlan {
  std::vector<PackedForm> forms;
  std::vector<Index> offsets;
  Index n_bytes = 0;
};

/// Of each matrix, sums over its parts: of the bytes it was packed from, scales included, and of
/// those it was packed to.
struct WeightHashes {
  std::vector<std::uint64_t> source, packed;
};

class WeightPacker {
 public:
  /// All must outlive it.
  WeightPacker(std::span<const PackJob> jobs, const Checkpoint& checkpoint, Device& device,
               const std::function<void(const LoadProgress&)>& on_progress);

  std::span<const PackJob> jobs() const { return jobs_; }
  /// The form of a matrix that was packed before.
  PackedForm form_of(const PackJob& job, int variant) const;

  PackPlan plan() const;
  /// Writes every matrix to its place in plan.n_bytes of memory.
  void pack(const PackPlan& plan, std::byte* memory) const;
  /// Writes them to a file. Throws Error (kInterrupted) after Ctrl-C, where a guard lives.
  WeightHashes pack_to(const PackPlan& plan, AtomicFile& file) const;
  /// The hashes of what the checkpoint and the memory hold now.
  WeightHashes hash(const PackPlan& plan, const std::byte* memory) const;
  /// Matrices over memory that has been packed.
  void adopt(const PackPlan& plan, const std::shared_ptr<const std::byte>& memory) const;
  /// Matrices that stay in the checkpoint.
  void borrow() const;

  /// Whether somebody is told what goes on.
  bool talks() const { return on_progress_ != nullptr; }

 private:
  struct Part {
    const PackJob* job;
    const PackedForm* form;
    std::size_t matrix;
    Index first, n;         // rows of the packed matrix
    Index offset, n_bytes;  // in the plan's memory
  };
  std::vector<Part> parts_of(const PackPlan& plan) const;
  /// Runs work(part) on the device's threads and gives the source's pages back after each.
  void for_parts(const PackPlan& plan, std::string_view what,
                 const std::function<void(const Part&)>& work) const;
  std::span<const std::byte> source_of(const Part& part) const;
  std::uint64_t hash_source(const Part& part) const;
  void pack_part(const Part& part, std::byte* to) const;

  std::span<const PackJob> jobs_;
  const Checkpoint& checkpoint_;
  Device& device_;
  const std::function<void(const LoadProgress&)>& on_progress_;
};

}  // namespace kogia
