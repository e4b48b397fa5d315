// kogia devices: what this machine can compute with.

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/machine.h"
#include "cli/output.h"
#include "device/cpu_device.h"

namespace kogia::cli {
namespace {

using Json = nlohmann::ordered_json;

struct DevicesFlags {
  bool json = false;
  std::uint64_t unused_seed = 0;
  EngineFlags engine;
};

CommandLine describe(DevicesFlags& f) {
  auto [choice, unused] = partly_used(f.engine, f.unused_seed, "Choice", {"--threads", "--isa"});
  return {.name = "devices",
          .summary =
              "What this machine can compute with, and what is chosen by default or by these "
              "flags.",
          .positionals = {},
          .groups = {{"Output",
                      {{.flags = "--json", .value = {}, .help = "one object", .target = &f.json}}},
                     choice,
                     unused},
          .examples = {"kogia devices"}};
}

std::string isa_words() {
  std::string words;
  for (const Isa isa : available_isas())
    words += (words.empty() ? "" : ", ") + std::string(name(isa));
  return words;
}

std::string text_of(const Machine& machine, const Device& device) {
  std::string out;
  const auto row = [&](std::string_view label, const std::string& text) {
    out += fmt::format("{:<16}{}\n", label, text);
  };
  row("device", fmt::format("{}, {}", device.name(), counted(device.n_threads(), "thread")));
  row("processor", machine.processor.empty() ? "unknown" : machine.processor);
  row("instructions", isa_words());
  row("cores", std::to_string(machine.usable_cores));
  row("memory", fmt::format("{}, {} available", format_bytes(machine.memory_bytes),
                            format_bytes(machine.available_bytes)));
  for (const CacheSize& cache : machine.caches) {
    row("cache " + cache.name,
        format_bytes(cache.bytes) +
            (cache.assumed ? " (built-in default: the machine hides it)" : ""));
  }
  return out;
}

Json json_of(const Machine& machine, const Device& device) {
  Json isas = Json::array();
  for (const Isa isa : available_isas()) isas.push_back(name(isa));
  Json caches = Json::array();
  for (const CacheSize& c : machine.caches) {
    caches.push_back({{"name", c.name}, {"bytes", c.bytes}, {"assumed", c.assumed}});
  }
  return {{"device", device.name()},
          {"threads", device.n_threads()},
          {"processor", machine.processor},
          {"instruction_sets", isas},
          {"cores", machine.usable_cores},
          {"memory_bytes", machine.memory_bytes},
          {"available_bytes", machine.available_bytes},
          {"caches", caches}};
}

}  // namespace

int devices_command(Arguments arguments) {
  DevicesFlags f;
  if (!parse(describe(f), arguments)) return 0;
  const auto device = make_cpu_device(f.engine.options().cpu);
  const Machine machine = read_machine();
  if (f.json) {
    write_json(json_of(machine, *device));
  } else {
    write_out(text_of(machine, *device));
  }
  return 0;
}

}  // namespace kogia::cli
