#pragma once
// Many files at once, each in several parts, into the cache's folder of blobs.

#include <functional>
#include <span>
#include <string>

#include "base/progress.h"
#include "hub/folder.h"
#include "hub/http.h"
#include "hub/listing.h"

namespace kogia::hub {

struct DownloadOptions {
  std::function<std::string(const RemoteFile&)> url_of;
  int connections = 8;
  Progress* progress = nullptr;  // counts bytes
};

/// Brings the files (with size and hash, none twice) into `blobs`; each is there under its hash as
/// soon as it is complete and right, the rest continues with the next call. Ends with
/// Error(kInterrupted) after Ctrl-C.
///
/// Errors  the first one of any connection; the others stop within a second. A server that sends
///         what does not fit (length, range, hash) is named with the file.
void download(const Server& server, const Folder& blobs, std::span<const RemoteFile> files,
              const DownloadOptions& options);

}  // namespace kogia::hub
