// Principal components by the eigenvectors of the covariance (width x width), exact: 768 columns take a second. The sign
// of a component, which nothing else fixes, makes its largest loading positive, as scikit-learn does since 1.5.
#pragma once

#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

struct PrincipalComponents {
  CellMatrix scores;                    // [cells, kept]
  CellMatrix loadings;                  // [kept, width] of length 1
  std::vector<double> variances;        // [kept] descending, over n - 1
  std::vector<double> variance_ratios;  // [kept] parts of the total variance
};

/// The fewest components that together hold more than `part` of the variance (0 < part < 1): PCA(n_components=part) of
/// scikit-learn. Throws DataError for fewer than two cells and when all cells are the same.
PrincipalComponents components_for_variance(const CellMatrix& matrix, double part);

/// The first `count` components (as many as there are, when fewer).
PrincipalComponents first_components(const CellMatrix& matrix, int64_t count);

}  // namespace scrna::eval
