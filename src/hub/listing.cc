#include "hub/listing.h"

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "hub/names.h"

namespace kogia::hub {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxFiles = 100'000, kMaxMessage = 200;
constexpr Index kMaxFileBytes = Index{1} << 43;  // 8 TiB

[[noreturn]] void refuse(std::string_view where, std::string_view what) {
  throw Error(ErrorCode::kInvalid, fmt::format("{}: {}", where, what),
              "check HF_ENDPOINT: is that a Hugging Face hub?");
}

// Only the keys that `wanted` knows (below the first level: all) become part of the tree.
template <class Wanted>
Json parse(std::string_view text, std::string_view where, Wanted&& wanted) {
  const auto filter = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) refuse(where, "not an answer of a hub: nested too deep");
    if (event != Json::parse_event_t::key || depth != 1) return true;
    return static_cast<bool>(wanted(value.get_ref<const std::string&>()));
  };
  Json json;
  try {
    json = Json::parse(text, filter);
  } catch (const Json::exception& e) {
    refuse(where, fmt::format("not JSON: {}", std::string(e.what()).substr(0, kMaxMessage)));
  }
  if (!json.is_object()) refuse(where, "not an object");
  return json;
}

const std::string* text_field(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at == object.end() ? nullptr : at->get_ptr<const Json::string_t*>();
}

Index size_field(const Json& object, const std::string& path, std::string_view where) {
  const auto at = object.find("size");
  if (at == object.end() || at->is_null()) return -1;
  const auto* size = at->get_ptr<const Json::number_unsigned_t*>();
  if (size == nullptr || *size > static_cast<std::uint64_t>(kMaxFileBytes)) {
    refuse(where, fmt::format("{}: size is not a number from 0 to 8 TiB", path));
  }
  return static_cast<Index>(*size);
}

std::string hash_field(const Json& object, const char* key, std::size_t n, const std::string& path,
                       std::string_view where) {
  const std::string* hash = text_field(object, key);
  if (hash == nullptr) return {};
  if (!is_hex(*hash, n)) {
    refuse(where, fmt::format("{}: {} is not {} hexadecimal digits", path, key, n));
  }
  return *hash;
}

RemoteFile read_file(const Json& item, const std::string& path, std::string_view where) {
  RemoteFile file{.path = path, .size = size_field(item, path, where), .blob = {}};
  const auto lfs = item.find("lfs");
  if (lfs != item.end() && lfs->is_object()) {
    file.blob = hash_field(*lfs, "sha256", 64, path, where);
    if (const Index size = size_field(*lfs, path, where); size >= 0) file.size = size;
  } else {
    file.blob = hash_field(item, "blobId", 40, path, where);
  }
  return file;
}

// git allows a backslash or a control character in a name; nobody's model has one. What leads out
// of the folder no git repository can hold.
bool leads_out(const std::string& path) {
  if (path.empty() || path.front() == '/' || path.back() == '/') return true;
  if (path.find('\0') != std::string::npos || path.find("//") != std::string::npos) return true;
  const std::string framed = "/" + path + "/";
  return framed.find("/../") != std::string::npos || framed.find("/./") != std::string::npos;
}

}  // namespace

const RemoteFile* Listing::find(std::string_view path) const {
  const auto at = std::ranges::find(files, path, &RemoteFile::path);
  return at == files.end() ? nullptr : &*at;
}

Listing parse_listing(std::string_view text, std::string_view where) {
  const Json json =
      parse(text, where, [](const std::string& key) { return key == "sha" || key == "siblings"; });
  Listing listing;
  const std::string* commit = text_field(json, "sha");
  if (commit == nullptr || !is_commit(*commit)) refuse(where, "no commit in its answer ('sha')");
  listing.commit = *commit;

  const auto siblings = json.find("siblings");
  if (siblings == json.end() || !siblings->is_array()) {
    refuse(where, "no list of files in its answer ('siblings')");
  }
  if (siblings->size() > kMaxFiles) refuse(where, "more than 100,000 files");
  std::set<std::string> seen;
  for (const Json& item : *siblings) {
    const std::string* path = item.is_object() ? text_field(item, "rfilename") : nullptr;
    if (path == nullptr) refuse(where, "a file without a name ('rfilename')");
    if (leads_out(*path)) require_safe_path(*path, where);
    if (!is_safe_path(*path)) continue;
    if (!seen.insert(*path).second) refuse(where, fmt::format("{} twice", *path));
    listing.files.push_back(read_file(item, *path, where));
  }
  return listing;
}

std::vector<std::string> parse_weight_files(std::string_view text, std::string_view where) {
  const Json json = parse(text, where, [](const std::string& key) { return key == "weight_map"; });
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) {
    throw_error(ErrorCode::kInvalid, "{}: no weight_map in it", where);
  }
  std::set<std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    const auto* name = file.get_ptr<const Json::string_t*>();
    if (name == nullptr) throw_error(ErrorCode::kInvalid, "{}: {}: no file name", where, tensor);
    require_safe_path(*name, where);
    files.insert(*name);
  }
  return {files.begin(), files.end()};
}

}  // namespace kogia::hub
