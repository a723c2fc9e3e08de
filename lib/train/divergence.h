// When training has diverged, decided from numbers that the host has anyway:
//
//   not finite        loss or gradients: the step was not applied
//   exploded          gradient norm above explosion_factor times the median of the last applied steps: not
//   applied either,
//                     because the limit went with the step to the device (TrainStep::launch)
//   loss above start  for loss_above_start_steps in a row above the mean of the first ten
//
// The limit of a step comes from the steps up to the last but one, on a GPU and on the CPU alike, since that
// is what the host knows when it launches a step behind another. So the same configuration skips the same
// steps everywhere and after a resume: the state here is part of a checkpoint.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

#include "lib/train/monitor.h"
#include "lib/train/step.h"

namespace scrna::train {

enum class Divergence { kNone, kNotFinite, kExploded, kLossAboveStart };
/// "the gradient norm exploded" and the like, for messages and dumps.
std::string_view describe(Divergence divergence);
/// A loss or norm in a message: the sign of a NaN says nothing.
std::string number_text(double value);

/// What the watch remembers; kept in checkpoints.
struct WatchState {
  double start_loss_sum = 0;
  int64_t start_steps = 0;                            // summed, at most kStartSteps
  int64_t steps_above = 0;                            // in a row, above the start's mean
  std::deque<std::pair<int64_t, double>> grad_norms;  // of applied steps (report.step), the newest last
  int64_t skipped_steps = 0;                          // of the whole run
  int64_t skipped_in_a_row = 0;
};

class DivergenceWatch {
 public:
  static constexpr int64_t kStartSteps = 10;

  DivergenceWatch(const MonitorSection& monitor, WatchState state)
      : monitor_(monitor), state_(std::move(state)) {}

  /// Of optimizer step `step` (0-based), whose predecessors up to step - 2 must have been observed; infinite
  /// when there is none (few steps yet, or explosion_factor 0).
  [[nodiscard]] double grad_norm_limit(int64_t step) const;
  /// The next finished step. A step that was not applied counts as skipped.
  Divergence observe(const StepReport& report);
  [[nodiscard]] const WatchState& state() const { return state_; }
  /// Goes on from a checkpoint's state; the number of skipped steps stays that of the whole run.
  void go_back_to(WatchState state);

 private:
  MonitorSection monitor_;
  WatchState state_;
};

}  // namespace scrna::train
