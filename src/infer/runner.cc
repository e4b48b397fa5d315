#include "infer/runner.h"

#include <cstring>

namespace kogia {

void Runner::copy_pages(const StepPlan& plan) {
  const CachePool& cache = engine_.cache();
  for (const PageCopy& copy : plan.copies) {
    const auto from = cache.page(copy.from);
    std::memcpy(cache.page(copy.to).data(), from.data(), from.size());
  }
}

ForwardResult Runner::run(const StepPlan& plan) {
  copy_pages(plan);
  ids_.clear();
  sequences_.clear();
  logit_rows_.clear();
  for (const ScheduledRows& rows : plan.rows) {
    const auto begin = static_cast<Index>(ids_.size()), n = static_cast<Index>(rows.ids.size());
    sequences_.push_back(
        {.row_begin = begin, .n_rows = n, .first_pos = rows.first_pos, .pages = rows.pages.data()});
    ids_.insert(ids_.end(), rows.ids.begin(), rows.ids.end());
    if (!rows.wants_logits) continue;
    for (Index i = n - 1 - rows.n_drafts; i < n; ++i) {
      logit_rows_.push_back(static_cast<std::int32_t>(begin + i));
    }
  }
  const Batch batch{.ids = ids_,
                    .sequences = sequences_,
                    .logit_rows = logit_rows_,
                    .cache = engine_.cache().memory()};
  return engine_.model().forward(batch, engine_.workspace());
}

}  // namespace kogia
