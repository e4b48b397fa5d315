#pragma once
// One run, or two beside each other, as a page and as a table.

#include <string>
#include <vector>

#include "train/run_metrics.h"

namespace kogia {

/// Rows of words: what it is, and what each run has.
struct ReportTable {
  std::vector<std::vector<std::string>> rows;
};
/// other: null if there is none to compare with.
ReportTable report_table(const RunMetrics& run, const RunMetrics* other);

/// "fp8 against bf16: …"; empty where the runs share too few steps.
std::string gap_sentence(const RunMetrics& run, const RunMetrics& other);

/// One HTML file that needs no other and no network. `run_toml`: the resolved run file, shown at
/// the end; may be empty.
std::string report_page(const RunMetrics& run, const RunMetrics* other,
                        const std::string& run_toml);

}  // namespace kogia
