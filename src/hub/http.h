#pragma once
// Requests to a hub, over libcurl. The token goes to the hub's own address and nowhere else.

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/index.h"

namespace kogia::hub {

/// A hub and how to talk to it.
struct Server {
  std::string endpoint;            // "https://huggingface.co", no slash at the end
  std::string token;               // empty: none
  std::chrono::seconds stall{30};  // without a byte for so long a transfer is given up
  int retries = 5;                 // in a row, without anything received
};

/// A request that failed. `retry`: it may go better the next time.
class HttpError : public Error {
 public:
  HttpError(const Error& error, bool may_retry, long http_status = 0, Index wait_s = 0)
      : Error(error), retry(may_retry), status(http_status), retry_after_s(wait_s) {}
  bool retry;
  long status;          // 0: no answer came
  Index retry_after_s;  // what the server asks for
};

struct Response {
  long status = 0;
  std::string url;                             // of the last hop
  std::map<std::string, std::string> headers;  // lower case; of the last hop
  const std::string* header(const std::string& name) const;
  Index content_length() const;  // -1: not told
};

/// Takes the body of an answer with status 200 or 206.
class BodySink {
 public:
  virtual ~BodySink() = default;
  virtual void begin(const Response& response) = 0;
  virtual void write(std::span<const std::byte> bytes) = 0;
};

struct Request {
  std::string url;
  Index first = -1, last = -1;  // a range of bytes, both inclusive; -1: all
  bool head_only = false;       // HEAD, and redirects are not followed
};

/// One connection at a time, kept open between requests. Threads: one client each.
class HttpClient {
 public:
  /// `give_up` is asked about once a second, and ends the transfer with Error(kInterrupted).
  HttpClient(const Server& server, std::function<bool()> give_up);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// Follows redirects (to http and https only, never from https back to http). Throws HttpError
  /// for every answer but 200 and 206 (with head_only also redirects), and for none; Errors of the
  /// sink pass through.
  Response get(const Request& request, BodySink& sink);
  /// A body of at most `limit` bytes.
  std::string get_text(const Request& request, Index limit, Response* response = nullptr);

 private:
  struct Handle;
  struct Hop;
  void perform(const Request& request, const std::string& url, bool with_token, Hop& hop);

  const Server& server_;
  std::function<bool()> give_up_;
  std::unique_ptr<Handle> handle_;
};

/// Scheme, host and port of a URL: "https://huggingface.co:443"; empty if it is none.
std::string origin_of(const std::string& url);

/// Calls f until it returns, at most server.retries + 1 times, with growing pauses; the server's
/// Retry-After is respected. Errors other than HttpErrors that may be retried end it at once.
void with_retries(const Server& server, const std::function<bool()>& give_up,
                  const std::function<void()>& f);

/// Sleeps before the n-th attempt after a failure (n from 1). Throws Error(kInterrupted) when
/// asked to give up, and the error itself where the server wants a wait too long.
void pause_before_retry(const HttpError& error, int n, const std::function<bool()>& give_up);

}  // namespace kogia::hub
