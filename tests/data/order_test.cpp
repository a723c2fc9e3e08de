#include "lib/data/order.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/random.h"

namespace scrna::data {
namespace {

std::vector<int32_t> random_sizes(int num_blocks, int32_t largest, uint64_t seed) {
  const RandomStream stream(seed, RandomPurpose::kInit);
  std::vector<int32_t> sizes;
  for (int i = 0; i < num_blocks; ++i) {
    sizes.push_back(
        1 + static_cast<int32_t>(stream.below(static_cast<uint64_t>(largest), static_cast<uint64_t>(i))));
  }
  return sizes;
}

std::vector<std::pair<int64_t, int64_t>> cells_of(const EpochOrder& order) {
  std::vector<std::pair<int64_t, int64_t>> cells;
  for (int64_t position = 0; position < order.num_cells(); ++position) {
    const OrderedCell cell = order.at(position);
    cells.emplace_back(cell.block, cell.cell_in_block);
  }
  return cells;
}

TEST(EpochOrder, HoldsEveryCellExactlyOnce) {
  for (const auto& [num_blocks, largest, window] :
       {std::tuple{1, 1, 1}, {1, 50, 7}, {13, 1, 4}, {40, 9, 30}, {25, 16, 100000}}) {
    const auto sizes = random_sizes(num_blocks, largest, 5);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      const EpochOrder order(sizes, window, 42, epoch);
      const auto cells = cells_of(order);
      const std::set<std::pair<int64_t, int64_t>> distinct(cells.begin(), cells.end());
      EXPECT_EQ(distinct.size(), cells.size());
      int64_t num_cells = 0;
      for (std::size_t block = 0; block < sizes.size(); ++block) {
        num_cells += sizes[block];
        for (int64_t i = 0; i < sizes[block]; ++i)
          EXPECT_TRUE(distinct.contains({static_cast<int64_t>(block), i}));
      }
      EXPECT_EQ(order.num_cells(), num_cells);
    }
  }
}

TEST(EpochOrder, IsAFunctionOfSeedAndEpoch) {
  const auto sizes = random_sizes(30, 10, 1);
  const auto cells = cells_of(EpochOrder(sizes, 40, 42, 3));
  EXPECT_EQ(cells_of(EpochOrder(sizes, 40, 42, 3)), cells);
  EXPECT_NE(cells_of(EpochOrder(sizes, 40, 43, 3)), cells);
  EXPECT_NE(cells_of(EpochOrder(sizes, 40, 42, 4)), cells);
}

TEST(EpochOrder, ReadsWholeBlocksWindowByWindow) {
  const auto sizes = random_sizes(50, 8, 2);
  const EpochOrder order(sizes, 32, 9, 0);
  std::vector<uint32_t> all;
  for (int64_t window = 0; window < order.num_windows(); ++window) {
    const auto blocks = order.window_blocks(window);
    all.insert(all.end(), blocks.begin(), blocks.end());
    int64_t cells = 0;
    for (const uint32_t block : blocks) cells += sizes[block];
    EXPECT_EQ(order.window_begin(window + 1) - order.window_begin(window), cells);
    if (window + 1 < order.num_windows()) {
      EXPECT_GE(cells, 32);
    }
    EXPECT_LT(cells, 32 + 8);
    EXPECT_EQ(order.window_of(order.window_begin(window)), window);
    EXPECT_EQ(order.window_of(order.window_begin(window + 1) - 1), window);
  }
  std::sort(all.begin(), all.end());
  for (uint32_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], i);
  EXPECT_EQ(all.size(), 50U);
  EXPECT_THROW((void)order.window_of(order.num_cells()), InternalError);
}

TEST(EpochOrder, MixesCellsThatAreNeighboursInTheFile) {
  // With everything in one window, the mean distance of neighbours is that of a random order, n/3, within 10
  // % (its standard deviation over 5,000 pairs is about 0.5 %).
  const std::vector<int32_t> sizes(50, 100);
  const EpochOrder order(sizes, 5000, 4, 0);
  const auto shuffle = order.window_shuffle(0);
  std::vector<int64_t> position(shuffle.size());
  for (std::size_t i = 0; i < shuffle.size(); ++i) position[shuffle[i]] = static_cast<int64_t>(i);
  double distance = 0;
  for (std::size_t i = 1; i < position.size(); ++i)
    distance += std::abs(static_cast<double>(position[i] - position[i - 1]));
  EXPECT_NEAR(distance / 4999, 5000.0 / 3, 0.1 * 5000 / 3);
}

}  // namespace
}  // namespace scrna::data
