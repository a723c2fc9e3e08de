#include "lib/eval/distances.h"

#include <algorithm>

#include "lib/eval/dense.h"
#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

constexpr int64_t kBlockValues = int64_t{1} << 24;  // 128 MB
constexpr int64_t kMaxBlockRows = 1024;

CellMatrix centred(const CellMatrix& matrix) {
  const std::vector<double> mean = column_means(matrix);
  CellMatrix out(matrix.cells, matrix.width);
  parallel_for(matrix.cells, [&](int64_t i) {
    for (int64_t j = 0; j < matrix.width; ++j) out.row(i)[j] = matrix.row(i)[j] - mean[j];
  });
  return out;
}

}  // namespace

void for_each_distance_block(const CellMatrix& matrix, const DistanceBlock& visit) {
  if (matrix.cells == 0) return;
  const CellMatrix x = centred(matrix);
  const int64_t n = x.cells;
  std::vector<double> squares(n);
  parallel_for(n, [&](int64_t i) {
    double sum = 0;
    for (int64_t j = 0; j < x.width; ++j) sum += x.row(i)[j] * x.row(i)[j];
    squares[i] = sum;
  });
  const int64_t block_rows = std::min({n, kMaxBlockRows, std::max<int64_t>(16, kBlockValues / n)});
  std::vector<double> block(block_rows * n);
  for (int64_t first = 0; first < n; first += block_rows) {
    const int64_t count = std::min(block_rows, n - first);
    product_nt(x.row(first), x.values.data(), block.data(), count, n, x.width);
    parallel_for(count, [&](int64_t r) {
      double* row = block.data() + r * n;
      const double square = squares[first + r];
      for (int64_t j = 0; j < n; ++j) row[j] = std::max(0.0, square + squares[j] - 2 * row[j]);
      row[first + r] = 0;
    });
    visit(first, count, block.data());
  }
}

}  // namespace scrna::eval
