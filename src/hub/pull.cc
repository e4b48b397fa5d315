#include "hub/pull.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "hub/blob.h"
#include "hub/cache.h"
#include "hub/choose.h"
#include "hub/download.h"
#include "hub/folder.h"

namespace kogia::hub {
namespace fs = std::filesystem;
namespace {

constexpr Index kMaxListingBytes = Index{32} << 20, kMaxIndexBytes = Index{64} << 20;
constexpr Index kSpareBytes = Index{16} << 20;  // that a disk is left with

constexpr std::string_view kCacheTag =
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder is a cache: programs that back up files may leave it out.\n"
    "# See https://bford.info/cachedir/\n";

class Pull {
 public:
  explicit Pull(const PullOptions& options)
      : options_(options),
        server_(options.server),
        client_(server_, [] { return interrupted(); }) {}

  PullResult run();

 private:
  std::string repository_url(std::string_view kind) const {
    return server_.endpoint + std::string(kind) + options_.name.repository;
  }
  std::string url_of(const RemoteFile& file) const {
    return fmt::format("{}/resolve/{}/{}", repository_url("/"), listing_.commit,
                       url_encode(file.path, true));
  }

  void fetch_listing();
  void complete(RemoteFile& file);
  bool is_there(const RemoteFile& file, const Folder& blobs, const Folder& snapshot) const;
  std::vector<RemoteFile> missing_of(std::span<const RemoteFile> files, const Folder& blobs,
                                     const Folder& snapshot) const;
  Index fetch(std::span<const RemoteFile> files, const Folder& blobs, const Folder& snapshot);
  std::vector<RemoteFile> weights_of(const RemoteFile& index, const Folder& blobs,
                                     const Folder& snapshot) const;
  void link(const RemoteFile& file, const Folder& blobs, const Folder& snapshot) const;
  void publish(std::span<const RemoteFile> files, const Folder& repository, const Folder& blobs,
               const Folder& snapshot) const;
  fs::path model_path(std::span<const RemoteFile> files) const;

  const PullOptions& options_;
  const Server& server_;
  HttpClient client_;
  Listing listing_;
};

bool give_up() { return interrupted(); }

void Pull::fetch_listing() {
  const Request request{.url =
                            fmt::format("{}/revision/{}?blobs=true", repository_url("/api/models/"),
                                        url_encode(options_.name.revision, false))};
  std::string text;
  with_retries(server_, give_up, [&] { text = client_.get_text(request, kMaxListingBytes); });
  listing_ = parse_listing(text, fmt::format("{}: {}", server_.endpoint, options_.name.text()));
  if (is_commit(options_.name.revision) && listing_.commit != options_.name.revision) {
    throw_error(ErrorCode::kInvalid, "{}: asked for commit {}, found {}", server_.endpoint,
                options_.name.revision, listing_.commit);
  }
}

std::string without_quotes(std::string etag) {
  if (etag.starts_with("W/")) etag = etag.substr(2);
  std::erase(etag, '"');
  return etag;
}

// Mirrors may leave sizes and hashes out of the listing; the file's own headers have them.
void Pull::complete(RemoteFile& file) {
  if (file.size >= 0 && is_blob(file.blob)) return;
  struct Nothing : BodySink {
    void begin(const Response&) override {}
    void write(std::span<const std::byte>) override {}
  } nothing;
  Response response;
  with_retries(server_, give_up,
               [&] { response = client_.get({.url = url_of(file), .head_only = true}, nothing); });
  const std::string* etag = response.header("x-linked-etag");
  if (etag == nullptr) etag = response.header("etag");
  const std::string hash = etag != nullptr ? without_quotes(*etag) : std::string();
  const std::string* size = response.header("x-linked-size");
  if (size != nullptr) response.headers["content-length"] = *size;
  const bool has_size = size != nullptr || response.status == 200;
  if (file.size < 0 && has_size) file.size = response.content_length();
  if (file.blob.empty()) file.blob = hash;
  constexpr Index kMost = Index{1} << 43;
  if (!is_blob(file.blob) || file.size < 0 || file.size > kMost) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: {}: tells no size and hash to check it by (ETag '{}')",
                            server_.endpoint, file.path, hash.substr(0, 80)),
                "use another hub or mirror (HF_ENDPOINT)");
  }
}

std::pair<std::string, std::string> folder_and_name(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

bool Pull::is_there(const RemoteFile& file, const Folder& blobs, const Folder& snapshot) const {
  if (blobs.target_size(file.blob) == file.size) {
    if (!options_.verify || has_right_hash(blobs, file)) return true;
    log_warning("{}: its bytes have another hash than they should; fetched anew",
                blobs.path_of(file.blob));
    return false;
  }
  // Where a file system knows no links, the file itself lies in the snapshot.
  const auto [folder, name] = folder_and_name(file.path);
  const Folder place = folder.empty() ? snapshot.copy() : snapshot.below(folder);
  return place.file_size(name) == file.size;
}

std::vector<RemoteFile> Pull::missing_of(std::span<const RemoteFile> files, const Folder& blobs,
                                         const Folder& snapshot) const {
  std::vector<RemoteFile> missing;
  std::set<std::string> seen;  // two files may have the same bytes
  for (const RemoteFile& file : files) {
    if (!seen.insert(file.blob).second || is_there(file, blobs, snapshot)) continue;
    missing.push_back(file);
  }
  return missing;
}

Index Pull::fetch(std::span<const RemoteFile> files, const Folder& blobs, const Folder& snapshot) {
  const std::vector<RemoteFile> missing = missing_of(files, blobs, snapshot);
  Index total = 0, left = 0;
  for (const RemoteFile& file : missing) {
    total += file.size;
    left += IncompleteBlob::bytes_left_by_earlier_run(blobs, file);
  }
  if (missing.empty()) return 0;
  const Index free = blobs.free_bytes(), needed = total - left + kSpareBytes;
  if (free >= 0 && free < needed) {
    throw Error(ErrorCode::kIo,
                fmt::format("{}: {} are still to be fetched, and its disk has {} free",
                            blobs.path_of(""), format_bytes(total - left), format_bytes(free)),
                "free some space, or set HF_HUB_CACHE to a folder on another disk");
  }
  if (left > 0 && options_.progress != Progress::Mode::kSilent) {
    log_info("{} of {} are here from an earlier run", format_bytes(left), format_bytes(total));
  }
  Progress progress(options_.name.text(), total - left, ProgressUnit::kBytes, options_.progress);
  download(server_, blobs, missing,
           {.url_of = [this](const RemoteFile& f) { return url_of(f); },
            .connections = options_.connections,
            .progress = &progress});
  blobs.sync();
  return total - left;
}

std::vector<RemoteFile> Pull::weights_of(const RemoteFile& index, const Folder& blobs,
                                         const Folder& snapshot) const {
  const std::string where = options_.name.repository + ": " + index.path;
  const std::string text = blobs.target_size(index.blob) >= 0
                               ? blobs.read_text(index.blob, kMaxIndexBytes)
                               : snapshot.read_text(index.path, kMaxIndexBytes);
  return choose_weights(listing_, parse_weight_files(text, where), where);
}

// "../../blobs/HASH", with as many steps up as the file lies deep.
std::string link_target(const RemoteFile& file) {
  std::string up = "../../";
  for (const char c : file.path) up += c == '/' ? "../" : "";
  return up + "blobs/" + file.blob;
}

void Pull::link(const RemoteFile& file, const Folder& blobs, const Folder& snapshot) const {
  const auto [path, name] = folder_and_name(file.path);
  const Folder folder = path.empty() ? snapshot.copy() : snapshot.below(path);
  const std::string target = link_target(file);
  if (folder.read_link(name) == target) return;
  if (blobs.target_size(file.blob) < 0) {  // no links here: it lies in the snapshot itself
    if (folder.file_size(name) == file.size) return;
    throw_error(ErrorCode::kUnsupported,
                "{}: another file has the same bytes, and its file system has no links",
                folder.path_of(name));
  }
  if (folder.try_put_link(target, name)) return;
  // As Python's library does where there are no links.
  folder.take_from(blobs, file.blob, name);
}

// The texts and the weights, then config.json, then the ref: before each of these steps nothing
// finds the model, or nothing loads it.
void Pull::publish(std::span<const RemoteFile> files, const Folder& repository, const Folder& blobs,
                   const Folder& snapshot) const {
  const auto is_config = [](const RemoteFile& f) { return f.path == "config.json"; };
  for (const RemoteFile& file : files) {
    if (!is_config(file)) link(file, blobs, snapshot);
  }
  snapshot.sync();
  for (const RemoteFile& file : files) {
    if (is_config(file)) link(file, blobs, snapshot);
  }
  snapshot.sync();
  const std::string& revision = options_.name.revision;
  if (revision == listing_.commit) return;
  const auto [path, name] = folder_and_name("refs/" + revision);
  const Folder refs = repository.below(path);
  refs.put_text(listing_.commit, name);
  refs.sync();
}

fs::path Pull::model_path(std::span<const RemoteFile> files) const {
  ModelName name = options_.name;
  name.revision = listing_.commit;
  if (!name.file.empty() && files.size() == 1) {
    return *find_snapshot(options_.cache, name.repository, name.revision) / files[0].path;
  }
  return find_pulled(options_.cache, name);
}

PullResult Pull::run() {
  fetch_listing();
  Choice choice = choose_files(listing_, options_.name);
  for (RemoteFile& file : choice.files) complete(file);

  const Folder cache = Folder::open(options_.cache.string());
  const std::string name = cache_folder_name(options_.name.repository);
  bool told = false;
  const FileLock lock(cache.below(".locks/" + name), "kogia-pull.lock", [&] {
    throw_if_interrupted();
    if (!std::exchange(told, true)) log_info("another pull of {} is at work: waiting", name);
  });
  if (!lock.valid()) log_warning("{}: its file system has no locks", options_.cache.string());
  if (cache.file_size("CACHEDIR.TAG") < 0) cache.put_text(kCacheTag, "CACHEDIR.TAG");
  const Folder repository = cache.below(name), blobs = repository.below("blobs");
  const Folder snapshot = repository.below("snapshots/" + listing_.commit);

  PullResult result{.commit = listing_.commit, .model = {}, .files = {}, .fetched_bytes = 0};
  if (choice.by_index) {  // small, and it decides what else is needed
    const RemoteFile index = choice.files[0];
    result.fetched_bytes += fetch(std::span(&index, 1), blobs, snapshot);
    for (RemoteFile& file : weights_of(index, blobs, snapshot)) {
      complete(file);
      choice.files.push_back(std::move(file));
    }
  }
  result.fetched_bytes += fetch(choice.files, blobs, snapshot);
  result.files = std::move(choice.files);
  publish(result.files, repository, blobs, snapshot);
  result.model = model_path(result.files);
  return result;
}

}  // namespace

PullResult pull(const PullOptions& options) { return Pull(options).run(); }

}  // namespace kogia::hub
