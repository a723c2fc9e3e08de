// FLOPs of a step against numbers worked out by hand, and what meters make of time, data and rows.
#include "lib/train/meters.h"

#include <gtest/gtest.h>

#include "lib/train/matrix_ceiling.h"
#include "tests/support/packed_cells.h"

namespace scrna::train {
namespace {

constexpr model::ModelConfig kPaper{
    .num_layers = 12, .width = 768, .num_heads = 12, .feed_forward_width = 3072};

TEST(Flops, MatricesOfThe160MEncoderHave85MillionElements) {
  EXPECT_EQ(matrix_parameters(kPaper), 84934656);  // 12 x (4 x 589,824 + 2 x 2,359,296)
}

TEST(Flops, AStepCountsProductsAttentionAndMaskedTokensThreeTimes) {
  const model::ModelConfig tiny{.num_layers = 2, .width = 8, .num_heads = 2, .feed_forward_width = 16};
  StepLoad load{.masked_tokens = 2};
  const std::vector<int32_t> begins{0, 3, 8};
  add_cells(load, begins, 8);
  EXPECT_EQ(load.cells, 2);
  EXPECT_EQ(load.tokens, 8);
  EXPECT_EQ(load.squared_lengths, 9 + 25);
  // P = 2 (4 x 64 + 2 x 128) = 1,024; products 2 x 1,024 x 8; attention 4 x 8 x 2 x 34; head 2 x 8 x 10 x 2
  EXPECT_EQ(step_flop(tiny, 10, load), 3.0 * (16384 + 2176 + 320));
}

TEST(Flops, TheLoadOfThePublishedComparisonTakes58Teraflop) {
  // 32 cells, 65,287 tokens, 207 cells/s at 378 TFLOP/s: 58.4 TFLOP a step.
  const StepLoad load{.cells = 32, .tokens = 65287, .masked_tokens = 9793, .squared_lengths = 2.09e8};
  EXPECT_NEAR(step_flop(kPaper, 43804, load) * 1e-12, 378 * 32 / 207.0, 0.3);
}

TEST(Meters, PaddingIsWhatTheRowsHoldBeyondTheCells) {
  StepLoad load;
  const std::vector<int32_t> begins{0, 3, 8};
  add_cells(load, begins, 8);
  EXPECT_EQ(load.padding_share(), 0.0);
  add_cells(load, begins, 24);  // the same cells in a padded form of 24 rows
  EXPECT_EQ(load.padding_share(), 0.5);
}

TEST(Meters, TheLoadOfABatchIsThatOfItsCells) {
  const GlobalBatch batch = test::batch_of(0, {test::pack({{1, 32}, {2, 7}}), test::pack({{3, 20}})});
  const StepLoad load = load_of(to_device(batch, at::kCPU));
  EXPECT_EQ(load.cells, 3);
  EXPECT_EQ(load.tokens, 59);
  EXPECT_EQ(load.rows, 59);
  EXPECT_EQ(load.masked_tokens, batch.num_masked);
  EXPECT_EQ(load.squared_lengths, 32 * 32 + 7 * 7 + 20 * 20);
}

TEST(Meters, ReadStepsAndTheWholeRun) {
  Meters meters(kPaper, 43804, at::kCPU, 1e12);
  const StepLoad load{.cells = 4, .tokens = 100, .masked_tokens = 15, .squared_lengths = 2500, .rows = 100};
  const double flop = step_flop(kPaper, 43804, load);
  const MeterReading first = meters.add(load, 2.0, 0.5);
  EXPECT_EQ(first.cells_per_second, 2.0);
  EXPECT_EQ(first.tokens_per_second, 50.0);
  EXPECT_EQ(first.flop_per_second, flop / 2);
  EXPECT_EQ(first.data_wait_share, 0.25);
  EXPECT_EQ(first.padding_share, 0.0);
  ASSERT_TRUE(first.mfu.has_value());
  EXPECT_EQ(*first.mfu, flop / 2 / 1e12);
  EXPECT_FALSE(first.peak_device_memory_bytes.has_value());
  meters.add(load, 6.0, 0.0);
  const MeterReading total = meters.total();
  EXPECT_EQ(total.cells_per_second, 1.0);
  EXPECT_EQ(total.flop_per_second, 2 * flop / 8);
  EXPECT_EQ(total.data_wait_share, 0.0625);
}

TEST(Meters, RecentIsTheLastTenSteps) {
  Meters meters(kPaper, 43804, at::kCPU, 1e12);
  const StepLoad load{.cells = 4, .tokens = 100, .masked_tokens = 15, .squared_lengths = 2500, .rows = 100};
  meters.add(load, 100.0, 50.0);
  EXPECT_EQ(meters.recent().cells_per_second, 0.04);
  for (std::size_t step = 0; step < Meters::kRecentSteps; ++step)
    meters.add(load, step % 2 == 0 ? 1.0 : 3.0, 0.5);
  const MeterReading recent = meters.recent();  // the long one is forgotten
  EXPECT_EQ(recent.cells_per_second, 2.0);
  EXPECT_EQ(recent.tokens_per_second, 50.0);
  EXPECT_EQ(recent.data_wait_share, 0.25);
  EXPECT_EQ(*recent.mfu, step_flop(kPaper, 43804, load) / 2 / 1e12);
  EXPECT_EQ(meters.total().cells_per_second, 4 * 11 / 120.0);
}

TEST(Meters, WithoutACeilingThereIsNoMfuAndWithoutStepsEverythingIsZero) {
  const MeterReading reading = Meters(kPaper, 43804, at::kCPU, std::nullopt).total();
  EXPECT_FALSE(reading.mfu.has_value());
  EXPECT_EQ(reading.cells_per_second, 0.0);
  EXPECT_EQ(reading.data_wait_share, 0.0);
  EXPECT_EQ(reading.padding_share, 0.0);
}

TEST(MatrixCeiling, IsWhatAProcessorMayReach) {
  const double flop_per_second = measure_matrix_ceiling(at::kCPU, at::kFloat, 0.01);
  EXPECT_GT(flop_per_second, 1e8);   // a few hundred times slower than one core of this decade
  EXPECT_LT(flop_per_second, 1e14);  // ten times a large server
}

}  // namespace
}  // namespace scrna::train
