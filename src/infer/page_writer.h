#pragma once
// A thread that brings pages to the disk while the model computes.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include "infer/page_file.h"
#include "infer/page_folder.h"

namespace kogia {

struct PageWriterCounts {
  Index n_written = 0, n_dropped = 0, n_removed = 0;
  Index n_folder_bytes = 0;
};

/// Writes to FOLDER/FINGERPRINT/KEY.page: a temporary beside it, then renamed, so that whoever
/// opens that name has a whole page. Nothing is brought to the disk by force: what a power failure
/// tears has the wrong checksum.
///
/// Errors   the first that is not another process's doing is a warning, and the last that is
/// written Threads  one at a time
class PageWriter {
 public:
  /// `max_queue`: bytes of pages that wait; one page always may.
  PageWriter(std::filesystem::path root, Index max_bytes, Index max_queue);
  /// Writes what waits.
  ~PageWriter();

  /// False: dropped, since too many wait or nothing is written any more.
  bool push(const PageTag& tag, std::span<const std::byte> page, const PageAge& age);
  void flush();
  PageWriterCounts counts() const;

 private:
  struct Job {
    PageTag tag;
    std::vector<std::byte> page;
    PageAge age;
  };

  void work();
  void write(const Job& job);

  const std::filesystem::path root_;
  const Index max_queue_;
  PageFolder folder_;  // the thread's own

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> queue_;
  Index queued_bytes_ = 0;
  bool idle_ = false, stopping_ = false, failed_ = false;
  PageWriterCounts counts_;

  std::thread thread_;  // the last: it uses all of the above
};

}  // namespace kogia
