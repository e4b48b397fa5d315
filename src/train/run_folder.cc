#include "train/run_folder.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/mapped_file.h"
#include "base/temporary.h"
#include "formats/safetensors.h"
#include "formats/safetensors_writer.h"
#include "model/config_write.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kChecksums = "kogia/checksums.json";

std::string name_of(Index step) { return fmt::format("step-{:08}", step); }

/// Files of a folder, by their path in it.
std::vector<std::string> files_of(const fs::path& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path().lexically_relative(folder).string());
  }
  std::ranges::sort(files);
  return files;
}

std::string hash_of(const fs::path& file) {
  return hash_bytes_128(MappedFile::open(file).bytes()).hex();
}

void write_model(const fs::path& folder, const RunState& state, Parameters& parameters) {
  SafetensorsWriter writer(folder);
  // Spelled out: who reads it must not need defaults of its own (q_lora_rank null, ...).
  writer.add_text("config.json", official_config_json(parameters.model().config(),
                                                      {.torch_dtype = DType::f32,
                                                       .bos = state.tokenizer.bos,
                                                       .eos = state.tokenizer.eos,
                                                       .pad = {},
                                                       .source = parameters.config_json()}));
  for (const ExtraFile& file : state.tokenizer.files) writer.add_text(file.name, file.text);
  const std::vector<Parameters::Exported> tensors = parameters.exported();
  for (const auto& t : tensors) writer.declare(t.name, DType::f32, t.parameter->shape);
  writer.begin();
  for (const auto& t : tensors) {
    writer.append(
        std::as_bytes(std::span(t.parameter->master, static_cast<std::size_t>(t.parameter->n))));
  }
  writer.commit();
}

void write_optimizer(const fs::path& folder, std::vector<Parameter>& parameters,
                     Optimizer& optimizer) {
  SafetensorsWriter writer(folder);
  const auto for_each = [&](const auto& use) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Optimizer::Moments& moments = optimizer.moments()[i];
      if (moments.m.empty()) continue;
      use(parameters[i].name + ".m", parameters[i], moments.m);
      use(parameters[i].name + ".v", parameters[i], moments.v);
    }
  };
  for_each([&](const std::string& name, const Parameter& p, const auto&) {
    writer.declare(name, optimizer.dtype(), p.shape);
  });
  writer.begin();
  for_each([&](const std::string&, const Parameter&, const auto& bytes) { writer.append(bytes); });
  writer.commit();
}

/// Nothing if every file is as it was written, else what is wrong.
std::string what_is_wrong(const fs::path& checkpoint) {
  try {
    const MappedFile file = MappedFile::open(checkpoint / kChecksums);
    const auto sums = nlohmann::json::parse(file.text());
    for (const auto& [name, sum] : sums.items()) {
      const fs::path at = checkpoint / name;
      if (!fs::exists(at)) return fmt::format("{} is missing", name);
      if (hash_of(at) != sum.get<std::string>()) return fmt::format("{} is damaged", name);
    }
    for (const char* needed : {"config.json", "kogia/state.json", "kogia/run.toml"}) {
      if (!sums.contains(needed))
        return fmt::format("{} has no checksum of {}", kChecksums, needed);
    }
  } catch (const Error& e) {
    return e.what();
  } catch (const nlohmann::json::exception&) {
    return fmt::format("{} is damaged", kChecksums);
  } catch (const fs::filesystem_error& e) {
    return e.what();
  }
  return {};
}

/// DIR/latest, replaced in one step.
void point_at(const fs::path& folder, const std::string& name) {
  const fs::path link = folder / "latest", fresh = folder / fmt::format(".latest.{}.tmp", getpid());
  fs::remove(fresh);
  fs::create_symlink(name, fresh);
  fs::rename(fresh, link);
  sync_folder_of(link);
}

}  // namespace

std::string_view CheckpointTokenizer::text(std::string_view name) const {
  const auto file = std::ranges::find(files, name, &ExtraFile::name);
  return file == files.end() ? std::string_view() : file->text;
}

RunFolder::RunFolder(fs::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) {
    throw_error(ErrorCode::kIo, "{}: cannot make this folder: {}", folder_.string(),
                error.message());
  }
}

std::vector<fs::path> RunFolder::checkpoints() const {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && entry.is_directory()) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

void RunFolder::save(const RunState& state, Parameters& parameters, Optimizer& optimizer,
                     Index keep) {
  const fs::path place = folder_ / name_of(state.step);
  const Temporary staging = make_temporary_folder(place);
  const fs::path made = staging.path / "checkpoint";
  try {
    write_model(made, state, parameters);
    fs::create_directory(made / "kogia");
    write_optimizer(made / "kogia" / "optimizer", parameters.all(), optimizer);
    write_file_atomically(made / "kogia" / "run.toml", state.run_toml);
    nlohmann::ordered_json about;
    about["step"] = state.step;
    write_file_atomically(made / "kogia" / "state.json", about.dump() + "\n");
    nlohmann::ordered_json sums;
    for (const std::string& file : files_of(made)) sums[file] = hash_of(made / file);
    write_file_atomically(made / kChecksums, sums.dump(1) + "\n");
    fs::remove_all(place);  // a damaged one of the same step
    fs::rename(made, place);
    sync_folder_of(place);
    point_at(folder_, name_of(state.step));
  } catch (const fs::filesystem_error& e) {
    std::error_code ignored;
    fs::remove_all(staging.path, ignored);
    throw_error(ErrorCode::kIo, "{}: cannot write the checkpoint: {}", place.string(),
                e.code().message());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(staging.path, ignored);
    throw;
  }
  fs::remove_all(staging.path);
  if (keep <= 0) return;
  const std::vector<fs::path> all = checkpoints();
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < all.size(); ++i) {
    if (all[i] != place) fs::remove_all(all[i]);
  }
}

std::optional<RunFolder::Found> RunFolder::newest() const {
  Found found;
  std::vector<fs::path> all = checkpoints();
  for (auto at = all.rbegin(); at != all.rend(); ++at) {
    const std::string wrong = what_is_wrong(*at);
    if (!wrong.empty()) {
      found.skipped.push_back(fmt::format("{}: {}", at->string(), wrong));
      continue;
    }
    found.path = *at;
    found.run_toml = std::string(MappedFile::open(*at / "kogia" / "run.toml").text());
    const auto state = nlohmann::json::parse(MappedFile::open(*at / "kogia" / "state.json").text());
    found.step = state.at("step").get<Index>();
    return found;
  }
  if (found.skipped.empty()) return {};
  throw Error(ErrorCode::kInvalid,
              fmt::format("{}: no checkpoint is whole: {}", folder_.string(),
                          fmt::join(found.skipped, "; ")),
              "--fresh begins anew");
}

void RunFolder::load_optimizer(const fs::path& checkpoint, const std::vector<Parameter>& parameters,
                               Optimizer& optimizer) {
  const fs::path path = checkpoint / "kogia" / "optimizer" / "model.safetensors";
  const MappedFile file = MappedFile::open(path);
  const std::vector<TensorEntry> tensors = parse_safetensors(file.bytes(), path.string());
  const auto read = [&](const std::string& name, std::vector<std::byte>& to) {
    const auto at = std::ranges::find(tensors, name, &TensorEntry::name);
    if (at == tensors.end() || at->view.dtype != optimizer.dtype() ||
        static_cast<std::size_t>(at->view.n_bytes) != to.size()) {
      throw_error(ErrorCode::kInvalid, "{}: no {} {} of {} bytes", path.string(),
                  kogia::name(optimizer.dtype()), name, to.size());
    }
    std::memcpy(to.data(), at->view.data, to.size());
  };
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Optimizer::Moments& moments = optimizer.moments()[i];
    if (moments.m.empty()) continue;
    read(parameters[i].name + ".m", moments.m);
    read(parameters[i].name + ".v", moments.v);
  }
}

void RunFolder::clear() {
  fs::remove(folder_ / "latest");
  for (const fs::path& checkpoint : checkpoints()) fs::remove_all(checkpoint);
}

}  // namespace kogia
