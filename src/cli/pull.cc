// kogia pull: fetches a model from the Hugging Face hub.

#include "hub/pull.h"

#include <csignal>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_flags.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

struct PullFlags {
  std::string model;
  std::optional<std::string> revision;
  Index connections = 8, retries = 5;
  bool verify = false, json = false, quiet = false;
  EngineFlags unused;
  std::uint64_t unused_seed = 0;
};

CommandLine describe(PullFlags& f) {
  OptionGroup unused = accepted_without_effect(f.unused, f.unused_seed);
  std::erase_if(unused.rows, [](const OptionRow& row) {
    return row.flags.starts_with("--quiet") || row.flags == "--verify";
  });
  return {
      .name = "pull",
      .summary =
          "Fetches a model from the Hugging Face hub (or from HF_ENDPOINT) into the cache that "
          "its Python tools use too, and prints where it lies. Other commands then take REPO as "
          "their MODEL. Only what a model needs is fetched: its texts and one form of its weights, "
          "safetensors where there are any. What was begun is continued, and every file is "
          "checked against its hash.",
      .positionals = {{"REPO",
                       "org/name; org/name:FILE chooses one file, or a GGUF by its quantisation: "
                       "org/name:Q4_K_M",
                       &f.model}},
      .groups = {{"Fetching",
                  {{.flags = "--revision",
                    .value = "REV",
                    .help = "branch, tag or commit (main); REPO@REV names it to other commands",
                    .target = &f.revision},
                   {.flags = "--connections",
                    .value = "N",
                    .help = "transfers at a time (8)",
                    .target = &f.connections,
                    .low = 1,
                    .high = 64},
                   {.flags = "--retries",
                    .value = "N",
                    .help = "attempts after a failure in which nothing arrives (5)",
                    .target = &f.retries,
                    .low = 0,
                    .high = 1000},
                   {.flags = "--verify",
                    .value = {},
                    .help = "read what is there already too, and fetch anew what is damaged",
                    .target = &f.verify}}},
                 {"Output",
                  {{.flags = "--json",
                    .value = {},
                    .help = "one object: repository, revision, commit, path, files, fetched_bytes",
                    .target = &f.json},
                   {.flags = "--quiet,-q",
                    .value = {},
                    .help = "no progress on standard error",
                    .target = &f.quiet}}},
                 unused},
      .examples = {"kogia pull deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
                   "kogia pull bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M"}};
}

hub::PullOptions options_of(const PullFlags& f) {
  hub::PullOptions options;
  const auto name = hub::parse_model_name(f.model);
  if (!name) {
    throw Error(ErrorCode::kUsage,
                fmt::format("REPO is '{}', expected org/name or org/name:FILE", f.model),
                "for example: kogia pull deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B");
  }
  options.name = *name;
  if (f.revision) {
    if (!hub::is_revision(*f.revision)) {
      throw_error(ErrorCode::kUsage, "--revision is '{}', expected a branch, a tag or a commit",
                  *f.revision);
    }
    options.name.revision = *f.revision;
  }
  if (hub_is_offline()) {
    throw Error(ErrorCode::kUsage, "HF_HUB_OFFLINE is set, so nothing may be fetched",
                "unset it to pull");
  }
  options.cache = hub_cache_folder();
  if (options.cache.empty()) {
    throw Error(ErrorCode::kUsage, "nothing says where the hub's cache is", "set HF_HOME");
  }
  options.server = hub_server();
  options.server.retries = static_cast<int>(f.retries);
  options.connections = static_cast<int>(f.connections);
  options.verify = f.verify;
  options.progress = f.quiet ? Progress::Mode::kSilent : Progress::Mode::kAuto;
  return options;
}

void print_json(const hub::PullOptions& options, const hub::PullResult& result) {
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  for (const hub::RemoteFile& file : result.files) {
    files.push_back({{"path", file.path}, {"bytes", file.size}, {"hash", file.blob}});
  }
  write_json({{"repository", options.name.repository},
              {"revision", options.name.revision},
              {"commit", result.commit},
              {"path", result.model.string()},
              {"files", std::move(files)},
              {"fetched_bytes", result.fetched_bytes}});
}

}  // namespace

int pull_command(Arguments arguments) {
  PullFlags f;
  if (!parse(describe(f), arguments)) return 0;
  const hub::PullOptions options = options_of(f);
  std::signal(SIGPIPE, SIG_IGN);  // a connection that breaks is an error to report, not to die of
  const InterruptGuard guard;
  try {
    const hub::PullResult result = hub::pull(options);
    if (f.json) {
      print_json(options, result);
    } else {
      write_out(result.model.string() + "\n");
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInterrupted) throw;
    throw Error(ErrorCode::kInterrupted, "interrupted",
                fmt::format("what has arrived is kept: `kogia pull {}` continues", f.model));
  }
  return 0;
}

}  // namespace kogia::cli
