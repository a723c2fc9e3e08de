// What to do when a GPU's memory is full: LibTorch's message names bytes, this one names settings.
#pragma once

#include <cstdint>
#include <functional>

#include "lib/train/train_config.h"

namespace scrna::train {

/// Runs `work`. Throws DeviceError in place of LibTorch's out-of-memory error of a GPU, with the settings
/// that need less memory and their present values, in the order in which to try them; passes on everything
/// else. num_ranks: processes that train together.
void with_memory_advice(const TrainConfig& config, const std::function<void()>& work, int64_t num_ranks = 1);

/// The settings to change, as one clause: "lower data.tokens_per_micro_batch (65536), ...".
std::string memory_advice(const TrainConfig& config, int64_t num_ranks = 1);

}  // namespace scrna::train
