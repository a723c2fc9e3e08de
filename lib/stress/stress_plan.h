// A table of arms, declared in YAML, as ordinary training configurations:
//
//   title: Softmax and sigmoid without clipping
//   base: ../160m.yaml                # relative to this file; optional
//   settings: {optim: {clip_norm: 0}, train: {steps: 2000}}       # over the base, for every arm
//   axes:                             # every combination is an arm
//     model.attention: [sigmoid, softmax]
//     optim.learning_rate: [1e-4, 1e-3]
//     train.seed: [1, 2]
//   variants:                         # optional; every combination once in each variant
//     plain: {}
//     clipped: {optim.clip_norm: 1}
//
// A key is any setting of a run (configs/README.md). All arms are read and checked before the first one starts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "lib/config/node.h"
#include "lib/train/train_config.h"

namespace scrna::stress {

struct Arm {
  std::string name;                                          // "softmax-lr1e-3-seed1": its folder
  std::vector<std::pair<std::string, std::string>> settings;  // of its axes and variant, as they are written
  train::TrainConfig config;                                 // without run.dir
};

struct StressPlan {
  std::string title, description;
  std::vector<Arm> arms;
};

struct StressOverrides {
  std::vector<std::string> settings;  // KEY=VALUE over every arm's
  std::vector<std::string> axes;      // KEY=[a, b] instead of the file's values of that axis
  std::vector<std::string> variants;  // only these; empty: all
  int64_t steps = 0;                  // instead of train.steps; a warm-up beyond a tenth of it is cut to that; 0: the file's
};

/// Arms stop where they diverge: train.on_divergence is stop, and monitor.loss_above_start_steps 100 unless the file says
/// otherwise. Throws ConfigError for a file, key or value that is wrong, naming it.
StressPlan read_plan(const std::filesystem::path& file, const StressOverrides& overrides);

/// What an arm costs before anyone ran it, if every cell fills the context: an upper bound.
struct ArmCost {
  double flop_per_step = 0;
  double gpu_hours = 0;
};
/// tflops_per_second: what a GPU is taken to reach. vocabulary_size: special tokens included.
ArmCost cost_of(const train::TrainConfig& config, int64_t vocabulary_size, double tflops_per_second);
/// TFLOP/s of the model on one H200, measured on 160M parameters and cells of 8,192 tokens (lib/train/README.md). Smaller
/// models reach less.
double measured_tflops_per_second(model::Attention attention);

}  // namespace scrna::stress
