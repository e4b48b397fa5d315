#include "hub/http_errors.h"

#include <algorithm>
#include <charconv>
#include <ctime>

#include <curl/curl.h>

namespace kogia::hub {
namespace {

constexpr std::size_t kMaxSaid = 200;

// Seconds, or a date.
Index retry_after(const Response& response) {
  const std::string* text = response.header("retry-after");
  if (text == nullptr) return 0;
  Index seconds = 0;
  const auto [end, status] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  if (status == std::errc() && end == text->data() + text->size())
    return std::max<Index>(0, seconds);
  const std::time_t date = curl_getdate(text->c_str(), nullptr);
  return date < 0 ? 0 : std::max<Index>(0, date - std::time(nullptr));
}

// The hub says in a header what is the matter; others in the body.
std::string said_by(const Response& response, std::string_view body) {
  const std::string* message = response.header("x-error-message");
  std::string said(message != nullptr ? *message : body.substr(0, kMaxSaid));
  if (said.size() > kMaxSaid) said = said.substr(0, kMaxSaid) + "...";
  const bool html = said.find('<') != std::string::npos;
  const std::size_t line = said.find('\n');
  if (line != std::string::npos) said.resize(line);
  return html || said.empty() ? std::string() : ": " + said;
}

struct Advice {
  std::string what, help;
};

Advice advice_for(const Server& server, const Response& response, bool with_token) {
  const std::string* code = response.header("x-error-code");
  const auto is = [&](std::string_view word) { return code != nullptr && *code == word; };
  const long status = response.status;
  if (origin_of(response.url) != origin_of(server.endpoint) && status < 500 && status != 429) {
    return {"the server that the hub names for the file refuses it",
            "try again; if it stays so, the hub or a proxy on the way has a problem"};
  }
  const std::string get_token =
      fmt::format("put a token from {}/settings/tokens into HF_TOKEN", server.endpoint);
  if (is("GatedRepo")) {
    return {"the repository is gated: its owners let in only whom they know",
            with_token
                ? "ask for access on its page, with the account of your token, then try again"
                : "ask for access on its page, then " + get_token};
  }
  if (is("RevisionNotFound")) {
    return {"no such revision", "check --revision: a branch, a tag or a full commit"};
  }
  if (is("EntryNotFound")) return {"no such file in this revision", "check what follows the colon"};
  if (status == 401) {
    if (with_token) return {"the token is not accepted", "check HF_TOKEN; " + get_token};
    return {"no such repository, or one that wants a token",
            "check the name; if it is private or gated, " + get_token};
  }
  if (status == 403) {
    return {"access refused", with_token ? "the token may not read it: ask for access on its page, "
                                           "or use a token that may"
                                         : get_token};
  }
  if (status == 404) return {"no such repository", "check the name; a private one needs a token"};
  if (status == 429) return {"too many requests", "wait some minutes, or use a token (HF_TOKEN)"};
  if (status >= 500) return {"the server has a problem of its own", "try again later"};
  return {"an answer that was not expected", "check HF_ENDPOINT"};
}

bool worth_retrying(long status) {
  return status == 408 || status == 425 || status == 429 || status >= 500;
}

}  // namespace

std::string host_of(const std::string& url) {
  const std::string origin = origin_of(url);
  for (const std::string_view usual : {":443", ":80"}) {
    if (origin.ends_with(usual)) return origin.substr(0, origin.size() - usual.size());
  }
  return origin.empty() ? url.substr(0, url.find('?')).substr(0, kMaxSaid) : origin;
}

void throw_transfer_error(const std::string& url, int status, std::string_view said) {
  std::string help = "check the network and HF_ENDPOINT; what has arrived is kept";
  bool retry = true;
  switch (status) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
      help =
          "the server's certificate is not trusted; install ca-certificates, or check who "
          "answers there";
      retry = false;
      break;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      help = "check HF_ENDPOINT: https://HOST";
      retry = false;
      break;
    default:
      break;
  }
  throw HttpError(Error(ErrorCode::kIo, fmt::format("{}: {}", host_of(url), said), help), retry);
}

void throw_status_error(const Server& server, const Response& response, std::string_view body,
                        bool with_token) {
  const Advice advice = advice_for(server, response, with_token);
  const bool missing = response.status == 404 || response.status == 401;
  const Index wait_s = retry_after(response);
  std::string message = fmt::format("{} answers {}: {}{}", host_of(response.url), response.status,
                                    advice.what, said_by(response, body));
  if (wait_s > 0) message += fmt::format(" (asks to wait {} s)", wait_s);
  throw HttpError(Error(missing ? ErrorCode::kNotFound : ErrorCode::kIo, message, advice.help),
                  worth_retrying(response.status), response.status, wait_s);
}

}  // namespace kogia::hub
