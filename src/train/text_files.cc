#include "train/text_files.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <vector>

#include <simdjson.h>
#include <zlib.h>
#include <zstd.h>

#include "base/error.h"
#include "base/interrupt.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kBuffer = 1 << 18;

/// The bytes of the file as they are.
class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(const fs::path& path)
      : name_(path.string()), file_(fopen(path.c_str(), "rb")) {
    if (file_ == nullptr) throw_error(ErrorCode::kNotFound, "{}: {}", name_, strerror(errno));
  }
  ~PlainStream() override { fclose(file_); }
  PlainStream(const PlainStream&) = delete;
  PlainStream& operator=(const PlainStream&) = delete;

  std::size_t read(char* to, std::size_t n) override {
    const std::size_t got = fread(to, 1, n, file_);
    if (got < n && ferror(file_) != 0) {
      throw_error(ErrorCode::kIo, "{}: {}", name_, strerror(errno));
    }
    n_read_ += static_cast<Index>(got);
    return got;
  }
  Index n_file_bytes() const override { return n_read_; }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  FILE* file_;
  Index n_read_ = 0;
};

/// What both packers share: packed bytes come through a buffer.
class PackedStream : public ByteStream {
 public:
  explicit PackedStream(const fs::path& path) : file_(path), buffer_(kBuffer) {}
  Index n_file_bytes() const override { return file_.n_file_bytes(); }

 protected:
  /// Fills the buffer again; false at the end of the file.
  bool refill() {
    n_ = file_.read(buffer_.data(), buffer_.size());
    return n_ > 0;
  }
  [[noreturn]] void fail(std::string_view what) const {
    throw_error(ErrorCode::kInvalid, "{}: cannot be unpacked: {}", file_.name(), what);
  }
  char* data() { return buffer_.data(); }
  std::size_t size() const { return n_; }

 private:
  PlainStream file_;
  std::vector<char> buffer_;
  std::size_t n_ = 0;
};

class GzipStream final : public PackedStream {
 public:
  explicit GzipStream(const fs::path& path) : PackedStream(path) {
    constexpr int kGzip = 16 + MAX_WBITS;
    if (inflateInit2(&z_, kGzip) != Z_OK) fail("out of memory");
  }
  ~GzipStream() override { inflateEnd(&z_); }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  std::size_t read(char* to, std::size_t n) override {
    z_.next_out = reinterpret_cast<Bytef*>(to);
    z_.avail_out = static_cast<uInt>(n);
    while (z_.avail_out > 0) {
      if (z_.avail_in == 0) {
        if (!refill()) {
          if (!between_) fail("it ends too early");
          break;
        }
        z_.next_in = reinterpret_cast<Bytef*>(data());
        z_.avail_in = static_cast<uInt>(size());
      }
      if (between_) {  // one packed file after another is one text
        inflateReset(&z_);
        between_ = false;
      }
      const int status = inflate(&z_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        between_ = true;
      } else if (status != Z_OK) {
        fail(z_.msg != nullptr ? z_.msg : "damaged");
      }
    }
    return n - z_.avail_out;
  }

 private:
  z_stream z_{};
  bool between_ = false;
};

class ZstdStream final : public PackedStream {
 public:
  explicit ZstdStream(const fs::path& path) : PackedStream(path), z_(ZSTD_createDStream()) {
    if (z_ == nullptr) fail("out of memory");
  }
  ~ZstdStream() override { ZSTD_freeDStream(z_); }
  ZstdStream(const ZstdStream&) = delete;
  ZstdStream& operator=(const ZstdStream&) = delete;

  std::size_t read(char* to, std::size_t n) override {
    ZSTD_outBuffer out{to, n, 0};
    while (out.pos < out.size) {
      // What is unpacked already may be waiting for room.
      if (in_.pos == in_.size && !full_) {
        if (!refill()) {
          if (wanted_ != 0) fail("it ends too early");
          break;
        }
        in_ = {data(), size(), 0};
      }
      wanted_ = ZSTD_decompressStream(z_, &out, &in_);
      if (ZSTD_isError(wanted_) != 0) fail(ZSTD_getErrorName(wanted_));
      full_ = out.pos == out.size && wanted_ != 0;
    }
    return out.pos;
  }

 private:
  ZSTD_DStream* z_;
  ZSTD_inBuffer in_{};
  std::size_t wanted_ = 0;  // 0 between frames
  bool full_ = false;
};

/// The name without .gz or .zst.
fs::path unpacked_name(const fs::path& path) {
  const std::string ending = path.extension().string();
  return ending == ".gz" || ending == ".zst" ? path.stem() : path.filename();
}

/// Documents out of lines of JSON.
class JsonLines {
 public:
  JsonLines(const fs::path& path, const std::string& field) : path_(path), pointer_("/" + field) {
    for (char& c : pointer_) c = c == '.' ? '/' : c;
  }

  /// Empty: the line has none. Valid until the next line.
  std::string_view text_of(std::string& line) {
    ++n_lines_;
    const std::size_t length = line.size();
    if (line.find_first_not_of(" \t\r") == std::string::npos) return {};
    line.resize(length + simdjson::SIMDJSON_PADDING);  // room that the parser may look at
    simdjson::dom::element object;
    if (const auto error = parser_.parse(line.data(), length, false).get(object)) {
      fail(fmt::format("no JSON: {}", simdjson::error_message(error)));
    }
    std::string_view text;
    if (object.at_pointer(pointer_).get(text)) {
      fail(fmt::format("no string '{}'", pointer_.substr(1)));
    }
    return text;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kInvalid, fmt::format("{}:{}: {}", path_.string(), n_lines_, what),
                "expected one object a line with the text in it, such as {\"text\": \"...\"}");
  }

  const fs::path& path_;
  std::string pointer_;
  simdjson::dom::parser parser_;
  Index n_lines_ = 0;
};

}  // namespace

std::unique_ptr<ByteStream> ByteStream::open(const fs::path& path) {
  if (path.extension() == ".gz") return std::make_unique<GzipStream>(path);
  if (path.extension() == ".zst") return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

void for_each_document(const fs::path& path, const TextFileOptions& options,
                       const std::function<void(std::string_view text)>& document,
                       const std::function<void(Index n)>& on_bytes) {
  const std::string ending = unpacked_name(path).extension().string();
  const bool lines = ending == ".jsonl";
  if (!lines && ending != ".txt") {
    throw Error(ErrorCode::kUsage, fmt::format("{}: a file of another kind", path.string()),
                "expected .txt or .jsonl, or one of them with .gz or .zst behind it");
  }
  const auto stream = ByteStream::open(path);
  JsonLines json(path, options.field);
  std::string held;  // a document, or the beginning of a line
  std::vector<char> buffer(kBuffer);
  Index told = 0;
  const auto hand_on = [&] {
    const std::string_view text = lines ? json.text_of(held) : std::string_view(held);
    if (!text.empty()) document(text);
    held.clear();
  };
  while (const std::size_t n = stream->read(buffer.data(), buffer.size())) {
    throw_if_interrupted();
    std::string_view rest(buffer.data(), n);
    for (std::size_t end = 0; lines && (end = rest.find('\n')) != std::string_view::npos;) {
      held += rest.substr(0, end);
      hand_on();
      rest.remove_prefix(end + 1);
    }
    held += rest;
    if (held.size() > options.max_document_bytes) {
      throw_error(ErrorCode::kInvalid, "{}: a document of more than {} bytes", path.string(),
                  options.max_document_bytes);
    }
    if (on_bytes) on_bytes(stream->n_file_bytes() - std::exchange(told, stream->n_file_bytes()));
  }
  if (!held.empty()) hand_on();
}

}  // namespace kogia
