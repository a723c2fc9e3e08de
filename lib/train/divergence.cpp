#include "lib/train/divergence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <fmt/format.h>

namespace scrna::train {

std::string_view describe(Divergence divergence) {
  switch (divergence) {
    case Divergence::kNotFinite:
      return "loss or gradients are not finite";
    case Divergence::kExploded:
      return "the gradient norm exploded";
    case Divergence::kLossAboveStart:
      return "the loss stays above its start";
    case Divergence::kNone:
      break;
  }
  return "none";
}

std::string number_text(double value) { return std::isnan(value) ? "nan" : fmt::format("{:.4g}", value); }

double DivergenceWatch::grad_norm_limit(int64_t step) const {
  constexpr double kNoLimit = std::numeric_limits<double>::infinity();
  if (monitor_.explosion_factor == 0) return kNoLimit;
  std::vector<double> norms;  // the newest first
  for (auto at = state_.grad_norms.rbegin(); at != state_.grad_norms.rend(); ++at) {
    if (at->first < step && std::ssize(norms) < monitor_.explosion_window_steps) norms.push_back(at->second);
  }
  if (std::ssize(norms) < std::max<int64_t>(2, monitor_.explosion_window_steps / 5)) return kNoLimit;
  const auto middle = norms.begin() + std::ssize(norms) / 2;
  std::ranges::nth_element(norms, middle);
  return *middle > 0 ? monitor_.explosion_factor * *middle : kNoLimit;
}

Divergence DivergenceWatch::observe(const StepReport& report) {
  if (!report.is_applied) {
    ++state_.skipped_steps;
    ++state_.skipped_in_a_row;
    return std::isfinite(report.loss) && std::isfinite(report.grad_norm) ? Divergence::kExploded
                                                                         : Divergence::kNotFinite;
  }
  state_.skipped_in_a_row = 0;
  state_.grad_norms.emplace_back(report.step, report.grad_norm);
  if (std::ssize(state_.grad_norms) > monitor_.explosion_window_steps + 1) state_.grad_norms.pop_front();
  if (state_.start_steps < kStartSteps) {
    state_.start_loss_sum += report.loss;
    ++state_.start_steps;
    return Divergence::kNone;
  }
  const bool is_above = report.loss > state_.start_loss_sum / static_cast<double>(state_.start_steps);
  state_.steps_above = is_above ? state_.steps_above + 1 : 0;
  return monitor_.loss_above_start_steps > 0 && state_.steps_above >= monitor_.loss_above_start_steps
             ? Divergence::kLossAboveStart
             : Divergence::kNone;
}

void DivergenceWatch::go_back_to(WatchState state) {
  const int64_t skipped_steps = state_.skipped_steps;
  state_ = std::move(state);
  state_.skipped_steps = skipped_steps;
}

}  // namespace scrna::train
