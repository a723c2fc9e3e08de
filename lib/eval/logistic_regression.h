// Multinomial logistic regression with an L2 penalty: minimises C sum(cross-entropy) + |W|^2 / 2, the objective of
// sklearn.linear_model.LogisticRegression, whose minimum is unique up to the mean of the intercepts (fixed to 0). By
// L-BFGS with 10 pairs and a backtracking line search: strictly convex, so nothing better is needed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

struct LogisticRegression {
  CellMatrix weights;              // [classes, width]
  std::vector<double> intercepts;  // [classes] their mean is 0
  int64_t iterations = 0;
  bool has_converged = false;      // the largest entry of the gradient fell below the tolerance
};

/// codes [cells] from 0 to num_classes - 1. Stops when the largest entry of the gradient of the mean objective (divided by
/// C and cells) is below `tolerance`, or after max_iterations.
LogisticRegression fit_logistic_regression(const CellMatrix& matrix, std::span<const int32_t> codes,
                                           int32_t num_classes, double c, double tolerance = 1e-5,
                                           int64_t max_iterations = 1000);

/// Scores before the softmax. [cells, classes]
CellMatrix class_scores(const LogisticRegression& model, const CellMatrix& matrix);

}  // namespace scrna::eval
