// Exact nearest neighbours by comparing all pairs (distances.h). 100,000 cells of 200 components are 4e12 operations,
// some ten seconds on 16 cores: an approximate index would be quicker and would make every metric on top depend on it.
#pragma once

#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

struct Neighbours {
  int64_t cells = 0;
  int64_t count = 0;              // of each cell, itself not among them
  std::vector<int32_t> indices;   // [cells, count] nearest first; of equally near ones the lower number first
  std::vector<double> distances;  // [cells, count] Euclidean
};

/// Throws DataError when a cell has fewer than `count` others outside its own group: what nearest_neighbours() needs.
void require_others(int64_t cells, int64_t count, const std::vector<int32_t>& apart = {});

/// The `count` nearest other cells of each cell. `apart` [cells] or empty: cells of the same group are passed over
/// (the folds of a cross-validation). Throws DataError when a cell has fewer than `count` others.
Neighbours nearest_neighbours(const CellMatrix& matrix, int64_t count, const std::vector<int32_t>& apart = {});

/// The nearest `count` of more.
Neighbours first_neighbours(const Neighbours& neighbours, int64_t count);

}  // namespace scrna::eval
