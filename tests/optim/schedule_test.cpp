#include "lib/optim/schedule.h"

#include <gtest/gtest.h>

namespace scrna::optim {
namespace {

TEST(Schedule, WarmsUpLinearlyThenStaysConstant) {
  const OptimConfig config{.learning_rate = 1e-3, .schedule = Schedule::kConstant, .warmup_steps = 10};
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 0, 100), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 4, 100), 5e-4);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 9, 100), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 10, 100), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 99, 100), 1e-3);
}

TEST(Schedule, WithoutWarmUpTheFirstStepHasTheFullRate) {
  EXPECT_DOUBLE_EQ(learning_rate_at({.learning_rate = 2e-3, .warmup_steps = 0}, 0, 5), 2e-3);
}

TEST(Schedule, CosineFallsToItsFloorAndStaysThere) {
  const OptimConfig config{
      .learning_rate = 1.0, .schedule = Schedule::kCosine, .warmup_steps = 20, .final_learning_rate_fraction = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 20, 120), 1.0);
  EXPECT_NEAR(learning_rate_at(config, 70, 120), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate_at(config, 120, 120), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate_at(config, 1000, 120), 0.1, 1e-12);
}

}  // namespace
}  // namespace scrna::optim
