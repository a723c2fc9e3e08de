// How close a run came to diverging by its gradients: the largest gradient norm over the running median of
// the norms before it, which is what monitor.explosion_factor is compared with in training
// (lib/train/divergence.h), with the same window and the same lag of one step. But looked at from the first
// steps on, where training still waits for a fifth of its window: at high learning rates the largest jumps
// come during the warm-up. So a run may go on after a jump beyond the factor. Rejected: the largest norm by
// itself, which says more of the model's width and its first step than of an instability.
#pragma once

#include <cstdint>

#include "lib/report/run_data.h"

namespace scrna::report {

struct Spike {
  double ratio = 0;      // infinite: a gradient norm that is not finite; NaN: too few steps to tell
  int64_t step = 0;      // where
  double grad_norm = 0;  // there, before clipping
};

/// The largest of the run. The median is of the last monitor.explosion_window_steps (100 when the
/// configuration does not say) applied steps up to the last but one, and is there as soon as these are five.
Spike largest_spike(const RunData& run);

}  // namespace scrna::report
