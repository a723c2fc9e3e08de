#include "apps/scrna_train/bench_report.h"

#include "apps/scrna_train/commands.h"

namespace scrna::app {

nlohmann::ordered_json machine_json(const bench::Machine& machine, bool on_gpu) {
  nlohmann::ordered_json device{{"kind", on_gpu ? "cuda" : "cpu"}, {"name", machine.name}};
  nlohmann::ordered_json versions{{"scrna_train", program_version()}, {"libtorch", libtorch_version()}};
  if (on_gpu) {
    device["compute_capability"] = machine.compute_capability;
    device["multiprocessors"] = machine.num_multiprocessors;
    device["memory_gib"] = machine.memory_gib;
    versions["driver"] = machine.driver;
    versions["cuda_driver"] = machine.cuda_driver;
    versions["cuda_runtime"] = machine.cuda_runtime;
    versions["cudnn"] = machine.cudnn;
  } else {
    device["threads"] = machine.num_threads;
    device["vectors"] = machine.cpu_vectors;
  }
  return {{"device", device}, {"versions", versions}};
}

std::string machine_words(const bench::Machine& machine, bool on_gpu) {
  if (!on_gpu) {
    return fmt::format("{}, {} threads, {}, LibTorch {}", machine.name, machine.num_threads,
                       machine.cpu_vectors, libtorch_version());
  }
  return fmt::format("{}, CUDA {} (driver {}), LibTorch {}", machine.name, machine.cuda_runtime,
                     machine.driver.empty() ? machine.cuda_driver : machine.driver, libtorch_version());
}

void check_json_target(const std::filesystem::path& target, const std::string& example) {
  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
  if (std::filesystem::is_directory(target))
    throw ConfigError("--json {}: is a folder; name a file, for example {}", target.string(),
                      (target / example).string());
  if (!std::filesystem::is_directory(folder))
    throw DataError("--json {}: there is no folder '{}'; make it with: mkdir -p {}", target.string(),
                    folder.string(), folder.string());
}

}  // namespace scrna::app
