#include "cli/hub_flags.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "base/log.h"
#include "cli/command_line.h"
#include "hub/cache.h"

namespace kogia::cli {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxTokenBytes = 64 * 1024;

std::string get(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool is_on(const char* name) {
  std::string value = get(name);
  std::ranges::transform(value, value.begin(), [](unsigned char c) { return std::toupper(c); });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

fs::path with_home(const std::string& path) {
  const std::string home = get("HOME");
  if (path == "~") return home;
  return path.starts_with("~/") ? fs::path(home) / path.substr(2) : fs::path(path);
}

fs::path hub_home() {
  if (const std::string own = get("HF_HOME"); !own.empty()) return with_home(own);
  if (const std::string xdg = get("XDG_CACHE_HOME"); !xdg.empty()) {
    return with_home(xdg) / "huggingface";
  }
  const std::string home = get("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / "huggingface";
}

std::string trimmed(std::string text) {
  const char* blanks = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) + 1 - begin);
}

std::string token_of_file() {
  const std::string path = get("HF_TOKEN_PATH");
  std::ifstream in(path.empty() ? hub_home() / "token" : with_home(path), std::ios::binary);
  std::string text(kMaxTokenBytes, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return trimmed(text);
}

// It becomes a line of a header, so nothing may end that line.
std::string find_token() {
  std::string token = trimmed(get("HF_TOKEN"));
  if (token.empty()) token = trimmed(get("HUGGING_FACE_HUB_TOKEN"));
  if (token.empty()) token = token_of_file();
  if (is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return {};
  const auto bad = [](char c) { return c <= ' ' || c > '~'; };
  if (std::ranges::any_of(token, bad)) {
    throw Error(ErrorCode::kUsage, "the hub's token holds blanks or characters that no token has",
                "check HF_TOKEN, or the token file in HF_HOME");
  }
  return token;
}

bool is_loopback(const std::string& endpoint) {
  const std::string origin = hub::origin_of(endpoint);
  return origin.starts_with("http://127.") || origin.starts_with("http://localhost:") ||
         origin.starts_with("http://[::1]:");
}

}  // namespace

fs::path hub_cache_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string own = get(name); !own.empty()) return with_home(own);
  }
  const fs::path home = hub_home();
  return home.empty() ? home : home / "hub";
}

hub::Server hub_server() {
  hub::Server server;
  server.endpoint = get("HF_ENDPOINT");
  if (server.endpoint.empty()) server.endpoint = "https://huggingface.co";
  while (server.endpoint.ends_with('/')) server.endpoint.pop_back();
  if (hub::origin_of(server.endpoint).empty() ||
      server.endpoint.find_first_of("?#@ ") != std::string::npos) {
    throw_error(ErrorCode::kUsage, "HF_ENDPOINT is '{}', expected https://HOST", server.endpoint);
  }
  server.token = find_token();
  if (!server.token.empty() && server.endpoint.starts_with("http:") &&
      !is_loopback(server.endpoint)) {
    log_warning("the token travels to {} without encryption", server.endpoint);
  }
  if (const std::string text = get("HF_HUB_DOWNLOAD_TIMEOUT"); !text.empty()) {
    const auto seconds = parse_index(text);
    if (!seconds || *seconds < 1 || *seconds > 86400) {
      throw_error(ErrorCode::kUsage, "HF_HUB_DOWNLOAD_TIMEOUT is '{}', expected seconds from 1 on",
                  text);
    }
    server.stall = std::chrono::seconds(*seconds);
  }
  return server;
}

bool hub_is_offline() { return is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"); }

fs::path find_model(const std::string& model) { return hub::find_model(hub_cache_folder(), model); }

}  // namespace kogia::cli
