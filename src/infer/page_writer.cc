#include "infer/page_writer.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;

/// Ctrl-C is for the main thread, and a limit on the size of files (SIGXFSZ) is an error like
/// others.
void block_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

FileDescriptor create_temporary(const fs::path& file, fs::path& temporary) {
  static std::atomic<unsigned> counter{0};
  FileDescriptor fd;
  do {
    temporary = file;
    temporary.replace_extension(fmt::format("{}-{}.tmp", ::getpid(), counter.fetch_add(1)));
    fd = FileDescriptor(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  } while (!fd.valid() && errno == EEXIST);
  return fd;
}

Index file_bytes(const PageTag& tag, std::size_t page_bytes) {
  return page_file_bytes(static_cast<Index>(tag.ids.size()), static_cast<Index>(page_bytes));
}

/// 0, or the errno of what went wrong; then nothing is left of it.
int write_file(const fs::path& file, const PageTag& tag, std::span<const std::byte> page,
               const PageAge& age) {
  fs::path temporary;
  const FileDescriptor fd = create_temporary(file, temporary);
  if (!fd.valid()) return errno;
  if (!write_page(fd, tag, page) || ::rename(temporary.c_str(), file.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return error;
  }
  const timespec times[2] = {file_time(age), file_time(age)};
  ::futimens(fd.get(), times);
  return 0;
}

bool has_size(const fs::path& file, Index n_bytes) {
  struct stat info{};
  return ::stat(file.c_str(), &info) == 0 && info.st_size == n_bytes;
}

}  // namespace

PageWriter::PageWriter(fs::path root, Index max_bytes, Index max_queue)
    : root_(std::move(root)),
      max_queue_(max_queue),
      folder_(root_, max_bytes),
      thread_([this] { work(); }) {}

PageWriter::~PageWriter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool PageWriter::push(const PageTag& tag, std::span<const std::byte> page, const PageAge& age) {
  const auto n_bytes = static_cast<Index>(page.size());
  {
    const std::lock_guard lock(mutex_);
    if (failed_ || (!queue_.empty() && queued_bytes_ + n_bytes > max_queue_)) {
      ++counts_.n_dropped;
      return false;
    }
    queued_bytes_ += n_bytes;
  }
  Job job{tag, {page.begin(), page.end()}, age};
  const std::lock_guard lock(mutex_);
  queue_.push_back(std::move(job));
  changed_.notify_all();
  return true;
}

void PageWriter::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return idle_ && queue_.empty(); });
}

PageWriterCounts PageWriter::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void PageWriter::work() {
  block_signals();
  folder_.scan();
  std::unique_lock lock(mutex_);
  while (true) {
    counts_.n_removed = folder_.n_removed();
    counts_.n_folder_bytes = folder_.n_bytes();
    idle_ = queue_.empty();
    if (idle_) changed_.notify_all();
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    idle_ = false;
    const Job job = std::move(queue_.front());
    queue_.pop_front();
    queued_bytes_ -= static_cast<Index>(job.page.size());
    const bool failed = failed_;
    lock.unlock();
    if (!failed) write(job);
    lock.lock();
    counts_.n_dropped += failed ? 1 : 0;
  }
}

void PageWriter::write(const Job& job) {
  const std::string model = job.tag.fingerprint.hex(), name = job.tag.key.hex() + ".page";
  const fs::path file = root_ / model / name;
  const Index n_bytes = file_bytes(job.tag, job.page.size());
  if (has_size(file, n_bytes)) return;  // by another process
  const int error = write_file(file, job.tag, job.page, job.age);
  if (error == 0) folder_.add(model + "/" + name, n_bytes, job.age);
  // A temporary or a folder that is gone was removed by somebody: one page less.
  const bool failed = error != 0 && error != ENOENT;
  if (failed) {
    log_warning("{}: {}: no more pages are kept there", root_.string(),
                std::generic_category().message(error));
  }
  const std::lock_guard lock(mutex_);
  ++(error == 0 ? counts_.n_written : counts_.n_dropped);
  failed_ = failed;
}

}  // namespace kogia
