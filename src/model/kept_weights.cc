#include "model/kept_weights.h"

#include <algorithm>
#include <functional>
#include <unordered_map>

#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/page_memory.h"
#include "base/progress.h"
#include "formats/packed_file.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;

fs::path absolute_path(const fs::path& path) {
  std::error_code error;
  fs::path result = fs::weakly_canonical(path, error);
  return error ? path : result;
}

std::uint64_t hash_text(const std::string& text) {
  return hash_bytes(std::as_bytes(std::span(text)));
}

/// Before the first tensor.
std::span<const std::byte> head_of(const MappedFile& file, const Checkpoint& checkpoint) {
  const std::byte *begin = file.bytes().data(), *end = begin + file.size(), *first = end;
  const std::less<> before;
  for (const TensorEntry& t : checkpoint.tensors()) {
    const std::byte* data = t.view.data;
    if (!before(data, begin) && before(data, first)) first = data;
  }
  return {begin, first};
}

std::vector<PackedSource> sources_of(const Checkpoint& checkpoint) {
  std::vector<PackedSource> sources;
  for (const MappedFile& file : checkpoint.files()) {
    sources.push_back({.path = absolute_path(file.name()).string(),
                       .n_bytes = file.size(),
                       .mtime_ns = file.mtime_ns(),
                       .head_hash = hash_bytes(head_of(file, checkpoint))});
  }
  return sources;
}

/// A snapshot of the hub's cache (models--ORG--NAME/snapshots/...): a file that is none of the
/// repository's would have the tools that look after that cache report it as corrupted.
bool is_in_hub_cache(const fs::path& path) {
  const fs::path whole = fs::absolute(path).lexically_normal();
  fs::path before;
  for (const fs::path& part : whole) {
    if (part == "snapshots" && before.native().starts_with("models--")) return true;
    before = part;
  }
  return false;
}

/// Where the weights of a checkpoint may be kept, the first choice first.
std::vector<fs::path> places_of(const Checkpoint& checkpoint, const fs::path& cache_folder) {
  if (checkpoint.files().empty()) return {};
  const fs::path model = checkpoint.files().front().name();
  fs::path beside = model;
  beside += ".kpk";
  std::vector<fs::path> places;
  if (!is_in_hub_cache(model)) places.push_back(beside);
  if (!cache_folder.empty()) {
    places.push_back(cache_folder / "packed" /
                     fmt::format("{}-{:016x}.kpk", model.filename().string(),
                                 hash_text(absolute_path(model).string())));
  }
  return places;
}

[[noreturn]] void refuse(const fs::path& file, const std::string& why) {
  throw_error(ErrorCode::kInvalid, "{}: {}", file.string(), why);
}

void check_sources(const fs::path& file, const std::vector<PackedSource>& then,
                   const std::vector<PackedSource>& now) {
  if (then.size() != now.size()) {
    refuse(file, fmt::format("packed from {} files, the model has {}", then.size(), now.size()));
  }
  for (std::size_t i = 0; i < now.size(); ++i) {
    if (then[i].path != now[i].path) {
      refuse(file, fmt::format("packed from {}, not from {}", then[i].path, now[i].path));
    }
    if (then[i] != now[i]) refuse(file, fmt::format("{} has changed since", now[i].path));
  }
}

struct Kept {
  PackPlan plan;
  WeightHashes hashes;
};

/// The jobs' places in a kept file. It may hold more: those of another form of attention.
Kept find_jobs(const fs::path& file, const PackedTable& table, const WeightPacker& packer) {
  std::unordered_map<std::string_view, const PackedEntry*> by_id;
  for (const PackedEntry& entry : table.entries) by_id[entry.id] = &entry;
  Kept kept;
  for (const PackJob& job : packer.jobs()) {
    const auto found = by_id.find(job.id);
    if (found == by_id.end()) refuse(file, fmt::format("packed without {}", job.id));
    const PackedEntry& entry = *found->second;
    const PackedForm form = packer.form_of(job, entry.variant);
    if (form.name != entry.form || form.n_bytes != entry.n_bytes) {
      refuse(file, "packed for other kernels or another --compute");
    }
    kept.plan.forms.push_back(form);
    kept.plan.offsets.push_back(entry.offset);
    kept.hashes.source.push_back(entry.source_hash);
    kept.hashes.packed.push_back(entry.packed_hash);
  }
  return kept;
}

void verify(const fs::path& file, const Kept& kept, const WeightPacker& packer,
            const std::byte* memory) {
  const WeightHashes now = packer.hash(kept.plan, memory);
  for (std::size_t i = 0; i < packer.jobs().size(); ++i) {
    const std::string& id = packer.jobs()[i].id;
    if (now.source[i] != kept.hashes.source[i]) {
      refuse(file, fmt::format("packed from other values of {}", id));
    }
    if (now.packed[i] != kept.hashes.packed[i]) refuse(file, fmt::format("damaged: {}", id));
  }
}

/// Maps a kept file. Throws Error where it does not fit.
void adopt(const fs::path& file, const Checkpoint& checkpoint, const WeightPacker& packer,
           bool with_contents) {
  const auto map = std::make_shared<const MappedFile>(MappedFile::open(file));
  const PackedTable table = parse_packed_file(map->bytes(), file.string());
  check_sources(file, table.sources, sources_of(checkpoint));
  const Kept kept = find_jobs(file, table, packer);
  const std::shared_ptr<const std::byte> memory(map, map->bytes().data());
  if (with_contents) verify(file, kept, packer, memory.get());
  packer.adopt(kept.plan, memory);
}

bool adopt_any(const std::vector<fs::path>& places, const Checkpoint& checkpoint,
               const WeightPacker& packer, bool with_contents) {
  for (const fs::path& place : places) {
    std::error_code ignored;
    if (!fs::exists(place, ignored)) continue;
    try {
      adopt(place, checkpoint, packer, with_contents);
      return true;
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kInterrupted) throw;
      log_warning("{}: not used, the weights are packed anew", e.what());
    }
  }
  return false;
}

/// Beside the model where one may write there.
fs::path place_to_write(const std::vector<fs::path>& places) {
  const fs::path folder = places.front().parent_path();
  const bool writable = ::access(folder.empty() ? "." : folder.c_str(), W_OK) == 0;
  return writable ? places.front() : places.back();
}

void write(const fs::path& place, const Checkpoint& checkpoint, const WeightPacker& packer) {
  PackedTable table{.sources = sources_of(checkpoint), .entries = {}};
  PackPlan plan = packer.plan();
  for (std::size_t i = 0; i < plan.forms.size(); ++i) {
    table.entries.push_back({.id = packer.jobs()[i].id,
                             .form = plan.forms[i].name,
                             .variant = plan.forms[i].variant,
                             .n_bytes = plan.forms[i].n_bytes});
  }
  const Index begin = packed_data_begin(table);
  for (std::size_t i = 0; i < plan.offsets.size(); ++i) {
    table.entries[i].offset = plan.offsets[i] += begin;
  }
  if (place.has_parent_path()) fs::create_directories(place.parent_path());
  AtomicFile file(place);
  require_space(place, begin + plan.n_bytes);
  const WeightHashes hashes = packer.pack_to(plan, file);
  for (std::size_t i = 0; i < plan.forms.size(); ++i) {
    table.entries[i].source_hash = hashes.source[i];
    table.entries[i].packed_hash = hashes.packed[i];
  }
  file.write_at(0, write_packed_head(table));
  throw_if_interrupted();
  file.commit();
  if (packer.talks()) {
    log_info("packed weights are kept in {}, {}", place.string(),
             format_bytes(begin + plan.n_bytes));
  }
}

bool keep(const fs::path& place, const Checkpoint& checkpoint, const WeightPacker& packer) {
  const InterruptGuard ctrl_c;  // so that an unfinished file goes away
  try {
    write(place, checkpoint, packer);
    return true;
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kInterrupted) throw;
    log_warning("the packed weights are not kept: {}", e.what());
  } catch (const fs::filesystem_error& e) {
    log_warning("the packed weights are not kept: {}: {}", e.path1().string(), e.code().message());
  }
  return false;
}

}  // namespace

void load_weights(const WeightPacker& packer, const Checkpoint& checkpoint,
                  const PackingOptions& options) {
  if (options.borrow) return packer.borrow();
  const std::vector<fs::path> places = places_of(checkpoint, options.cache_folder);
  if (adopt_any(places, checkpoint, packer, options.verify)) return;
  if (options.keep && !places.empty()) {
    const fs::path place = place_to_write(places);
    if (keep(place, checkpoint, packer) && adopt_any({place}, checkpoint, packer, false)) return;
  }
  const PackPlan plan = packer.plan();
  const std::shared_ptr<std::byte> memory = allocate_pages(plan.n_bytes);
  packer.pack(plan, memory.get());
  packer.adopt(plan, memory);
}

}  // namespace kogia
