#include "train/metrics_log.h"

#include <string>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

/// The whole lines of steps up to `step`.
std::string kept_lines(std::string_view text, Index step) {
  std::string kept;
  while (true) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return kept;  // cut off, or none is left
    const auto line = nlohmann::json::parse(text.substr(0, end), nullptr, false);
    if (!line.is_object() || !line.contains("step") || line["step"].get<Index>() > step) {
      return kept;
    }
    kept += text.substr(0, end + 1);
    text.remove_prefix(end + 1);
  }
}

}  // namespace

MetricsLog::MetricsLog(fs::path file, Index step) : file_(std::move(file)) {
  if (fs::exists(file_)) {
    const std::string kept = kept_lines(MappedFile::open(file_).text(), step);
    if (kept.size() != fs::file_size(file_)) write_file_atomically(file_, kept);
  }
  out_.open(file_, std::ios::app | std::ios::binary);
  if (!out_) throw_error(ErrorCode::kIo, "{}: cannot be written", file_.string());
}

void MetricsLog::add(const nlohmann::ordered_json& line) {
  out_ << line.dump() << '\n' << std::flush;
  if (!out_) throw_error(ErrorCode::kIo, "{}: cannot be written", file_.string());
}

}  // namespace kogia
