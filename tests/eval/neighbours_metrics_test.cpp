// Neighbours and what stands on them: principal components, kNN and linear probes, batch mixing, Leiden, UMAP.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/eval/batch_mixing.h"
#include "lib/eval/classification.h"
#include "lib/eval/clustering_agreement.h"
#include "lib/eval/connectivities.h"
#include "lib/eval/leiden.h"
#include "lib/eval/logistic_regression.h"
#include "lib/eval/neighbours.h"
#include "lib/eval/principal_components.h"
#include "lib/eval/umap.h"
#include "tests/eval/blobs.h"
#include "tests/support/expect_error.h"
#include "tests/support/tolerance.h"

namespace scrna::eval {
namespace {

using test::kFloat64Metric;
using test::labels_of_codes;
using test::make_blobs;
using test::matrix_of;

TEST(PrincipalComponents, OfALineIsOneWithItsLargestLoadingPositive) {
  const PrincipalComponents found = components_for_variance(matrix_of(2, {3, -6, 1, -2, -1, 2, -3, 6}), 0.95);
  ASSERT_EQ(found.scores.width, 1);
  EXPECT_NEAR(found.loadings.row(0)[1], 2 / std::sqrt(5), kFloat64Metric);
  EXPECT_NEAR(found.scores.row(0)[0], -3 * std::sqrt(5), kFloat64Metric);
  EXPECT_NEAR(found.variances[0], 100.0 / 3, kFloat64Metric);
  EXPECT_NEAR(found.variance_ratios[0], 1, kFloat64Metric);
}

TEST(PrincipalComponents, AreAsManyAsTheVarianceNeeds) {
  // Variances in the ratio 90 : 9 : 1 along the axes.
  const double a = std::sqrt(90), b = 3, c = 1;
  const CellMatrix cross = matrix_of(3, {a, 0, 0, -a, 0, 0, 0, b, 0, 0, -b, 0, 0, 0, c, 0, 0, -c});
  EXPECT_EQ(components_for_variance(cross, 0.85).scores.width, 1);
  EXPECT_EQ(components_for_variance(cross, 0.95).scores.width, 2);
  EXPECT_EQ(components_for_variance(cross, 0.995).scores.width, 3);
  EXPECT_EQ(first_components(cross, 50).scores.width, 3);
}

TEST(PrincipalComponents, OfCellsThatAreAllTheSameAreRefused) {
  EXPECT_CONTAINS(test::message_of<DataError>([] { components_for_variance(matrix_of(1, {2, 2, 2}), 0.95); }), "same values");
}

TEST(Neighbours, AreTheNearestWithTheLowerNumberFirstAmongEquals) {
  const Neighbours found = nearest_neighbours(matrix_of(1, {0, 1, -1, 5}), 2);
  EXPECT_EQ(found.indices, (std::vector<int32_t>{1, 2, 0, 2, 0, 1, 1, 0}));
  EXPECT_EQ(found.distances[0], 1);
  EXPECT_EQ(found.distances[7], 5);
  EXPECT_EQ(first_neighbours(found, 1).indices, (std::vector<int32_t>{1, 0, 0, 1}));
}

TEST(Neighbours, OfTheSameGroupArePassedOver) {
  const Neighbours found = nearest_neighbours(matrix_of(1, {0, 1, -1.5, 5}), 1, {0, 0, 1, 1});
  EXPECT_EQ(found.indices, (std::vector<int32_t>{2, 2, 0, 1}));
}

TEST(Neighbours, AreTheSameAsThoseOfALoopOverAllPairs) {
  const test::Blobs blobs = make_blobs(4, 400, 1);  // more cells than a block
  const Neighbours found = nearest_neighbours(blobs.matrix, 5);
  for (int64_t i = 0; i < blobs.matrix.cells; i += 37) {
    std::vector<std::pair<double, int32_t>> all;
    for (int64_t j = 0; j < blobs.matrix.cells; ++j) {
      double sum = 0;
      for (int64_t d = 0; d < blobs.matrix.width; ++d) sum += std::pow(blobs.matrix.row(i)[d] - blobs.matrix.row(j)[d], 2);
      if (j != i) all.emplace_back(std::sqrt(sum), static_cast<int32_t>(j));
    }
    std::sort(all.begin(), all.end());
    for (int64_t k = 0; k < 5; ++k) {
      ASSERT_EQ(found.indices[i * 5 + k], all[k].second) << "cell " << i;
      ASSERT_NEAR(found.distances[i * 5 + k], all[k].first, kFloat64Metric);
    }
  }
}

TEST(Neighbours, MoreThanThereAreCellsAreRefused) {
  EXPECT_CONTAINS(test::message_of<DataError>([] { nearest_neighbours(matrix_of(1, {0, 1, 2}), 3); }), "only 2 others");
  EXPECT_CONTAINS(test::message_of<DataError>([] { nearest_neighbours(matrix_of(1, {0, 1, 2}), 2, {0, 0, 1}); }), "only 1 others");
}

TEST(Folds, SpreadEachLabelEvenlyAndDependOnTheSeed) {
  const test::Blobs blobs = make_blobs(3, 22, 1);
  const std::vector<int32_t> folds = stratified_folds(blobs.labels, 5, 1);
  for (int32_t label = 0; label < 3; ++label) {
    std::vector<int> sizes(5);
    for (int64_t i = 0; i < blobs.labels.cells(); ++i)
      if (blobs.labels.codes[i] == label) ++sizes[folds[i]];
    EXPECT_LE(*std::max_element(sizes.begin(), sizes.end()) - *std::min_element(sizes.begin(), sizes.end()), 1);
  }
  EXPECT_EQ(folds, stratified_folds(blobs.labels, 5, 1));
  EXPECT_NE(folds, stratified_folds(blobs.labels, 5, 2));
}

TEST(Folds, OfALabelWithTooFewCellsAreRefusedByName) {
  Labels labels = labels_of_codes({0, 0, 0, 0, 0, 1});
  labels.names = {"T cell", "pDC"};
  EXPECT_CONTAINS(test::message_of<DataError>([&] { stratified_folds(labels, 5, 0); }), "'pDC' has only 1 cells");
}

TEST(Classification, AccuracyAndMacroF1OfAKnownCase) {
  const Accuracy found = accuracy_of({0, 0, 1, 1, 0}, labels_of_codes({0, 0, 1, 0, 2}));
  EXPECT_NEAR(found.accuracy, 0.6, kFloat64Metric);
  EXPECT_NEAR(found.macro_f1, (2.0 / 3 + 2.0 / 3 + 0) / 3, kFloat64Metric);
}

TEST(Classification, FindsLabelsThatAreThereAndNotThoseThatAreNot) {
  test::Blobs blobs = make_blobs(4, 50, 8);
  const std::vector<int32_t> folds = stratified_folds(blobs.labels, 5, 0);
  EXPECT_EQ(accuracy_of(predict_by_neighbours(blobs.matrix, blobs.labels, folds, 15), blobs.labels).accuracy, 1);
  EXPECT_EQ(accuracy_of(predict_by_linear_probe(blobs.matrix, blobs.labels, folds), blobs.labels).accuracy, 1);
  // The same labels dealt out anew: a quarter is right by chance, 200 cells vary by 0.03.
  const RandomStream random(3, RandomPurpose::kSynthesize);
  for (int64_t i = blobs.labels.cells(); i > 1; --i) std::swap(blobs.labels.codes[i - 1], blobs.labels.codes[random.below(i, i)]);
  const std::vector<int32_t> new_folds = stratified_folds(blobs.labels, 5, 0);
  const double chance = accuracy_of(predict_by_linear_probe(blobs.matrix, blobs.labels, new_folds), blobs.labels).accuracy;
  EXPECT_NEAR(chance, 0.25, test::kSigmas * std::sqrt(0.25 * 0.75 / 200));
}

TEST(LogisticRegression, MeetsTheConditionOfTheMinimumInOneDimension) {
  const LogisticRegression model = fit_logistic_regression(matrix_of(1, {-1, 1}), std::vector<int32_t>{0, 1}, 2, 1.0, 1e-12);
  const double a = model.weights.row(1)[0];
  EXPECT_TRUE(model.has_converged);
  EXPECT_NEAR(model.weights.row(0)[0], -a, kFloat64Metric);
  EXPECT_NEAR(a * (1 + std::exp(2 * a)), 2, test::kConvergedMinimum);
  EXPECT_NEAR(model.intercepts[0], 0, test::kConvergedMinimum);
}

TEST(BatchMixing, LisiIsZeroForBatchesApartAndOneForAlternatingOnes) {
  const int64_t n = 200;
  CellMatrix line(n, 1);
  std::vector<int32_t> alternating, halves;
  for (int64_t i = 0; i < n; ++i) {
    line.row(i)[0] = static_cast<double>(i) + (i < n / 2 ? 0 : 1e4);
    alternating.push_back(static_cast<int32_t>(i % 2));
    halves.push_back(i < n / 2 ? 0 : 1);
  }
  const Neighbours neighbours = nearest_neighbours(line, 29);
  EXPECT_NEAR(batch_lisi(neighbours, labels_of_codes(halves)), 0, kFloat64Metric);
  // Not quite one: the two nearest, which weigh most, are both of the other batch.
  const double mixed = batch_lisi(neighbours, labels_of_codes(alternating));
  EXPECT_GT(mixed, 0.8);
  EXPECT_LT(mixed, 1);
}

TEST(BatchMixing, ConnectivityIsTheLargestPartOfEachLabel) {
  // Label 0: 6 cells in one place, 3 far away; label 1: together.
  CellMatrix line(13, 1);
  for (int64_t i = 0; i < 13; ++i) line.row(i)[0] = static_cast<double>(i) + (i < 6 ? 0 : i < 9 ? 1000 : 2000);
  const Labels labels = labels_of_codes({0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1});
  EXPECT_NEAR(graph_connectivity(nearest_neighbours(line, 2), labels), (6.0 / 9 + 1) / 2, kFloat64Metric);
}

/// Two triangles with one edge between them.
Graph two_triangles() {
  Graph graph;
  const std::vector<std::vector<int32_t>> lists = {{1, 2}, {0, 2}, {0, 1, 3}, {2, 4, 5}, {3, 5}, {3, 4}};
  for (const auto& list : lists) {
    graph.targets.insert(graph.targets.end(), list.begin(), list.end());
    graph.weights.resize(graph.targets.size(), 1);
    graph.starts.push_back(static_cast<int64_t>(graph.targets.size()));
  }
  return graph;
}

TEST(Leiden, FindsTwoTriangles) {
  const Labels clusters = leiden_clusters(two_triangles(), 1, 0);
  EXPECT_EQ(adjusted_rand_index(clusters, labels_of_codes({0, 0, 0, 1, 1, 1})), 1);
  EXPECT_NEAR(modularity(two_triangles(), clusters, 1), 5.0 / 14, kFloat64Metric);
  EXPECT_EQ(leiden_clusters(two_triangles(), 0.01, 0).count(), 1);
  EXPECT_EQ(leiden_clusters(two_triangles(), 100, 0).count(), 6);
}

TEST(Leiden, FindsBlobsAtEverySeedAndIsAFunctionOfIt) {
  const test::Blobs blobs = make_blobs(5, 60, 9);
  const Graph graph = connectivities(nearest_neighbours(blobs.matrix, 14));
  for (uint64_t seed = 0; seed < 5; ++seed)
    EXPECT_NEAR(normalised_mutual_information(leiden_clusters(graph, 0.3, seed), blobs.labels), 1, kFloat64Metric);
  EXPECT_EQ(leiden_clusters(graph, 2, 7).codes, leiden_clusters(graph, 2, 7).codes);
  const std::vector<LeidenPoint> sweep = leiden_sweep(graph, blobs.labels, scib_resolutions(), 0);
  ASSERT_EQ(sweep.size(), 10U);
  EXPECT_GE(sweep.back().clusters, sweep.front().clusters);
  EXPECT_EQ(best_point(sweep).nmi, std::max_element(sweep.begin(), sweep.end(), [](auto& a, auto& b) { return a.nmi < b.nmi; })->nmi);
}

TEST(Connectivities, AreSymmetricWeightsOfAtMostOne) {
  const test::Blobs blobs = make_blobs(3, 30, 2);
  const Graph graph = connectivities(nearest_neighbours(blobs.matrix, 10));
  std::set<std::pair<std::pair<int64_t, int64_t>, double>> edges;
  for (int64_t v = 0; v < graph.nodes(); ++v) {
    EXPECT_TRUE(std::is_sorted(graph.targets.begin() + graph.starts[v], graph.targets.begin() + graph.starts[v + 1]));
    for (int64_t e = graph.starts[v]; e < graph.starts[v + 1]; ++e) {
      EXPECT_GT(graph.weights[e], 0);
      EXPECT_LE(graph.weights[e], 1);
      edges.insert({{v, graph.targets[e]}, graph.weights[e]});
    }
  }
  EXPECT_GE(edges.size(), 900U);
  for (const auto& [ends, weight] : edges) EXPECT_TRUE(edges.contains({{ends.second, ends.first}, weight}));
}

TEST(Umap, CurveIsThatOfUmapLearn) {
  const UmapCurve curve = umap_curve(0.5, 1);
  EXPECT_NEAR(curve.a, 0.58303, test::kUmapCurve);
  EXPECT_NEAR(curve.b, 1.33417, test::kUmapCurve);
  EXPECT_NEAR(umap_curve(0.1, 1).a, 1.57694, test::kUmapCurve);
}

TEST(Umap, KeepsBlobsTogetherAndIsAFunctionOfTheSeed) {
  const test::Blobs blobs = make_blobs(3, 60, 10);
  const Graph graph = connectivities(nearest_neighbours(blobs.matrix, 14));
  const CellMatrix components = first_components(blobs.matrix, 2).scores;
  const CellMatrix places = umap(graph, components, {.seed = 1});
  EXPECT_EQ(places.values, umap(graph, components, {.seed = 1}).values);
  EXPECT_NE(places.values, umap(graph, components, {.seed = 2}).values);
  const Neighbours near = nearest_neighbours(places, 10);
  int64_t same = 0;
  for (int64_t i = 0; i < near.cells; ++i)
    for (int64_t j = 0; j < 10; ++j) same += blobs.labels.codes[near.indices[i * 10 + j]] == blobs.labels.codes[i];
  EXPECT_GT(static_cast<double>(same) / static_cast<double>(near.cells * 10), 0.99);
}

}  // namespace
}  // namespace scrna::eval
