// Which rank trains which cell of a step. A step lasts as long as its slowest rank, and cells differ by a
// factor of forty in length, so giving rank r every R-th cell leaves GPUs idle for a fifth to a third of the
// time (numbers: lib/dist/README.md). Instead: most expensive first, each to the rank with the least cost so
// far (LPT). What a cell costs must be known before it is read, on every rank alike: its stored entries, or
// its tokens where a cache knows them. Masks, dropout and loss belong to cells and the step, so who trains a
// cell changes roundings only. Rejected: equal numbers of cells per rank (a snake), which is worse by the
// longest cell; exchanging lengths after tokenizing, when the cells would have to travel.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/data/corpus.h"

namespace scrna::data {

/// Cells of steps on ranks, one step after another; a step may come in several pieces (of two windows), which
/// are shared out as they come.
class RankPlan {
 public:
  explicit RankPlan(int64_t num_ranks) : loads_(static_cast<std::size_t>(num_ranks)) {}

  /// The cells that follow belong to the next step.
  void begin_step();
  /// The rank of each of these cells, by their costs, each above 0. A pure function of the costs since
  /// begin_step(). Every rank has a cell once there were as many cells as ranks.
  std::vector<int32_t> assign(std::span<const int64_t> costs);
  /// Cost of each rank since begin_step().
  [[nodiscard]] const std::vector<int64_t>& loads() const { return loads_; }

 private:
  std::vector<int64_t> loads_;
};

/// What training on a cell costs: its tokens, and the square of its tokens times squared_weight (above 0, at
/// most 1; that of attention beside everything else). In whole numbers: the same on every machine.
int64_t cell_cost(int64_t tokens, double squared_weight);

/// Tokens of a training cell without reading it: exact from a cache, an upper bound from its stored entries,
/// 1 where neither is known (dense matrices; there the ranks get equal numbers of cells).
int64_t expected_tokens(const Corpus& corpus, int32_t source, int64_t row);

}  // namespace scrna::data
