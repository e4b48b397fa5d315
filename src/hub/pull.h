#pragma once
// Fetches a model from a hub into the cache.

#include <filesystem>
#include <string>
#include <vector>

#include "base/index.h"
#include "base/progress.h"
#include "hub/http.h"
#include "hub/listing.h"
#include "hub/names.h"

namespace kogia::hub {

struct PullOptions {
  Server server;
  std::filesystem::path cache;
  ModelName name;
  int connections = 8;
  bool verify = false;  // hash what is there already, and fetch anew what is not right
  Progress::Mode progress = Progress::Mode::kAuto;
};

struct PullResult {
  std::string commit;
  std::filesystem::path model;    // what to open
  std::vector<RemoteFile> files;  // that the model consists of
  Index fetched_bytes = 0;        // in this run
};

/// Files appear in the snapshot when all of them are complete and right, config.json the last, and
/// the revision's ref after that; a stop at any moment leaves nothing that loads, or a whole model.
/// What has arrived is kept and continued by the next call. One pull of a repository at a time: a
/// second one waits.
///
/// Errors  Error: kUsage, kNotFound, kUnsupported for what is asked; kInvalid for a server that
///         breaks its word; kIo for network and disk; kInterrupted after Ctrl-C (in an
///         InterruptGuard)
PullResult pull(const PullOptions& options);

}  // namespace kogia::hub
