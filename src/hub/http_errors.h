#pragma once
// What went wrong with a request, in words that say how to mend it. Used by http.cc alone.

#include <string>
#include <string_view>

#include "hub/http.h"

namespace kogia::hub {

/// Scheme and host of a URL, for messages: signed URLs carry secrets in the rest.
std::string host_of(const std::string& url);

/// No answer, or only a part of one. `status` is a CURLcode.
[[noreturn]] void throw_transfer_error(const std::string& url, int status, std::string_view said);

/// An answer that is no success.
[[noreturn]] void throw_status_error(const Server& server, const Response& response,
                                     std::string_view body, bool with_token);

}  // namespace kogia::hub
