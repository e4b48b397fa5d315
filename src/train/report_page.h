#pragma once
// The page of `kogia report`: one HTML file that needs nothing beside it, no network and no server.

#include <string>
#include <vector>

#include "train/run_metrics.h"

namespace kogia {

/// What is known of a run from its folder.
struct ReportedRun {
  RunMetrics metrics;
  std::string run_toml, config_json;  // of the newest checkpoint; empty before there is one
};

/// Errors  as read_run_metrics()
ReportedRun read_reported_run(const std::filesystem::path& folder);

/// One run, or two beside each other. The same page for the same logs; of a million steps it is
/// not larger than of ten thousand.
std::string report_page(const std::vector<ReportedRun>& runs);

}  // namespace kogia
