// What `bench train` prints and writes.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "lib/bench/machine.h"
#include "lib/bench/train_bench.h"

namespace scrna::app {

struct TrainBenchReport {
  train::TrainConfig config;
  bench::TrainBenchOptions options;
  bench::Machine machine;
  bench::TrainBenchResult result;

  [[nodiscard]] bool on_gpu() const { return options.device == bench::Device::kCuda; }
};

std::string train_bench_text(const TrainBenchReport& report);
/// One line of the table in lib/train/README.md: parameters, cells (lengths, context), tokens, attention,
/// recompute, ms per step, cells/s, tokens/s, TFLOP/s, MFU, peak memory (on the CPU of the process).
std::string train_bench_row(const TrainBenchReport& report);
/// Keys: apps/scrna_train/README.md.
nlohmann::ordered_json train_bench_json(const TrainBenchReport& report);

}  // namespace scrna::app
