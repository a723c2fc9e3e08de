// What the reports of all benchmarks share: the machine in words and JSON, and the target of --json.
#pragma once

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "lib/bench/machine.h"

namespace scrna::app {

/// The keys `device` and `versions`.
nlohmann::ordered_json machine_json(const bench::Machine& machine, bool on_gpu);

/// "NVIDIA H200, CUDA 13.0 (driver 580.65.06), LibTorch 2.11.0", or processor, threads and vectors.
std::string machine_words(const bench::Machine& machine, bool on_gpu);

/// Before minutes of work, what would go wrong at their end: throws ConfigError for a folder, DataError where
/// there is none. `example` is a file name for the message.
void check_json_target(const std::filesystem::path& target, const std::string& example);

/// The word that enum_names() has for a value.
template <class E>
std::string name_of(E value) {
  for (const auto& [name, item] : enum_names(value)) {
    if (item == value) return std::string(name);
  }
  return {};
}

}  // namespace scrna::app
