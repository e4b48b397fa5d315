#include "hub/download.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"
#include "hub/blob.h"
#include "hub/content_range.h"

namespace kogia::hub {
namespace {

constexpr Index kSomeProgress = Index{64} << 10;  // so much received, and failures count anew

// One file. The first connection opens it and sees whether the server can send ranges; before that
// no other one joins.
struct File {
  enum class State { kUntouched, kFirst, kShared, kFinished };

  explicit File(const RemoteFile& f) : remote(f) {}
  const RemoteFile& remote;
  State state = State::kUntouched;
  std::unique_ptr<IncompleteBlob> blob;  // from kFirst to kFinished
  std::vector<bool> taken;
  std::size_t n_left = 0;  // parts not complete
  std::string known_url;   // where its bytes were found; empty: ask the hub
  bool had_wrong_hash = false;
  std::atomic<Index> counted{0};  // by the progress bar, in this run
};

struct Task {
  File* file = nullptr;
  std::size_t part = 0;
  bool first = false;
  bool whole = false;  // the server knows no ranges: all parts come to this task
};

class Download {
 public:
  Download(const Server& server, const Folder& blobs, std::span<const RemoteFile> files,
           const DownloadOptions& options)
      : server_(server), blobs_(blobs), options_(options) {
    for (const RemoteFile& file : files) files_.emplace_back(file);
  }

  void run() {
    const auto n = std::min<std::size_t>(static_cast<std::size_t>(options_.connections), n_parts());
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < n; ++i) threads.emplace_back([this] { work(); });
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::size_t n_parts() const {
    std::size_t n = 0;
    for (const File& f : files_) {
      n += static_cast<std::size_t>(f.remote.size / IncompleteBlob::kPartBytes) + 1;
    }
    return n;
  }
  bool stopped() const { return stop_.load(std::memory_order_relaxed) || interrupted(); }

  void work() noexcept {
    try {
      HttpClient client(server_, [this] { return stopped(); });
      while (const std::optional<Task> task = next_task()) transfer(client, *task);
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      if (!stop_.exchange(true)) error_ = std::current_exception();
    }
    changed_.notify_all();
  }

  std::optional<Task> next_task();
  static std::optional<std::size_t> free_part(const File& file);
  bool open(File& file);
  void transfer(HttpClient& client, Task task);
  void transfer_part(HttpClient& client, Task& task);
  void request_rest(HttpClient& client, Task& task);
  void note_url(File& file, std::string url);
  void start_over(Task& task);
  void part_done(const Task& task);
  void finish(File& file);

  class PartSink;

  const Server& server_;
  const Folder& blobs_;
  const DownloadOptions& options_;
  std::deque<File> files_;  // never moved
  std::mutex mutex_;        // of the files' states, not of what the blobs do inside
  std::condition_variable changed_;
  std::atomic<bool> stop_{false};
  std::exception_ptr error_;
};

// Writes the body of one answer into a part, or into the whole file where the server sends it all.
class Download::PartSink : public BodySink {
 public:
  PartSink(Download& owner, Task& task)
      : owner_(owner), task_(task), file_(*task.file), part_(task.part) {}

  void begin(const Response& response) override {
    owner_.note_url(file_, response.url);
    IncompleteBlob& blob = *file_.blob;
    const Index from = blob.part_begin(part_) + blob.done(part_);
    end_ = blob.part_begin(part_) + blob.part_size(part_);
    if (response.status == 206) {
      check_content_range(response, from, end_ - 1, file_.remote, host());
      if (task_.first) share();
    } else {
      const Index length = response.content_length();
      if (length >= 0 && length != file_.remote.size) {
        throw_error(ErrorCode::kInvalid, "{}: {} has {} bytes, its listing says {}", host(),
                    file_.remote.path, length, file_.remote.size);
      }
      begin_whole(response);
    }
  }

  void write(std::span<const std::byte> bytes) override {
    IncompleteBlob& blob = *file_.blob;
    while (!bytes.empty()) {
      const Index room = blob.part_size(part_) - blob.done(part_);
      if (room == 0) {
        if (blob.part_begin(part_) + blob.part_size(part_) >= end_) {
          throw_error(ErrorCode::kInvalid, "{}: {}: more bytes than announced", host(),
                      file_.remote.path);
        }
        ++part_;
        continue;
      }
      const auto n = std::min(bytes.size(), static_cast<std::size_t>(room));
      blob.write(part_, bytes.first(n));
      owner_.options_.progress->add(static_cast<Index>(n));
      file_.counted += static_cast<Index>(n);
      bytes = bytes.subspan(n);
    }
  }

 private:
  std::string host() const { return owner_.server_.endpoint; }

  // No ranges: all of the file comes, from its beginning on.
  void begin_whole(const Response& response) {
    IncompleteBlob& blob = *file_.blob;
    const bool all_asked = blob.n_parts() == 1 && blob.done(0) == 0;
    if (all_asked) return;
    if (!alone()) {
      throw HttpError(
          Error(ErrorCode::kIo, fmt::format("{}: {}: a range was asked for, the whole came", host(),
                                            file_.remote.path)),
          true, response.status);
    }
    owner_.start_over(task_);
    task_.whole = true;
    part_ = 0;
    end_ = file_.remote.size;
  }

  // Nobody else works on the file: no range has come yet.
  bool alone() const {
    const std::scoped_lock lock(owner_.mutex_);
    return task_.first && file_.state == File::State::kFirst;
  }

  void share() {
    {
      const std::scoped_lock lock(owner_.mutex_);
      file_.state = File::State::kShared;
    }
    owner_.changed_.notify_all();
  }

  Download& owner_;
  Task& task_;
  File& file_;
  std::size_t part_;
  Index end_ = 0;  // of what was asked for
};

std::optional<std::size_t> Download::free_part(const File& file) {
  const auto at = std::ranges::find(file.taken, false);
  if (at == file.taken.end()) return {};
  return static_cast<std::size_t>(at - file.taken.begin());
}

// Files in order, parts in order. Waits while all that is left may yet be shared or fail.
std::optional<Task> Download::next_task() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (stopped()) throw Error(ErrorCode::kInterrupted, "interrupted");
    bool pending = false;
    for (File& file : files_) {
      switch (file.state) {
        case File::State::kFinished:
          break;
        case File::State::kFirst:
          pending = true;
          break;
        case File::State::kUntouched:
          file.state = File::State::kFirst;
          return Task{.file = &file, .part = 0, .first = true};
        case File::State::kShared:
          pending = true;
          if (const auto part = free_part(file)) {
            file.taken[*part] = true;
            return Task{.file = &file, .part = *part, .first = false};
          }
          break;
      }
    }
    if (!pending) return {};
    changed_.wait_for(lock, std::chrono::milliseconds(100));
  }
}

// Takes up what an earlier run has left; false if nothing is missing.
bool Download::open(File& file) {
  auto blob = std::make_unique<IncompleteBlob>(blobs_, file.remote);
  const std::scoped_lock lock(mutex_);
  file.blob = std::move(blob);
  file.taken.assign(file.blob->n_parts(), false);
  file.n_left = 0;
  for (std::size_t part = 0; part < file.blob->n_parts(); ++part) {
    file.taken[part] = file.blob->done(part) == file.blob->part_size(part);
    file.n_left += file.taken[part] ? 0 : 1;
  }
  return file.n_left > 0;
}

void Download::transfer(HttpClient& client, Task task) {
  File& file = *task.file;
  if (task.first) {
    if (!open(file)) return finish(file);
    const std::scoped_lock lock(mutex_);
    task.part = *free_part(file);
    file.taken[task.part] = true;
  }
  transfer_part(client, task);
  part_done(task);
}

// Only while no other connection has joined in.
void Download::start_over(Task& task) {
  File& file = *task.file;
  options_.progress->add(-file.counted.exchange(0));
  file.blob->reset();
  task.whole = false;
  const std::scoped_lock lock(mutex_);
  file.n_left = file.blob->n_parts();
  file.taken.assign(file.n_left, false);
  file.taken[task.part] = true;
}

// Until the part is complete. What has arrived stays, so each attempt asks for the rest; a server
// without ranges has to begin again.
void Download::transfer_part(HttpClient& client, Task& task) {
  IncompleteBlob& blob = *task.file->blob;
  const auto rest = [&] {
    return task.whole ? task.file->remote.size - blob.total_done()
                      : blob.part_size(task.part) - blob.done(task.part);
  };
  for (int failures = 0; rest() > 0;) {
    if (task.whole) start_over(task);
    const Index before = rest();
    try {
      request_rest(client, task);
      if (rest() == 0) return;
      throw HttpError(Error(ErrorCode::kIo,
                            fmt::format("{}: {}: the answer ended {} bytes early", server_.endpoint,
                                        task.file->remote.path, rest()),
                            "try again: what has arrived is kept"),
                      true);
    } catch (const HttpError& error) {
      const bool gained = !task.whole && before - rest() >= std::min(kSomeProgress, before);
      if (gained) failures = 0;
      if (!error.retry || ++failures > server_.retries) throw;
      pause_before_retry(error, failures, [this] { return stopped(); });
    }
  }
}

void Download::request_rest(HttpClient& client, Task& task) {
  File& file = *task.file;
  IncompleteBlob& blob = *file.blob;
  Request request;
  {
    const std::scoped_lock lock(mutex_);
    request.url = file.known_url;
  }
  const bool shortcut = !request.url.empty();
  if (!shortcut) request.url = options_.url_of(file.remote);
  const bool whole = blob.n_parts() == 1 && blob.done(0) == 0;
  if (!whole) {
    request.first = blob.part_begin(task.part) + blob.done(task.part);
    request.last = blob.part_begin(task.part) + blob.part_size(task.part) - 1;
  }
  PartSink sink(*this, task);
  try {
    client.get(request, sink);
  } catch (const HttpError& error) {
    // Signed addresses expire; the hub gives a new one.
    if (shortcut && error.status >= 400 && error.status < 500 && error.status != 429) {
      note_url(file, {});
      throw HttpError(error, true, error.status, error.retry_after_s);
    }
    throw;
  }
}

void Download::note_url(File& file, std::string url) {
  const std::scoped_lock lock(mutex_);
  file.known_url = std::move(url);
}

void Download::part_done(const Task& task) {
  File& file = *task.file;
  file.blob->hash_ahead();
  bool last = false;
  {
    const std::scoped_lock lock(mutex_);
    file.n_left = task.whole ? 0 : file.n_left - 1;
    last = file.n_left == 0;
  }
  if (last) finish(file);
}

void Download::finish(File& file) {
  const bool right = file.blob->finish();
  const bool again = !right && std::exchange(file.had_wrong_hash, true);
  if (!right) options_.progress->add(-file.counted.exchange(0));
  {
    const std::scoped_lock lock(mutex_);
    file.blob.reset();
    file.known_url.clear();
    file.state = right ? File::State::kFinished : File::State::kUntouched;
  }
  changed_.notify_all();
  // What an earlier run left may have been damaged; what comes in one piece may not.
  if (again) {
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: {}: what it sends has not the hash {}, twice", server_.endpoint,
                            file.remote.path, file.remote.blob),
                "nothing of it is kept; the server or a proxy on the way changes the file");
  }
}

}  // namespace

void download(const Server& server, const Folder& blobs, std::span<const RemoteFile> files,
              const DownloadOptions& options) {
  Download(server, blobs, files, options).run();
}

}  // namespace kogia::hub
