// The largest jump of a gradient norm, against medians worked out by hand.
#include "lib/report/spike.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace scrna::report {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

RunData run_of(const std::vector<double>& norms, const std::string& window = {}) {
  RunData run;
  if (!window.empty()) run.config = {{"monitor.explosion_window_steps", window}};
  for (std::size_t i = 0; i < norms.size(); ++i) {
    run.curves["grad_norm"].steps.push_back(static_cast<double>(i + 1));
    run.curves["grad_norm"].values.push_back(norms[i]);
  }
  return run;
}

TEST(Spike, IsTheNormOverTheMedianOfTheStepsBeforeIt) {
  // Window 10: from two steps before the last one on. At step 8 the median of 1 2 3 1 2 3 (steps 1 to 6)
  // is 2.
  const Spike spike = largest_spike(run_of({1, 2, 3, 1, 2, 3, 1, 50, 1, 1}, "10"));
  EXPECT_EQ(spike.step, 8);
  EXPECT_EQ(spike.grad_norm, 50);
  EXPECT_EQ(spike.ratio, 25);
}

TEST(Spike, ForgetsWhatIsOlderThanTheWindow) {
  std::vector<double> norms(20, 100);
  norms.insert(norms.end(), 20, 1.0);
  norms.push_back(30);
  EXPECT_EQ(largest_spike(run_of(norms, "10")).ratio, 30);
  EXPECT_EQ(largest_spike(run_of(norms, "60")).ratio, 1) << "the hundreds still count";
}

TEST(Spike, IsSeenFromTheFirstStepsOnButNotWithoutAMedian) {
  EXPECT_TRUE(std::isnan(largest_spike(RunData()).ratio));
  EXPECT_TRUE(
      std::isnan(largest_spike(run_of({1, 1, 1, 1, 1, 99})).ratio));  // four steps and the lag before it
  const Spike spike = largest_spike(run_of({1, 1, 1, 1, 1, 1, 99}));  // in the warm-up
  EXPECT_EQ(spike.ratio, 99);
  EXPECT_EQ(spike.step, 7);
}

TEST(Spike, WhatIsNotFiniteIsInfiniteAndWhatWasNotAppliedIsNotInTheMedian) {
  std::vector<double> norms(10, 1.0);
  norms.push_back(std::nan(""));
  const Spike spike = largest_spike(run_of(norms, "10"));
  EXPECT_EQ(spike.ratio, kInfinity);
  EXPECT_EQ(spike.step, 11);

  RunData run = run_of({1, 1, 1, 1, 1, 1, 8, 8, 8, 8, 8, 1, 4}, "5");
  EXPECT_EQ(largest_spike(run).ratio, 8);
  run.curves["applied"] = run.curves["grad_norm"];
  run.curves["applied"].values = {1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1};
  EXPECT_EQ(largest_spike(run).step, 7);
  run.curves["grad_norm"].values.back() = 16;  // over 1, since the eights never counted
  EXPECT_EQ(largest_spike(run).ratio, 16);
}

}  // namespace
}  // namespace scrna::report
