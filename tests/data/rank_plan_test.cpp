#include "lib/data/rank_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/memory_corpus.h"

namespace scrna::data {
namespace {

TEST(RankPlan, MostExpensiveFirstEachToTheRankWithTheLeast) {
  RankPlan plan(3);
  plan.begin_step();
  EXPECT_EQ(plan.assign(std::vector<int64_t>{2, 9, 4, 4, 3, 8}), (std::vector<int32_t>{2, 0, 2, 2, 1, 1}));
  EXPECT_EQ(plan.loads(), (std::vector<int64_t>{9, 11, 10}));
  // The rest of the step, from the next window, evens out what was uneven.
  EXPECT_EQ(plan.assign(std::vector<int64_t>{1, 3}), (std::vector<int32_t>{2, 0}));
  plan.begin_step();
  EXPECT_EQ(plan.assign(std::vector<int64_t>{1, 1, 1, 1}), (std::vector<int32_t>{0, 1, 2, 0}))
      << "equals in order";
}

TEST(RankPlan, EveryRankHasACellWhenThereAreEnough) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    const auto ranks = std::uniform_int_distribution<int64_t>(1, 64)(random);
    RankPlan plan(ranks);
    std::vector<int64_t> costs(static_cast<std::size_t>(ranks));
    for (int64_t& cost : costs) cost = std::uniform_int_distribution<int64_t>(1, 1'000'000)(random);
    const auto cut = std::uniform_int_distribution<std::size_t>(0, costs.size())(random);  // two windows
    std::vector<int32_t> seen = plan.assign(std::span(costs).first(cut));
    for (const int32_t rank : plan.assign(std::span(costs).subspan(cut))) seen.push_back(rank);
    std::ranges::sort(seen);
    for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], static_cast<int32_t>(i));
  }
}

TEST(RankPlan, TheCostIsThatOfTokensAndTheirSquares) {
  EXPECT_EQ(cell_cost(1000, 0), int64_t{1000} << 20);
  const double tokens = 8192, weight = 2e-4;
  EXPECT_NEAR(static_cast<double>(cell_cost(8192, weight)) / (1 << 20), tokens + weight * tokens * tokens,
              20);
  EXPECT_GT(cell_cost(65536, 1), 0) << "no overflow";
}

TEST(RankPlan, TokensAreExpectedFromStoredEntriesAndUpToTheContext) {
  const Corpus corpus = test::make_corpus(std::vector<int64_t>{40});
  for (int64_t row = 0; row < 40; ++row) {
    const int64_t entries = corpus.source(0).matrix->stored_entries(row);
    EXPECT_EQ(expected_tokens(corpus, 0, row), std::clamp<int64_t>(entries, 1, 32)) << row;
  }
}

// What lib/dist/README.md says: cells with lengths as in CELLxGENE, 2^normal(10.75, 1.25) from 200 to the
// context; the 160M encoder's weight of squares. Cost of the rank with most over the mean, mean of 200 steps.
TEST(RankPlan, CensusLikeStepsAreEvenOverTheRanks) {
  struct Case {
    int64_t ranks, cells_per_rank;
    double context;
  };
  constexpr double kWeight = 2.2e-4;
  constexpr int kSteps = 200;
  for (const Case& c : {Case{8, 32, 2048}, Case{8, 32, 8192}, Case{8, 128, 8192}, Case{64, 32, 8192},
                        Case{512, 32, 8192}, Case{512, 4, 8192}}) {
    std::mt19937_64 random(3);
    std::normal_distribution<double> log2_genes(10.75, 1.25);
    double before = 0, after = 0, tokens_before = 0, tokens_after = 0;
    for (int step = 0; step < kSteps; ++step) {
      std::vector<int64_t> tokens, costs;
      for (int64_t cell = 0; cell < c.ranks * c.cells_per_rank; ++cell) {
        tokens.push_back(std::llround(std::clamp(std::exp2(log2_genes(random)), 200.0, c.context)));
        costs.push_back(cell_cost(tokens.back(), kWeight));
      }
      RankPlan plan(c.ranks);
      const std::vector<int32_t> ranks = plan.assign(costs);
      const auto over_mean = [&](const std::vector<int64_t>& values, bool is_planned) {
        std::vector<double> loads(static_cast<std::size_t>(c.ranks));
        for (std::size_t cell = 0; cell < values.size(); ++cell) {
          const std::size_t rank = is_planned ? static_cast<std::size_t>(ranks[cell]) : cell % loads.size();
          loads[rank] += static_cast<double>(values[cell]);
        }
        return std::ranges::max(loads) /
               (std::accumulate(loads.begin(), loads.end(), 0.0) / static_cast<double>(c.ranks));
      };
      before += over_mean(costs, false) / kSteps;
      after += over_mean(costs, true) / kSteps;
      tokens_before += over_mean(tokens, false) / kSteps;
      tokens_after += over_mean(tokens, true) / kSteps;
    }
    std::printf(
        "%4ld ranks x %3ld cells up to %4.0f tokens: cost of the largest over the mean %.3f -> %.4f, tokens "
        "%.3f -> %.3f\n",
        c.ranks, c.cells_per_rank, c.context, before, after, tokens_before, tokens_after);
    EXPECT_GT(before, 1.05);
    EXPECT_LT(after, c.cells_per_rank >= 32 ? 1.01 : 1.35);
  }
}

}  // namespace
}  // namespace scrna::data
