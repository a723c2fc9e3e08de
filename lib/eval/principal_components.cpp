#include "lib/eval/principal_components.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "lib/core/error.h"
#include "lib/eval/dense.h"
#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

CellMatrix without_mean(const CellMatrix& matrix) {
  const std::vector<double> mean = column_means(matrix);
  CellMatrix out(matrix.cells, matrix.width);
  parallel_for(matrix.cells, [&](int64_t i) {
    for (int64_t j = 0; j < matrix.width; ++j) out.row(i)[j] = matrix.row(i)[j] - mean[j];
  });
  return out;
}

void fix_sign(double* loading, int64_t width) {
  const double* largest =
      std::max_element(loading, loading + width, [](double a, double b) { return std::abs(a) < std::abs(b); });
  if (*largest < 0) std::for_each(loading, loading + width, [](double& value) { value = -value; });
}

/// count: from all variance ratios to the number of components to keep.
PrincipalComponents components(const CellMatrix& matrix,
                               const std::function<int64_t(const std::vector<double>&)>& count) {
  if (matrix.cells < 2) throw DataError("principal components: {} cells; at least two are needed", matrix.cells);
  const CellMatrix x = without_mean(matrix);
  std::vector<double> covariance(x.width * x.width);
  product_tn(x.values.data(), x.values.data(), covariance.data(), x.width, x.width, x.cells);
  for (double& value : covariance) value /= static_cast<double>(x.cells - 1);
  Eigen eigen = symmetric_eigen(covariance, x.width);
  for (double& value : eigen.values) value = std::max(0.0, value);  // rounding
  const double total = std::accumulate(eigen.values.begin(), eigen.values.end(), 0.0);
  if (total <= 0) throw DataError("principal components: all {} cells have the same values", matrix.cells);
  std::vector<double> ratios;
  for (const double value : eigen.values) ratios.push_back(value / total);

  const int64_t kept = std::min({count(ratios), x.width, x.cells});
  PrincipalComponents out{CellMatrix(x.cells, kept), CellMatrix(kept, x.width), {}, {}};
  out.variances.assign(eigen.values.begin(), eigen.values.begin() + kept);
  out.variance_ratios.assign(ratios.begin(), ratios.begin() + kept);
  std::copy_n(eigen.vectors.data(), kept * x.width, out.loadings.values.data());
  for (int64_t i = 0; i < kept; ++i) fix_sign(out.loadings.row(i), x.width);
  product_nt(x.values.data(), out.loadings.values.data(), out.scores.values.data(), x.cells, kept, x.width);
  return out;
}

}  // namespace

PrincipalComponents components_for_variance(const CellMatrix& matrix, double part) {
  SCRNA_CHECK(part > 0 && part < 1, "part {}", part);
  return components(matrix, [part](const std::vector<double>& ratios) {
    double sum = 0;
    int64_t count = 0;
    for (const double ratio : ratios) {
      if (sum > part) break;
      sum += ratio;
      ++count;
    }
    return count;
  });
}

PrincipalComponents first_components(const CellMatrix& matrix, int64_t count) {
  return components(matrix, [count](const std::vector<double>&) { return count; });
}

}  // namespace scrna::eval
