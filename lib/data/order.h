// The order of cells in an epoch, a pure function of (seed, epoch): blocks of neighbouring cells are
// permuted, consecutive blocks form windows, and the cells of a window are shuffled. Compressed files are
// thus read in blocks (random single rows cost 30 times as much), memory stays at one entry per block, and
// nothing needs saving to resume. Rejected: a permutation of single cells, and a shuffle buffer fed by a
// stream, whose content depends on everything before.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace scrna::data {

/// A cell as the order sees it.
struct OrderedCell {
  int64_t block = 0;          // index into block_sizes
  int64_t cell_in_block = 0;  // below block_sizes[block]
  bool operator==(const OrderedCell&) const = default;
};

class EpochOrder {
 public:
  /// block_sizes: cells of each block, each above 0. A window takes blocks until it has at least window_cells
  /// cells.
  EpochOrder(std::span<const int32_t> block_sizes, int64_t window_cells, uint64_t seed, int64_t epoch);

  [[nodiscard]] int64_t num_cells() const { return num_cells_; }
  [[nodiscard]] int64_t num_windows() const { return static_cast<int64_t>(window_blocks_.size()) - 1; }
  /// Window that holds position `position` of the epoch.
  [[nodiscard]] int64_t window_of(int64_t position) const;
  /// First position of a window; window num_windows() begins at num_cells().
  [[nodiscard]] int64_t window_begin(int64_t window) const {
    return window_begin_[static_cast<std::size_t>(window)];
  }
  /// Blocks of a window in reading order.
  [[nodiscard]] std::span<const uint32_t> window_blocks(int64_t window) const;
  /// For each position of the window, the index of its cell in the concatenation of the window's blocks.
  [[nodiscard]] std::vector<uint32_t> window_shuffle(int64_t window) const;
  /// Random access, for tests and tools: costs one window_shuffle().
  [[nodiscard]] OrderedCell at(int64_t position) const;

 private:
  std::span<const int32_t> block_sizes_;
  uint64_t seed_;
  int64_t epoch_;
  int64_t num_cells_ = 0;
  std::vector<uint32_t> blocks_;        // permuted
  std::vector<int64_t> window_blocks_;  // [windows + 1] first index into blocks_
  std::vector<int64_t> window_begin_;   // [windows + 1] first position
};

}  // namespace scrna::data
