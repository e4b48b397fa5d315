#pragma once
// The Content-Range of a partial answer. Used by download.cc.

#include <string>

#include "hub/http.h"
#include "hub/listing.h"

namespace kogia::hub {

/// The answer holds bytes `first` to at most `last` of a file of the listed size, as asked; else
/// Error(kInvalid) that names `host`, the file, what was found and what was asked.
void check_content_range(const Response& response, Index first, Index last, const RemoteFile& file,
                         const std::string& host);

}  // namespace kogia::hub
