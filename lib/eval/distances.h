// Squared Euclidean distances of all pairs of cells, a block of rows at a time: |x|^2 + |y|^2 - 2 x.y with the product
// by dense.h, on rows moved to their mean, where the cancellation is smallest. Rejected: the whole matrix (80 GB for
// 100,000 cells).
#pragma once

#include <functional>

#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

/// Rows [first, first + count) against all cells: squared [count, cells], never negative, 0 on the diagonal.
using DistanceBlock = std::function<void(int64_t first, int64_t count, double* squared)>;

/// Calls visit for all blocks of rows in order; visit may change the block, which is used again.
void for_each_distance_block(const CellMatrix& matrix, const DistanceBlock& visit);

}  // namespace scrna::eval
