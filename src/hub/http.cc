#include "hub/http.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <exception>
#include <random>
#include <thread>

#include <curl/curl.h>

#include "hub/http_errors.h"

namespace kogia::hub {
namespace {

constexpr long kConnectTimeout_s = 20, kBufferBytes = 256 * 1024, kSlow_bytes_per_s = 64;
constexpr int kMaxRedirects = 8;
constexpr std::size_t kMaxErrorBody = 4096, kMaxHeaders = 200;
constexpr Index kMaxWait_s = 600;

void start_curl() {
  static const CURLcode status = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (status != CURLE_OK) throw_error(ErrorCode::kIo, "libcurl cannot start");
}

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

[[noreturn]] void throw_interrupted() { throw Error(ErrorCode::kInterrupted, "interrupted"); }

}  // namespace

const std::string* Response::header(const std::string& name) const {
  const auto at = headers.find(name);
  return at == headers.end() ? nullptr : &at->second;
}

Index Response::content_length() const {
  const std::string* text = header("content-length");
  Index value = -1;
  if (text == nullptr) return -1;
  const auto [end, status] = std::from_chars(text->data(), text->data() + text->size(), value);
  return status == std::errc() && end == text->data() + text->size() && value >= 0 ? value : -1;
}

struct HttpClient::Handle {
  CURL* curl = curl_easy_init();
  char message[CURL_ERROR_SIZE] = {};
  Handle() = default;
  ~Handle() { curl_easy_cleanup(curl); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

// One request and its answer. libcurl is C: what the sink throws waits here until it has returned.
struct HttpClient::Hop {
  Response response;
  BodySink& sink;
  const std::function<bool()>& give_up;
  std::string error_body, redirect_url;
  bool begun = false, given_up = false;
  std::exception_ptr thrown;

  bool wants_body() const { return response.status == 200 || response.status == 206; }

  template <class F>
  bool guarded(F&& f) noexcept {
    try {
      f();
      return true;
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }

  void on_header(std::string_view line) {
    if (line.starts_with("HTTP/")) {  // a new answer: after a proxy's, or after 100 Continue
      response.headers.clear();
      return;
    }
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || response.headers.size() >= kMaxHeaders) return;
    std::string name(line.substr(0, colon));
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    response.headers[name] = trimmed(line.substr(colon + 1));
  }
  void on_body(CURL* curl, std::span<const std::byte> bytes) {
    if (response.status == 0) curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &response.status);
    if (!wants_body()) {
      const std::size_t room = kMaxErrorBody - std::min(kMaxErrorBody, error_body.size());
      error_body.append(reinterpret_cast<const char*>(bytes.data()), std::min(room, bytes.size()));
      return;
    }
    begin_body();
    sink.write(bytes);
  }
  void begin_body() {
    if (!begun) sink.begin(response);
    begun = true;
  }
};

HttpClient::HttpClient(const Server& server, std::function<bool()> give_up)
    : server_(server), give_up_(std::move(give_up)) {
  start_curl();
  handle_ = std::make_unique<Handle>();
  if (handle_->curl == nullptr) throw_error(ErrorCode::kIo, "libcurl cannot start");
}

HttpClient::~HttpClient() = default;

void HttpClient::perform(const Request& request, const std::string& url, bool with_token,
                         Hop& hop) {
  CURL* curl = handle_->curl;
  curl_easy_reset(curl);  // connections stay
  const auto set = [&](CURLoption option, auto value) {
    if (curl_easy_setopt(curl, option, value) != CURLE_OK) {
      throw_error(ErrorCode::kIo, "libcurl refuses an option ({})", static_cast<int>(option));
    }
  };
  struct Context {
    Hop& hop;
    CURL* curl;
  } context{hop, curl};
  using Write = std::size_t (*)(char*, std::size_t, std::size_t, void*);
  const Write on_header = [](char* data, std::size_t, std::size_t n, void* user) -> std::size_t {
    auto& c = *static_cast<Context*>(user);
    return c.hop.guarded([&] { c.hop.on_header({data, n}); }) ? n : 0;
  };
  const Write on_body = [](char* data, std::size_t, std::size_t n, void* user) -> std::size_t {
    auto& c = *static_cast<Context*>(user);
    const auto bytes = std::as_bytes(std::span(data, n));
    return c.hop.guarded([&] { c.hop.on_body(c.curl, bytes); }) ? n : CURL_WRITEFUNC_ERROR;
  };
  using Tick = int (*)(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t);
  const Tick on_tick = [](void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    Hop& h = static_cast<Context*>(user)->hop;
    h.guarded([&] { h.given_up = h.give_up(); });
    return h.given_up || h.thrown ? 1 : 0;
  };
  handle_->message[0] = '\0';
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);  // done in get(), where it is decided who sees the token
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_ERRORBUFFER, static_cast<char*>(handle_->message));
  set(CURLOPT_CONNECTTIMEOUT, kConnectTimeout_s);
  set(CURLOPT_LOW_SPEED_LIMIT, kSlow_bytes_per_s);
  set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(server_.stall.count()));
  set(CURLOPT_BUFFERSIZE, kBufferBytes);
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_USERAGENT, "kogia");
  set(CURLOPT_HEADERFUNCTION, on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(&context));
  set(CURLOPT_WRITEFUNCTION, on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&context));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, on_tick);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(&context));
  if (request.head_only) set(CURLOPT_NOBODY, 1L);
  const std::string range = fmt::format("{}-{}", request.first, request.last);
  if (request.first >= 0) set(CURLOPT_RANGE, range.c_str());
  struct curl_slist* list = nullptr;
  if (with_token) {
    list = curl_slist_append(nullptr, ("Authorization: Bearer " + server_.token).c_str());
    if (list == nullptr) throw std::bad_alloc();
  }
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> owned(list,
                                                                          curl_slist_free_all);
  set(CURLOPT_HTTPHEADER, list);

  const CURLcode status = curl_easy_perform(curl);
  if (hop.thrown) std::rethrow_exception(hop.thrown);
  if (hop.given_up) throw_interrupted();
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &hop.response.status);
  if (status != CURLE_OK) {
    const char* said = handle_->message[0] != '\0' ? handle_->message : curl_easy_strerror(status);
    throw_transfer_error(url, static_cast<int>(status), said);
  }
  char* next = nullptr;
  curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &next);
  if (next != nullptr) hop.redirect_url = next;
}

Response HttpClient::get(const Request& request, BodySink& sink) {
  std::string url = request.url;
  // Once a redirect has led away, the token stays at home, even if a later one leads back.
  bool at_home = origin_of(url) == origin_of(server_.endpoint);
  for (int hops = 0; hops <= kMaxRedirects; ++hops) {
    if (give_up_()) throw_interrupted();
    Hop hop{.response = {},
            .sink = sink,
            .give_up = give_up_,
            .error_body = {},
            .redirect_url = {},
            .begun = false,
            .given_up = false,
            .thrown = {}};
    hop.response.url = url;
    const bool with_token = at_home && !server_.token.empty();
    perform(request, url, with_token, hop);
    const long status = hop.response.status;
    if (hop.wants_body()) {
      if (!request.head_only) hop.begin_body();  // an empty one begins too
      return std::move(hop.response);
    }
    if (!is_redirect(status) || hop.redirect_url.empty()) {
      throw_status_error(server_, hop.response, hop.error_body, with_token);
    }
    const std::string origin = origin_of(hop.redirect_url);
    at_home = at_home && origin == origin_of(url);
    // A HEAD is answered by the hub itself; a renamed repository redirects inside it.
    if (request.head_only && !at_home) return std::move(hop.response);
    if (origin.empty() || (url.starts_with("https:") && !origin.starts_with("https:"))) {
      throw_error(ErrorCode::kInvalid, "{}: redirects to {}, which is not trusted (expected https)",
                  host_of(url), host_of(hop.redirect_url));
    }
    url = hop.redirect_url;
  }
  throw_error(ErrorCode::kInvalid, "{}: more than {} redirects", host_of(request.url),
              kMaxRedirects);
}

std::string HttpClient::get_text(const Request& request, Index limit, Response* response) {
  struct Text : BodySink {
    std::string text;
    Index limit = 0;
    std::string place;
    void begin(const Response&) override { text.clear(); }
    void write(std::span<const std::byte> bytes) override {
      if (static_cast<Index>(text.size() + bytes.size()) > limit) {
        throw_error(ErrorCode::kInvalid, "{}: answers more than {} bytes", place, limit);
      }
      text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
  } sink;
  sink.limit = limit;
  sink.place = host_of(request.url);
  Response answer = get(request, sink);
  if (response != nullptr) *response = std::move(answer);
  return std::move(sink.text);
}

std::string origin_of(const std::string& url) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), curl_url_cleanup);
  if (parsed == nullptr) return {};
  if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return {};
  std::string out;
  for (const auto& [part, before] :
       {std::pair{CURLUPART_SCHEME, ""}, {CURLUPART_HOST, "://"}, {CURLUPART_PORT, ":"}}) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return {};
    out += before;
    for (const char* c = text; *c != '\0'; ++c) {
      out += *c >= 'A' && *c <= 'Z' ? static_cast<char>(*c - 'A' + 'a') : *c;
    }
    curl_free(text);
  }
  return out.starts_with("http://") || out.starts_with("https://") ? out : std::string();
}

void pause_before_retry(const HttpError& error, int n, const std::function<bool()>& give_up) {
  if (error.retry_after_s > kMaxWait_s) throw error;
  std::random_device random;  // so that many clients do not come back at the same moment
  const double spread = 0.75 + 0.5 * (static_cast<double>(random() & 0xFFFF) / 0x10000);
  const double seconds = n == 1 ? 0.2 : std::min(30.0, std::exp2(n - 2));
  const double wait_s = std::max(seconds * spread, static_cast<double>(error.retry_after_s));
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(wait_s);
  while (std::chrono::steady_clock::now() < end) {
    if (give_up()) throw_interrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void with_retries(const Server& server, const std::function<bool()>& give_up,
                  const std::function<void()>& f) {
  for (int failures = 0;;) {
    try {
      return f();
    } catch (const HttpError& error) {
      if (!error.retry || ++failures > server.retries) throw;
      pause_before_retry(error, failures, give_up);
    }
  }
}

}  // namespace kogia::hub
