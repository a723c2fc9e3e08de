// How close a run came to diverging by its gradients: the largest gradient norm over the running median of
// the norms before it. It is the number that monitor.explosion_factor is compared with in training
// (lib/train/divergence.h), with the same window and the same lag of one step, so "1,000 times" means the
// same in a report and in a run. Rejected: the largest norm by itself, which says more of the model's width
// and its first steps than of an instability.
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
/// configuration does not say) applied steps up to the last but one, and is there from a fifth of them on:
/// the very first steps of a run are not looked at.
Spike largest_spike(const RunData& run);

}  // namespace scrna::report
