#include "lib/data/masking.h"

#include <cmath>
#include <map>
#include <set>

#include <gtest/gtest.h>

namespace scrna::data {
namespace {

std::vector<int32_t> masked(uint64_t seed, int64_t step, uint64_t cell, int64_t n, double fraction = 0.15) {
  std::vector<int32_t> out;
  choose_masked(training_mask_stream(seed, step, cell), n, fraction, out);
  return out;
}

TEST(Masking, HidesTheRoundedPartAndAtLeastOne) {
  EXPECT_EQ(num_masked_tokens(1, 0.15), 1);
  EXPECT_EQ(num_masked_tokens(3, 0.15), 1);
  EXPECT_EQ(num_masked_tokens(10, 0.15), 2);  // 1.5 rounds away from zero
  EXPECT_EQ(num_masked_tokens(2048, 0.15), 307);
  EXPECT_EQ(num_masked_tokens(5, 1.0), 5);
  for (const int64_t n : {1, 2, 7, 100, 2048, 16000}) {
    const auto positions = masked(42, 7, 1234, n);
    EXPECT_EQ(std::ssize(positions), num_masked_tokens(n, 0.15));
    EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
    EXPECT_EQ(std::set<int32_t>(positions.begin(), positions.end()).size(), positions.size());
    EXPECT_GE(positions.front(), 0);
    EXPECT_LT(positions.back(), n);
  }
}

TEST(Masking, IsAFunctionOfSeedStepAndCellAlone) {
  const auto positions = masked(42, 7, 99, 500);
  EXPECT_EQ(masked(42, 7, 99, 500), positions);
  EXPECT_NE(masked(43, 7, 99, 500), positions);
  EXPECT_NE(masked(42, 8, 99, 500), positions);
  EXPECT_NE(masked(42, 7, 98, 500), positions);
}

TEST(Masking, EverySubsetIsEquallyLikely) {
  // 2 of 5 tokens: 10 subsets. Chi-square with 9 degrees of freedom; 33.7 is exceeded once in 10,000 seeds.
  std::map<std::vector<int32_t>, int> seen;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) ++seen[masked(1, i, 5, 5, 0.4)];
  ASSERT_EQ(seen.size(), 10U);
  double chi_square = 0;
  for (const auto& [subset, count] : seen) chi_square += std::pow(count - kDraws / 10.0, 2) / (kDraws / 10.0);
  EXPECT_LT(chi_square, 33.7);
}

}  // namespace
}  // namespace scrna::data
