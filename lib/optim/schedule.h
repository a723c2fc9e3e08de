// Learning rate as a pure function of the step: nothing to save, nothing to restore.
#pragma once

#include <cstdint>

#include "lib/optim/optim_config.h"

namespace scrna::optim {

/// Rate of optimizer step `step` (0-based) of a run of `total_steps`: step w-1 of w warm-up steps is the first at the
/// full rate.
double learning_rate_at(const OptimConfig& config, int64_t step, int64_t total_steps);

}  // namespace scrna::optim
