#include "lib/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace scrna::optim {

double learning_rate_at(const OptimConfig& config, int64_t step, int64_t total_steps) {
  if (step < config.warmup_steps) {
    return config.learning_rate * static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);
  }
  if (config.schedule == Schedule::kConstant) return config.learning_rate;
  const auto remaining = static_cast<double>(std::max<int64_t>(1, total_steps - config.warmup_steps));
  const double progress = std::min(1.0, static_cast<double>(step - config.warmup_steps) / remaining);
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  const double floor = config.final_learning_rate_fraction;
  return config.learning_rate * (floor + (1.0 - floor) * cosine);
}

}  // namespace scrna::optim
