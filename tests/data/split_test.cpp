#include "lib/data/split.h"

#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"

namespace scrna::data {
namespace {

TEST(Split, HoldsOutTheWantedPartOfCells) {
  // 20,000 coins of 0.1: standard deviation 42; 5 of them is a false alarm once in 1.7 million seeds.
  int held_out = 0;
  for (uint64_t cell = 0; cell < 20000; ++cell) held_out += split_position(0, cell) < 0.1 ? 1 : 0;
  EXPECT_NEAR(held_out, 2000, 212);
  EXPECT_NE(split_position(0, 5), split_position(1, 5));
}

TEST(Split, TakesGroupsThatFitIntoTheWantedPart) {
  const std::unordered_map<std::string, int64_t> groups = {{"a", 10}, {"b", 500}, {"c", 20}, {"d", 470}};
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto chosen = choose_heldout_groups(groups, 0.03, seed, "data.heldout_column", "groups of 'donor'", "Do otherwise");
    EXPECT_EQ(chosen, (std::unordered_set<std::string>{"a", "c"}));
  }
}

TEST(Split, TakesTheSmallestGroupWhenNoneFits) {
  EXPECT_EQ(choose_heldout_groups({{"a", 400}, {"b", 300}, {"c", 301}}, 0.1, 0, "data.heldout_column",
                                  "groups of 'donor'", "Do otherwise"),
            (std::unordered_set<std::string>{"b"}));
}

TEST(Split, DifferentSeedsTakeDifferentGroups) {
  std::unordered_map<std::string, int64_t> groups;
  for (int i = 0; i < 20; ++i) groups[fmt::format("donor {}", i)] = 100;
  std::unordered_set<std::string> ever;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const auto chosen = choose_heldout_groups(groups, 0.1, seed, "data.heldout_column", "groups of 'donor'", "Do otherwise");
    EXPECT_EQ(chosen.size(), 2U);
    ever.insert(chosen.begin(), chosen.end());
  }
  EXPECT_GT(ever.size(), 10U);
}

TEST(Split, OneGroupCannotBeSplit) {
  EXPECT_CONTAINS(
      test::message_of<DataError>([] {
        return choose_heldout_groups({{"a", 10}}, 0.1, 0, "data.heldout_column", "groups of 'donor'", "Do otherwise");
      }),
      "data.heldout_column: there is 1 of the groups of 'donor' with cells, over all files; holding out whole ones needs at "
      "least two. Do otherwise");
}

}  // namespace
}  // namespace scrna::data
