#include "lib/data/order.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/random.h"

namespace scrna::data {
namespace {

// Fisher-Yates with the draws of one stream: entry i is exchanged with one of 0..i.
void shuffle(std::vector<uint32_t>& items, const RandomStream& stream) {
  for (std::size_t i = items.size(); i-- > 1;) std::swap(items[i], items[stream.below(i + 1, i)]);
}

}  // namespace

EpochOrder::EpochOrder(std::span<const int32_t> block_sizes, int64_t window_cells, uint64_t seed,
                       int64_t epoch)
    : block_sizes_(block_sizes), seed_(seed), epoch_(epoch), blocks_(block_sizes.size()) {
  SCRNA_CHECK(!block_sizes.empty() && window_cells > 0, "{} blocks, windows of {} cells", block_sizes.size(),
              window_cells);
  std::iota(blocks_.begin(), blocks_.end(), uint32_t{0});
  shuffle(blocks_, RandomStream(seed, RandomPurpose::kShuffle, static_cast<uint64_t>(epoch), 0));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (window_begin_.empty() || num_cells_ - window_begin_.back() >= window_cells) {
      window_blocks_.push_back(static_cast<int64_t>(i));
      window_begin_.push_back(num_cells_);
    }
    const int32_t size = block_sizes[blocks_[i]];
    SCRNA_CHECK(size > 0, "block {} is empty", blocks_[i]);
    num_cells_ += size;
  }
  window_blocks_.push_back(static_cast<int64_t>(blocks_.size()));
  window_begin_.push_back(num_cells_);
}

int64_t EpochOrder::window_of(int64_t position) const {
  SCRNA_CHECK(position >= 0 && position < num_cells_, "position {} of {}", position, num_cells_);
  return std::upper_bound(window_begin_.begin(), window_begin_.end(), position) - window_begin_.begin() - 1;
}

std::span<const uint32_t> EpochOrder::window_blocks(int64_t window) const {
  const auto begin = static_cast<std::size_t>(window_blocks_[static_cast<std::size_t>(window)]);
  const auto end = static_cast<std::size_t>(window_blocks_[static_cast<std::size_t>(window) + 1]);
  return std::span(blocks_).subspan(begin, end - begin);
}

std::vector<uint32_t> EpochOrder::window_shuffle(int64_t window) const {
  std::vector<uint32_t> cells(static_cast<std::size_t>(window_begin(window + 1) - window_begin(window)));
  std::iota(cells.begin(), cells.end(), uint32_t{0});
  shuffle(cells, RandomStream(seed_, RandomPurpose::kShuffle, static_cast<uint64_t>(epoch_),
                              static_cast<uint64_t>(window) + 1));
  return cells;
}

OrderedCell EpochOrder::at(int64_t position) const {
  const int64_t window = window_of(position);
  int64_t cell = window_shuffle(window)[static_cast<std::size_t>(position - window_begin(window))];
  for (const uint32_t block : window_blocks(window)) {
    if (cell < block_sizes_[block]) return {.block = block, .cell_in_block = cell};
    cell -= block_sizes_[block];
  }
  throw InternalError("the window's blocks hold fewer cells than its shuffle");
}

}  // namespace scrna::data
