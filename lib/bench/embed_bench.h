// What `scrna-train bench embed` measures: eval::embed_cells() over synthetic cells, as `scrna-train embed`
// calls it for each window of a file: packing on the host, copies to the device, forward passes, pooling, and
// the copy back. Without reading files (`bench data` measures that; it runs beside this). Random weights and
// genes: the time does not depend on them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/bench/device.h"
#include "lib/bench/train_problem.h"
#include "lib/config/bound.h"
#include "lib/eval/embedding.h"
#include "lib/train/device_memory.h"
#include "lib/train/train_config.h"

namespace scrna::bench {

struct EmbedBenchOptions {
  Lengths lengths = Lengths::kCellxgene;
  int64_t cells = 2048;
  int64_t context = 8192;
  int64_t vocabulary = 43804;
  int64_t tokens_per_pack = 65536;
  eval::Pooling pooling = eval::Pooling::kMean;
  int64_t layer = -1;
  int64_t repeats = 5;
  Device device = Device::kCuda;

  template <class V>
  void visit(V&& v) {
    v("lengths", lengths,
      "of the cells. cellxgene: log2-normal(10.75, 1.25), 200 to 8,192 and at most context tokens; full: all "
      "of context");
    v("cells", cells, "cells embedded each time", config::between(1, 1000000));
    v("context", context, "tokens of the longest cell (the setting tokenizer.max_tokens)",
      config::between(8, 1048576));
    v("vocabulary", vocabulary, "genes and special tokens", config::between(5, 10000000));
    v("tokens_per_pack", tokens_per_pack, "tokens of one forward pass, at most",
      config::between(1, 16777216));
    v("pooling", pooling, "mean, max or first");
    v("layer", layer, "whose tokens: -1 the last", config::between(-257, 256));
    v("repeats", repeats, "times that all cells are embedded, after once to warm up",
      config::between(1, 1000));
    v("device", device, "cuda: the first GPU; cpu");
  }
};

struct EmbedBenchResult {
  train::StepLoad load;  // of all cells
  int64_t longest_cell_tokens = 0;
  int64_t packs = 0;
  int64_t parameters = 0;
  std::string attention;        // which implementation runs, and why
  std::string compute_type;     // "bf16" or "fp32"
  double flop = 0;              // of all cells, forward, without the head
  std::vector<double> seconds;  // of each repeat
  double median_seconds = 0;
  double ceiling_flop_per_second = 0;         // of matrix products in the compute type
  std::optional<train::DeviceMemory> memory;  // of a GPU, after the repeats
  int64_t peak_resident_bytes = 0;            // of the process

  [[nodiscard]] double cells_per_second() const { return static_cast<double>(load.cells) / median_seconds; }
  [[nodiscard]] double tokens_per_second() const { return static_cast<double>(load.tokens) / median_seconds; }
  [[nodiscard]] double flop_per_second() const { return flop / median_seconds; }
};

/// Blocks. `tell` is given a phrase as each part begins. `config` supplies model and precision; its
/// tokenizer.max_tokens must be options.context. Throws DeviceError without the GPU asked for, ConfigError
/// for a layer the model does not have.
EmbedBenchResult bench_embedding(const train::TrainConfig& config, const EmbedBenchOptions& options,
                                 const std::function<void(std::string_view)>& tell);

}  // namespace scrna::bench
