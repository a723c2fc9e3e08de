// `bench train`: optimizer steps of a configured encoder on synthetic cells (train_problem.h), by the same
// Encoder, TrainStep and AdamW as training, one step in flight as the trainer keeps it. Three parts: matrix
// products, whose speed is the ceiling that the step's FLOP/s are held against (as long and as early as the
// trainer measures it, so that the MFUs compare), timed steps, and profiled steps (which kernels). A GPU's
// steps are timed by its own clock, from the end of one to the end of the next.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/bench/device.h"
#include "lib/bench/kernel_classes.h"
#include "lib/bench/train_problem.h"
#include "lib/config/bound.h"
#include "lib/train/device_memory.h"
#include "lib/train/train_config.h"

namespace scrna::bench {

inline constexpr int64_t kProfiledSteps = 3;

struct TrainBenchOptions {
  Lengths lengths = Lengths::kCellxgene;
  int64_t cells = 0;
  int64_t context = 8192;
  int64_t vocabulary = 43804;
  int64_t steps = 10;
  Device device = Device::kCuda;

  template <class V>
  void visit(V&& v) {
    v("lengths", lengths,
      "of the cells. cellxgene: log2-normal(10.75, 1.25), 200 to context tokens; full: all of context");
    v("cells", cells, "cells of a step; 0: 32, or of full length as many as make 65,536 tokens",
      config::between(0, 65536));
    v("context", context, "tokens of the longest cell (the setting tokenizer.max_tokens)",
      config::between(8, 1048576));
    v("vocabulary", vocabulary, "genes and special tokens", config::between(5, 10000000));
    v("steps", steps, "timed optimizer steps, after three to warm up", config::between(1, 100000));
    v("device", device, "cuda: the first GPU; cpu");
  }
};

struct TrainBenchResult {
  train::StepLoad load;
  int64_t micro_batches = 0;
  int64_t longest_cell_tokens = 0;
  int64_t parameters = 0;
  std::string attention;                  // which implementation runs, and why
  std::string compute_type;               // "bf16" or "fp32"
  double flop = 0;                        // of a step: train/flops.h
  std::vector<double> step_milliseconds;  // of the timed steps, in their order
  double median_milliseconds = 0;
  double first_loss = 0, last_loss = 0;  // nats per masked token: the same cells every step, so it falls
  double ceiling_flop_per_second = 0;    // of matrix products in the compute type
  int64_t predicted_memory_bytes =
      0;  // of a GPU: train/memory_plan.h; what memory->peak_bytes is held against
  std::optional<train::DeviceMemory> memory;  // of a GPU, after the timed steps
  int64_t peak_resident_bytes = 0;            // of the process
  std::optional<Breakdown> breakdown;         // per step
  std::string breakdown_problem;              // why there is none

  [[nodiscard]] double flop_per_second() const { return flop / median_milliseconds * 1e3; }
  /// Model FLOP utilisation: against the products measured in this run.
  [[nodiscard]] double mfu() const { return flop_per_second() / ceiling_flop_per_second; }
  [[nodiscard]] double per_second(int64_t count) const {
    return static_cast<double>(count) / median_milliseconds * 1e3;
  }
};

/// Blocks. `tell` is given a phrase as each part begins. `config` supplies model, optimizer, masking,
/// precision and tokens_per_micro_batch; its tokenizer.max_tokens must be options.context. Throws DeviceError
/// without the GPU asked for, and when its memory is full (naming the settings to change); NumericError when
/// a step is not finite.
TrainBenchResult bench_training(const train::TrainConfig& config, const TrainBenchOptions& options,
                                const std::function<void(std::string_view)>& tell);

}  // namespace scrna::bench
