#include "lib/train/divergence.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/train/step_dump.h"
#include "tests/support/temp_dir.h"

namespace scrna::train {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

MonitorSection watchful() {
  MonitorSection monitor;
  monitor.explosion_factor = 100;
  monitor.explosion_window_steps = 10;
  monitor.loss_above_start_steps = 3;
  return monitor;
}

StepReport step(int64_t number, double loss, double grad_norm, bool is_applied = true) {
  return {.step = number, .loss = loss, .grad_norm = grad_norm, .is_applied = is_applied};
}

TEST(DivergenceWatch, TheLimitIsTheFactorTimesTheMedianOfStepsUpToTheLastButOne) {
  DivergenceWatch watch(watchful(), {});
  EXPECT_EQ(watch.grad_norm_limit(0), kInfinity);
  for (int64_t number = 1; number <= 5; ++number) watch.observe(step(number, 3, static_cast<double>(number)));
  EXPECT_EQ(watch.grad_norm_limit(5), 100 * 3.0);  // of 1 2 3 4: the upper middle; step 5 is the one before
  watch.observe(step(6, 3, 6));
  EXPECT_EQ(watch.grad_norm_limit(6), 100 * 3.0);  // of 1 2 3 4 5, whether or not step 6 has been seen
  for (int64_t number = 7; number <= 40; ++number) watch.observe(step(number, 3, 7));
  EXPECT_EQ(watch.grad_norm_limit(40), 100 * 7.0);
  MonitorSection off = watchful();
  off.explosion_factor = 0;
  EXPECT_EQ(DivergenceWatch(off, watch.state()).grad_norm_limit(40), kInfinity);
}

TEST(DivergenceWatch, StepsThatWereNotAppliedAreToldApartAndDoNotEnterTheMedian) {
  DivergenceWatch watch(watchful(), {});
  for (int64_t number = 1; number <= 4; ++number) EXPECT_EQ(watch.observe(step(number, 3, 1)), Divergence::kNone);
  EXPECT_EQ(watch.observe(step(5, 3, 1e6, false)), Divergence::kExploded);
  EXPECT_EQ(watch.observe(step(6, std::nan(""), 1, false)), Divergence::kNotFinite);
  EXPECT_EQ(watch.observe(step(7, 3, kInfinity, false)), Divergence::kNotFinite);
  EXPECT_EQ(watch.state().skipped_steps, 3);
  EXPECT_EQ(watch.state().skipped_in_a_row, 3);
  EXPECT_EQ(watch.grad_norm_limit(8), 100.0);
  watch.observe(step(8, 3, 1));
  EXPECT_EQ(watch.state().skipped_in_a_row, 0);
  const WatchState old;
  watch.go_back_to(old);
  EXPECT_EQ(watch.state().skipped_steps, 3);
  EXPECT_EQ(watch.grad_norm_limit(8), kInfinity);
}

TEST(DivergenceWatch, ALossAboveItsStartForLongEnoughIsDivergence) {
  DivergenceWatch watch(watchful(), {});
  for (int64_t number = 1; number <= DivergenceWatch::kStartSteps; ++number) {
    EXPECT_EQ(watch.observe(step(number, number % 2 == 0 ? 9 : 11, 1)), Divergence::kNone);  // mean 10
  }
  int64_t number = DivergenceWatch::kStartSteps;
  for (const double loss : {10.5, 10.5, 9.5, 10.5, 10.5}) EXPECT_EQ(watch.observe(step(++number, loss, 1)), Divergence::kNone);
  EXPECT_EQ(watch.observe(step(++number, 10.5, 1)), Divergence::kLossAboveStart);
}

TEST(StepDump, ReadsBackAsItWasWritten) {
  const test::TempDir folder;
  const StepDump dump{.step = 7, .data_step = 9, .epoch = 1, .seed = 42, .data_offset = 3, .offset_since_step = 2,
                      .reason = "r", .policy = "skip", .loss = std::nan(""), .grad_norm = -kInfinity, .learning_rate = 1.0 / 3,
                      .grad_norm_limit = kInfinity, .is_applied = false, .layer_names = {"embedding", "layer_00"},
                      .grad_norm_per_layer = {0.1, kInfinity}, .max_score_per_layer = {2.5}, .tokens = 5, .masked_tokens = 1,
                      .num_ranks = 2, .device = "cpu", .compute_type = "Float",
                      .cells = {{.rank = 0, .micro_batch = 1, .id = 0xfedcba9876543210ULL, .tokens = 5}}};
  write_dump(folder / "dump.json", dump);
  const StepDump read = read_dump(folder / "dump.json");
  EXPECT_TRUE(std::isnan(read.loss));
  EXPECT_EQ(read.grad_norm, -kInfinity);
  EXPECT_EQ(read.learning_rate, dump.learning_rate);
  EXPECT_EQ(read.grad_norm_limit, kInfinity);
  EXPECT_EQ(read.layer_names, dump.layer_names);
  EXPECT_EQ(read.grad_norm_per_layer, dump.grad_norm_per_layer);
  EXPECT_EQ(read.max_score_per_layer, dump.max_score_per_layer);
  EXPECT_EQ(read.cells, dump.cells);
  EXPECT_EQ(read.data_step, 9);
  EXPECT_EQ(read.data_offset, 3);
  EXPECT_EQ(read.num_ranks, 2);
}

TEST(StepDump, WhatIsNoDumpIsRefused) {
  const test::TempDir folder;
  for (const char* text : {"", "[]", "{}", R"({"format_version":2})", R"({"format_version":1,"step":"x"})"}) {
    write_file_atomically(folder / "dump.json", text);
    EXPECT_THROW((void)read_dump(folder / "dump.json"), DataError) << text;
  }
}

}  // namespace
}  // namespace scrna::train
