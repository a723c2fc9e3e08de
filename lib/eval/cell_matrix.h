// What every metric is computed from: a row of numbers for each cell, and a name for each cell. fp64 throughout: the
// metrics are compared with scikit-learn to 1e-5, and a matrix of differences of large numbers (distances by products)
// in fp32 is not good to that; fp64 products of 100,000 x 768 take half a minute on 16 cores.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace scrna::eval {

struct CellMatrix {
  int64_t cells = 0;
  int64_t width = 0;
  std::vector<double> values;  // [cells, width]

  CellMatrix() = default;
  CellMatrix(int64_t num_cells, int64_t num_columns)
      : cells(num_cells), width(num_columns), values(num_cells * num_columns) {}
  [[nodiscard]] const double* row(int64_t cell) const { return values.data() + cell * width; }
  [[nodiscard]] double* row(int64_t cell) { return values.data() + cell * width; }
};

/// One of a few names for each cell: a cell type, a batch, a cluster.
struct Labels {
  std::vector<int32_t> codes;      // [cells] into names, never negative
  std::vector<std::string> names;  // each is some cell's

  [[nodiscard]] int64_t cells() const { return static_cast<int64_t>(codes.size()); }
  [[nodiscard]] int32_t count() const { return static_cast<int32_t>(names.size()); }
  /// Cells of each name.
  [[nodiscard]] std::vector<int64_t> sizes() const;
};

/// Mean of each column. [width]
std::vector<double> column_means(const CellMatrix& matrix);
/// The rows of these cells, in this order.
CellMatrix rows_of(const CellMatrix& matrix, std::span<const int64_t> cells);
/// The labels of these cells; names that none of them has are dropped.
Labels labels_of(const Labels& labels, std::span<const int64_t> cells);
/// From codes, -1 meaning none, to labels of the cells that have one; `cells` becomes the list of those.
Labels labels_from_codes(std::span<const int32_t> codes, std::span<const std::string> names,
                         std::vector<int64_t>& cells);
/// Both labels at once: a name "a|b" for each pair that some cell has, in the order of a, then b.
Labels joint_labels(const Labels& a, const Labels& b);

}  // namespace scrna::eval
