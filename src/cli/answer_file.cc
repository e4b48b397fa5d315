#include "cli/answer_file.h"

#include <cerrno>
#include <charconv>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/mapped_file.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

namespace fs = std::filesystem;

class StdoutAnswers final : public Answers {
 public:
  explicit StdoutAnswers(Index n_slots) : n_slots_(n_slots) {}
  bool has(Index slot) const override { return slot < next_ || ahead_.contains(slot); }
  Index first_missing() const override { return next_; }
  Index n_there() const override { return next_ + static_cast<Index>(ahead_.size()); }
  void put(Index slot, const std::string& line) override {
    KOGIA_CHECK(!has(slot) && slot < n_slots_);
    ahead_.emplace(slot, line);
    for (auto at = ahead_.begin(); at != ahead_.end() && at->first == next_;
         at = ahead_.erase(at), ++next_) {
      write_out(at->second + "\n");
    }
  }
  void finish() override { KOGIA_CHECK(next_ == n_slots_); }

 private:
  Index n_slots_, next_ = 0;
  std::map<Index, std::string> ahead_;
};

// A file that is appended to, and read at places.
class LineFile {
 public:
  explicit LineFile(fs::path path) : path_(std::move(path)) {
    fd_ = FileDescriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (!fd_.valid()) throw_errno(path_.string(), "cannot open it to write");
  }
  const fs::path& path() const { return path_; }
  int fd() const { return fd_.get(); }
  Index size() const { return size_; }

  void cut(Index size) {
    if (::ftruncate(fd_.get(), size) != 0) throw_errno(path_.string(), "cannot cut it");
    size_ = size;
  }
  void append(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::pwrite(fd_.get(), text.data(), text.size(), size_);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw_errno(path_.string(), "cannot write");
      text.remove_prefix(static_cast<std::size_t>(n));
      size_ += n;
    }
  }
  std::string read(Index begin, Index n) const {
    std::string text(static_cast<std::size_t>(n), '\0');
    for (Index done = 0; done < n;) {
      const ssize_t got =
          ::pread(fd_.get(), text.data() + done, static_cast<std::size_t>(n - done), begin + done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_errno(path_.string(), "cannot read");
      if (got == 0) throw_error(ErrorCode::kIo, "{}: shorter than it was", path_.string());
      done += got;
    }
    return text;
  }
  void sync() const {
    if (::fsync(fd_.get()) != 0) throw_errno(path_.string(), "cannot bring to the disk");
  }

 private:
  fs::path path_;
  FileDescriptor fd_;
  Index size_ = 0;
};

// Calls visit(line, begin) with each line that has its end; returns where they end.
template <class Visit>
std::size_t for_each_line(std::string_view text, Visit&& visit) {
  std::size_t begin = 0;
  for (std::size_t end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    visit(text.substr(begin, end - begin), begin);
  }
  return begin;
}

bool is_answer(std::string_view line, std::string_view head) {
  return line.size() > head.size() && line.starts_with(head) && line[head.size()] == ',' &&
         nlohmann::json::accept(line);
}

class AnswerFile final : public Answers {
 public:
  using Head = std::function<std::string(Index slot)>;

  AnswerFile(const fs::path& path, Index n_slots, Head head)
      : n_slots_(n_slots), head_(std::move(head)), out_(regular(path)) {
    if (::flock(out_.fd(), LOCK_EX | LOCK_NB) != 0) {
      throw_error(ErrorCode::kUsage, "{}: another process writes it", path.string());
    }
    out_.cut(find_told());
    ahead_file_.emplace(fs::path(path.string() + ".ahead"));
    ahead_file_->cut(find_ahead());
    tell_waiting();
  }

  ~AnswerFile() override {
    if (ahead_file_ && ahead_.empty()) ::unlink(ahead_file_->path().c_str());
  }

  bool has(Index slot) const override { return slot < next_ || ahead_.contains(slot); }
  Index first_missing() const override { return next_; }
  Index n_there() const override { return next_ + static_cast<Index>(ahead_.size()); }

  void put(Index slot, const std::string& line) override {
    KOGIA_CHECK(!has(slot) && slot < n_slots_);
    KOGIA_CHECK(line.starts_with(head_(slot)) && line.find('\n') == line.npos);
    if (slot == next_) {
      out_.append(line + "\n");
      ++next_;
      tell_waiting();
    } else {
      const std::string number = std::to_string(slot) + " ";
      const Index begin = ahead_file_->size() + static_cast<Index>(number.size());
      ahead_file_->append(number + line + "\n");
      ahead_.emplace(slot, Place{begin, static_cast<Index>(line.size()) + 1});
    }
  }

  void finish() override {
    KOGIA_CHECK(next_ == n_slots_);
    out_.sync();
  }

 private:
  struct Place {
    Index begin, n_bytes;
  };

  static const fs::path& regular(const fs::path& path) {
    std::error_code ignored;
    const auto status = fs::status(path, ignored);
    if (fs::exists(status) && !fs::is_regular_file(status)) {
      throw Error(ErrorCode::kUsage, path.string() + ": is no ordinary file",
                  "without --out answers go to standard output");
    }
    return path;
  }

  [[noreturn]] void refuse(Index line, const std::string& what) const {
    throw Error(ErrorCode::kUsage, fmt::format("{}:{}: {}", out_.path().string(), line, what),
                "name another file with --out, or remove this one to begin anew");
  }

  // How much of the file is answers of this run.
  Index find_told() {
    const MappedFile file = MappedFile::open(out_.path());
    const std::string_view text = file.text();
    const std::size_t whole = for_each_line(text, [&](std::string_view line, std::size_t) {
      if (next_ == n_slots_) refuse(next_ + 1, "more answers than the prompts ask for");
      if (!is_answer(line, head_(next_))) {
        refuse(next_ + 1, "not the answer to this prompt with these settings and this model");
      }
      ++next_;
    });
    const std::string_view rest = text.substr(whole);
    if (rest.empty()) return static_cast<Index>(whole);
    // Half a line is cut off only where it is one of ours.
    const std::string head = next_ == n_slots_ ? "" : head_(next_);
    if (head.empty() || !(head.starts_with(rest) || rest.starts_with(head))) {
      refuse(next_ + 1, "not the beginning of an answer to this prompt");
    }
    return static_cast<Index>(whole);
  }

  // Answers that waited when the run before was stopped. What does not fit is left over from
  // something else and not used.
  Index find_ahead() {
    const MappedFile file = MappedFile::open(ahead_file_->path());
    const std::string_view text = file.text();
    const std::size_t whole = for_each_line(text, [&](std::string_view line, std::size_t begin) {
      Index slot = -1;
      const auto [rest, status] = std::from_chars(line.data(), line.data() + line.size(), slot);
      const auto digits = static_cast<std::size_t>(rest - line.data());
      if (status != std::errc() || digits == line.size() || line[digits] != ' ') return;
      line.remove_prefix(digits + 1);
      if (slot < next_ || slot >= n_slots_ || !is_answer(line, head_(slot))) return;
      ahead_.insert_or_assign(
          slot, Place{static_cast<Index>(begin + digits + 1), static_cast<Index>(line.size()) + 1});
    });
    return ahead_.empty() ? 0 : static_cast<Index>(whole);
  }

  void tell_waiting() {
    if (ahead_.empty()) return;
    for (auto at = ahead_.begin(); at != ahead_.end() && at->first == next_;
         at = ahead_.erase(at), ++next_) {
      out_.append(ahead_file_->read(at->second.begin, at->second.n_bytes));
    }
    if (ahead_.empty()) ahead_file_->cut(0);
  }

  Index n_slots_, next_ = 0;
  Head head_;
  LineFile out_;
  std::optional<LineFile> ahead_file_;
  std::map<Index, Place> ahead_;
};

}  // namespace

std::unique_ptr<Answers> answers_to_stdout(Index n_slots) {
  return std::make_unique<StdoutAnswers>(n_slots);
}

std::unique_ptr<Answers> open_answer_file(const fs::path& file, Index n_slots,
                                          std::function<std::string(Index slot)> head) {
  return std::make_unique<AnswerFile>(file, n_slots, std::move(head));
}

}  // namespace kogia::cli
