#include "lib/data/order.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>
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

// How much two neighbours of the stream tell of each other, and how far the mean of a batch strays, for cells
// whose property is their place in the file: the hardest case, a file sorted by what matters. 1,000,000
// cells.
struct Quality {
  double neighbour_correlation = 0;
  double batch_spread = 0;  // standard deviation of the means of 256 cells over that of a full shuffle
};
Quality quality_of(int32_t block_cells, int64_t window_cells) {
  const std::vector<int32_t> sizes(static_cast<std::size_t>(1000000 / block_cells), block_cells);
  const EpochOrder order(sizes, window_cells, 1, 0);
  const auto num_cells = static_cast<double>(order.num_cells());
  std::vector<double> stream;  // places, scaled to mean 0 and variance 1
  for (int64_t window = 0; window < order.num_windows(); ++window) {
    const auto blocks = order.window_blocks(window);
    for (const uint32_t cell : order.window_shuffle(window)) {
      const double place =
          static_cast<double>(blocks[cell / static_cast<uint32_t>(block_cells)]) * block_cells +
          cell % static_cast<uint32_t>(block_cells);
      stream.push_back((place / num_cells - 0.5) * std::sqrt(12.0));
    }
  }
  Quality quality;
  for (std::size_t i = 0; i + 1 < stream.size(); ++i)
    quality.neighbour_correlation += stream[i] * stream[i + 1] / static_cast<double>(stream.size() - 1);
  constexpr std::size_t kBatch = 256;
  double squares = 0;
  const std::size_t num_batches = stream.size() / kBatch;
  for (std::size_t batch = 0; batch < num_batches; ++batch) {
    const auto begin = stream.begin() + static_cast<std::ptrdiff_t>(batch * kBatch);
    const double mean = std::accumulate(begin, begin + kBatch, 0.0) / kBatch;
    squares += mean * mean / static_cast<double>(num_batches);
  }
  quality.batch_spread = std::sqrt(squares * kBatch);
  return quality;
}

TEST(EpochOrder, CensusOfShuffleQuality) {
  std::cout << "block  window  correlation  expected  spread of batch means  expected\n";
  for (const auto& [block, window] :
       {std::pair{128, 1024}, {128, 8192}, {128, 65536}, {16, 8192}, {128, 1000000}}) {
    const Quality quality = quality_of(block, window);
    // Two cells of a window are from one block, and then alike, with probability (block - 1) / (window - 1).
    const double rho = window >= 999936 ? 0 : (block - 1.0) / (window - 1.0);
    const double spread = std::sqrt(1 + 255 * rho);
    std::cout << fmt::format("{:>5}{:>8}{:>13.4f}{:>10.4f}{:>23.2f}{:>10.2f}\n", block, window,
                             quality.neighbour_correlation, rho, quality.batch_spread, spread);
    // Means of 1,000,000 / window windows of window / block blocks: 6 standard errors of a variance estimated
    // so.
    const double error = 6 * (rho * std::sqrt(2.0 * window / 1e6) + 1e-3);
    EXPECT_NEAR(quality.neighbour_correlation, rho, error);
    EXPECT_NEAR(quality.batch_spread, spread,
                spread * 6 * (std::sqrt(0.5 * window / 1e6) * std::sqrt(rho) + 0.012));
  }
}

}  // namespace
}  // namespace scrna::data
