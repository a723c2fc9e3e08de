#include "lib/data/pack_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

using Plan = std::vector<std::vector<int32_t>>;
using Lengths = std::vector<int32_t>;
using Random = std::mt19937_64;

// Lengths as in CELLxGENE: 2^normal(10.75, 1.25), from 200 to `longest`.
Lengths census_like(Random& random, int64_t num_cells, double longest) {
  std::normal_distribution<double> log2_genes(10.75, 1.25);
  Lengths lengths;
  for (int64_t cell = 0; cell < num_cells; ++cell) {
    lengths.push_back(static_cast<int32_t>(std::clamp(std::exp2(log2_genes(random)), 200.0, longest)));
  }
  return lengths;
}

int32_t from_one_to(Random& random, int32_t largest) {
  return std::uniform_int_distribution<int32_t>(1, largest)(random);
}

std::vector<int64_t> tokens_of(const Plan& plan, const Lengths& lengths) {
  std::vector<int64_t> tokens;
  for (const auto& pack : plan) {
    tokens.push_back(0);
    for (const int32_t cell : pack) tokens.back() += lengths[static_cast<std::size_t>(cell)];
  }
  return tokens;
}

// Whole cells in their order, as many as fit.
std::size_t packs_in_order(const Lengths& lengths, int64_t budget) {
  std::size_t packs = 0;
  int64_t room = 0;
  for (const int32_t length : lengths) {
    if (length > room) ++packs, room = budget;
    room -= length;
  }
  return packs;
}

// No packing can do with fewer: by all tokens, and by cells of which no two share a pack.
std::size_t fewest_possible(const Lengths& lengths, int64_t budget) {
  const int64_t sum = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const auto halves =
      std::count_if(lengths.begin(), lengths.end(), [&](int32_t n) { return 2 * n > budget; });
  return static_cast<std::size_t>(std::max<int64_t>((sum + budget - 1) / budget, halves));
}

void expect_lawful(const Plan& plan, const Lengths& lengths, int64_t budget) {
  std::vector<int32_t> cells;
  for (const auto& pack : plan) {
    ASSERT_FALSE(pack.empty());
    EXPECT_TRUE(std::is_sorted(pack.begin(), pack.end()));
    cells.insert(cells.end(), pack.begin(), pack.end());
  }
  EXPECT_TRUE(
      std::is_sorted(plan.begin(), plan.end(), [](const auto& a, const auto& b) { return a[0] < b[0]; }));
  std::sort(cells.begin(), cells.end());
  Lengths all(lengths.size());
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(cells, all) << "every cell exactly once";
  const std::vector<int64_t> tokens = tokens_of(plan, lengths);
  for (std::size_t pack = 0; pack < plan.size(); ++pack)
    EXPECT_TRUE(tokens[pack] <= budget || plan[pack].size() == 1) << tokens[pack] << " of " << budget;
  EXPECT_LE(plan.size(), packs_in_order(lengths, budget));
}

TEST(PackPlan, FillsPacksThatCellsInTheirOrderWouldLeaveHalfEmpty) {
  EXPECT_EQ(plan_packs(Lengths{6, 6, 4, 4}, 10), (Plan{{0, 2}, {1, 3}}));
  EXPECT_EQ(plan_packs(Lengths{9, 2, 9, 2, 1}, 11), (Plan{{0}, {1, 3, 4}, {2}}));
}

TEST(PackPlan, EvensOutWhatItCannotAvoid) {
  EXPECT_EQ(tokens_of(plan_packs(Lengths{4, 4, 4, 4}, 12), Lengths{4, 4, 4, 4}),
            (std::vector<int64_t>{8, 8}));
}

TEST(PackPlan, ACellLongerThanTheBudgetIsAlone) {
  EXPECT_EQ(plan_packs(Lengths{2, 25, 2, 3}, 10), (Plan{{0, 2, 3}, {1}}));
  EXPECT_EQ(plan_packs(Lengths{25}, 10), (Plan{{0}}));
  EXPECT_EQ(plan_packs(Lengths{}, 10), Plan{});
}

// Dealt out evenly: 3 + 2 + 2 and 3 + 2.
TEST(PackPlan, FindsAnExactFitThatAnEvenDealMisses) {
  EXPECT_EQ(plan_packs(Lengths{3, 3, 2, 2, 2}, 6).size(), 2U);
}

TEST(PackPlan, NeverMorePacksThanCellsInTheirOrderWouldFill) {
  Random random(1);
  for (int trial = 0; trial < 2000; ++trial) {
    Lengths lengths(static_cast<std::size_t>(from_one_to(random, 60)));
    const int32_t longest = from_one_to(random, 40);
    for (int32_t& length : lengths) length = from_one_to(random, longest);
    const int64_t budget = from_one_to(random, 60);
    const Plan plan = plan_packs(lengths, budget);
    ASSERT_NO_FATAL_FAILURE(expect_lawful(plan, lengths, budget));
    ASSERT_EQ(plan_packs(lengths, budget), plan) << "a pure function";
  }
}

// What a user gains: steps of 256 cells by the default budget, of 8,192 tokens a cell by the GPU's. The
// numbers of lib/data/README.md.
TEST(PackPlan, CensusLikeStepsAreFullAndEven) {
  struct Case {
    int64_t num_cells;
    double longest;
    int64_t budget;
  };
  for (const Case& c :
       {Case{256, 2048, 16384}, Case{256, 8192, 16384}, Case{256, 8192, 65536}, Case{2048, 8192, 65536}}) {
    Random random(2);
    std::size_t packs = 0, in_order = 0, possible = 0;
    double unevenness = 0, squares_unevenness = 0;
    constexpr int kSteps = 100;
    for (int step = 0; step < kSteps; ++step) {
      const Lengths lengths = census_like(random, c.num_cells, c.longest);
      const Plan plan = plan_packs(lengths, c.budget);
      ASSERT_NO_FATAL_FAILURE(expect_lawful(plan, lengths, c.budget));
      packs += plan.size();
      in_order += packs_in_order(lengths, c.budget);
      possible += fewest_possible(lengths, c.budget);
      const auto over_mean = [](const std::vector<int64_t>& load) {
        const double mean = static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0})) /
                            static_cast<double>(load.size());
        return static_cast<double>(*std::max_element(load.begin(), load.end())) / mean - 1;
      };
      std::vector<int64_t> squares;
      for (const auto& pack : plan) {
        squares.push_back(0);
        for (const int32_t cell : pack) {
          const int64_t length = lengths[static_cast<std::size_t>(cell)];
          squares.back() += length * length;
        }
      }
      unevenness += over_mean(tokens_of(plan, lengths)) / kSteps;
      squares_unevenness += over_mean(squares) / kSteps;
    }
    std::printf(
        "%5ld cells of 200 to %.0f tokens by %6ld: %6.2f packs a step, in order %6.2f, bound %6.2f; fullest "
        "pack "
        "%.2f %% above the mean, its squares %.1f %%\n",
        c.num_cells, c.longest, c.budget, static_cast<double>(packs) / kSteps,
        static_cast<double>(in_order) / kSteps, static_cast<double>(possible) / kSteps, 100 * unevenness,
        100 * squares_unevenness);
    EXPECT_LE(packs, possible + kSteps / 10) << "at most one step in ten has a pack more than the bound";
    EXPECT_LE(unevenness, 0.01);
  }
}

TEST(PackPlan, AStepOfVeryManyCellsIsPackedToo) {
  Random random(3);
  const Lengths lengths = census_like(random, 200000, 8192);
  EXPECT_LE(plan_packs(lengths, 16384).size(), packs_in_order(lengths, 16384));
}

TEST(PackPlan, ACellWithoutTokensIsOurOwnMistake) {
  EXPECT_THROW(plan_packs(Lengths{3, 0}, 10), InternalError);
  EXPECT_THROW(plan_packs(Lengths{3}, 0), InternalError);
}

}  // namespace
}  // namespace scrna::data
