// Silhouettes, NMI, ARI and MMD on cases small enough for paper; comparisons with scikit-learn and scib-metrics on
// larger ones are in tests/oracle/compare_eval.py.
#include <cmath>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/eval/clustering_agreement.h"
#include "lib/eval/separation.h"
#include "lib/eval/silhouette.h"
#include "tests/eval/blobs.h"
#include "tests/support/expect_error.h"
#include "tests/support/tolerance.h"

namespace scrna::eval {
namespace {

using test::kFloat64Metric;
using test::labels_of_codes;
using test::make_blobs;
using test::matrix_of;

TEST(Silhouette, IsThatOfTheDefinitionOnALine) {
  const SilhouetteScores scores = silhouette_scores(matrix_of(1, {0, 1, 10, 12}), labels_of_codes({0, 0, 1, 1}), nullptr);
  const double expected[] = {10.0 / 11, 0.9, 7.5 / 9.5, 9.5 / 11.5};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(scores.samples[i], expected[i], kFloat64Metric);
  EXPECT_NEAR(scores.label_scaled, (scores.label + 1) / 2, kFloat64Metric);
  EXPECT_TRUE(std::isnan(scores.batch));
}

TEST(Silhouette, DoesNotChangeWhenFarFromTheOrigin) {
  const test::Blobs blobs = make_blobs(3, 20, 2);
  CellMatrix moved = blobs.matrix;
  for (double& value : moved.values) value += 1e6;
  EXPECT_NEAR(silhouette_scores(moved, blobs.labels, nullptr).label,
              silhouette_scores(blobs.matrix, blobs.labels, nullptr).label, test::kMovedMetric);
}

TEST(Silhouette, OfALabelWithOneCellOrOfCellsInOnePlaceIsZero) {
  const SilhouetteScores scores = silhouette_scores(matrix_of(1, {0, 0, 0, 5}), labels_of_codes({0, 1, 1, 2}), nullptr);
  EXPECT_EQ(scores.samples[0], 0);
  EXPECT_EQ(scores.samples[1], 0);
  EXPECT_EQ(scores.samples[3], 0);
}

TEST(Silhouette, OfOneLabelIsRefused) {
  EXPECT_CONTAINS(test::message_of<DataError>([] { silhouette_scores(matrix_of(1, {0, 1}), labels_of_codes({0, 0}), nullptr); }),
                  "at least two labels");
}

TEST(Silhouette, OfBatchesFallsWhenTheyAreMovedApart) {
  test::Blobs blobs = make_blobs(3, 40, 6);
  const double mixed = silhouette_scores(blobs.matrix, blobs.labels, &blobs.batches).batch;
  for (int64_t i = 0; i < blobs.matrix.cells; ++i) blobs.matrix.row(i)[3] += 8 * blobs.batches.codes[i];
  const double apart = silhouette_scores(blobs.matrix, blobs.labels, &blobs.batches).batch;
  EXPECT_GT(mixed, 0.9);
  EXPECT_LT(apart, 0.5);
}

TEST(Silhouette, IsolatedLabelsAreThoseInTheFewestBatches) {
  test::Blobs blobs = make_blobs(3, 20, 6);
  for (int64_t i = 0; i < blobs.matrix.cells; ++i)
    if (blobs.labels.codes[i] == 1) blobs.batches.codes[i] = 0;
  const SilhouetteScores scores = silhouette_scores(blobs.matrix, blobs.labels, &blobs.batches);
  ASSERT_EQ(scores.isolated_labels, std::vector<std::string>{"type 1"});
  double sum = 0;
  for (int64_t i = 0; i < blobs.matrix.cells; ++i)
    if (blobs.labels.codes[i] == 1) sum += (scores.samples[i] + 1) / 2;
  EXPECT_NEAR(scores.isolated_label, sum / 20, kFloat64Metric);
}

TEST(Agreement, OfTheSamePartitionUnderOtherNamesIsOne) {
  const Labels a = labels_of_codes({0, 0, 1, 2, 2}), b = labels_of_codes({2, 2, 0, 1, 1});
  EXPECT_NEAR(normalised_mutual_information(a, b), 1, kFloat64Metric);
  EXPECT_NEAR(adjusted_rand_index(a, b), 1, kFloat64Metric);
}

TEST(Agreement, OfAKnownCase) {
  const Labels a = labels_of_codes({0, 0, 1, 1}), b = labels_of_codes({0, 0, 1, 2});
  EXPECT_NEAR(normalised_mutual_information(a, b), 0.8, kFloat64Metric);  // log 2 / (1.25 log 2)
  EXPECT_NEAR(adjusted_rand_index(a, b), 4.0 / 7, kFloat64Metric);
  const Labels crossed = labels_of_codes({0, 1, 0, 1});
  EXPECT_NEAR(normalised_mutual_information(a, crossed), 0, kFloat64Metric);
  EXPECT_NEAR(adjusted_rand_index(a, crossed), -0.5, kFloat64Metric);
}

TEST(Separation, OfTwoCellsIsThatOfTheFormula) {
  const auto pairs = separation_of_pairs(matrix_of(1, {0, 7}), labels_of_codes({0, 1}), {});
  ASSERT_EQ(pairs.size(), 1U);
  EXPECT_NEAR(pairs[0].bandwidth, 7, kFloat64Metric);
  EXPECT_NEAR(pairs[0].mmd_squared, 2 - 2 * std::exp(-0.5), kFloat64Metric);
  EXPECT_NEAR(pairs[0].mmd_low, pairs[0].mmd, kFloat64Metric) << "resamples of one cell are that cell";
}

TEST(Separation, OfTheSamePlacesIsZero) {
  const auto pairs = separation_of_pairs(matrix_of(1, {0, 1, 0, 1}), labels_of_codes({0, 0, 1, 1}), {});
  EXPECT_NEAR(pairs[0].mmd_squared, 0, kFloat64Metric);
  const auto nowhere = separation_of_pairs(matrix_of(1, {3, 3, 3}), labels_of_codes({0, 0, 1}), {});
  EXPECT_EQ(nowhere[0].bandwidth, 0);
  EXPECT_EQ(nowhere[0].mmd, 0);
}

TEST(Separation, GrowsWithDistanceAndItsIntervalHoldsIt) {
  const test::Blobs near = make_blobs(3, 60, 1), far = make_blobs(3, 60, 4);
  const auto near_pairs = separation_of_pairs(near.matrix, near.labels, {}), far_pairs = separation_of_pairs(far.matrix, far.labels, {});
  ASSERT_EQ(near_pairs.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_LT(near_pairs[i].mmd, far_pairs[i].mmd);
    EXPECT_LT(far_pairs[i].mmd_low, far_pairs[i].mmd);
    EXPECT_GT(far_pairs[i].mmd_high, far_pairs[i].mmd);
    EXPECT_GT(far_pairs[i].mmd_deviation, 0);
  }
}

TEST(Separation, IsAFunctionOfTheSeedAndSaysHowManyCellsItTook) {
  const test::Blobs blobs = make_blobs(2, 50, 2);
  const SeparationOptions options{.num_resamples = 50, .max_label_cells = 30, .seed = 5};
  const auto first = separation_of_pairs(blobs.matrix, blobs.labels, options)[0];
  const auto second = separation_of_pairs(blobs.matrix, blobs.labels, options)[0];
  const auto other = separation_of_pairs(blobs.matrix, blobs.labels, {.num_resamples = 50, .max_label_cells = 30, .seed = 6})[0];
  EXPECT_EQ(first.first_cells, 30);
  EXPECT_EQ(first.second_cells, 30);
  EXPECT_EQ(first.mmd, second.mmd);
  EXPECT_EQ(first.mmd_low, second.mmd_low);
  EXPECT_NE(first.mmd, other.mmd);
}

}  // namespace
}  // namespace scrna::eval
