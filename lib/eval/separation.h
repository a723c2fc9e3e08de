// Separation of cell types: maximum mean discrepancy (Gretton et al. 2012) of every pair of labels, with an RBF kernel
// exp(-|x - y|^2 / (2 s^2)) whose bandwidth s is the median distance between the cells of the two labels together (the
// median heuristic, per pair), and bootstrap intervals. MMD^2 = E k(x,x') - 2 E k(x,y) + E k(y,y') with means over all
// pairs of cells, a cell with itself included (the V-statistic: never negative, as the paper's formula reads). The kernel
// matrix of a pair is computed once; a resample is a weight for each cell, and all of them are one product.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

struct SeparationOptions {
  int64_t num_resamples = 1000;
  int64_t max_label_cells = 2000;  // of each label; more are subsampled, and PairSeparation says so
  uint64_t seed = 0;
};

struct PairSeparation {
  int32_t first = 0, second = 0;  // labels
  int64_t first_cells = 0, second_cells = 0;  // cells used
  double bandwidth = 0;           // s
  double mmd_squared = 0;
  double mmd = 0;                 // its root
  /// Of mmd over bootstrap resamples of the cells of both labels: 2.5 and 97.5 % quantiles. Resampling with replacement
  /// biases the V-statistic upwards by about 1/n: the interval shows spread, and need not be centred on mmd.
  double mmd_low = 0, mmd_high = 0;
  double mmd_deviation = 0;       // standard deviation over the resamples
};

/// All pairs of labels, first < second. A pair whose cells all coincide has bandwidth and mmd 0. Deterministic by seed,
/// whatever the number of threads.
std::vector<PairSeparation> separation_of_pairs(const CellMatrix& matrix, const Labels& labels,
                                                const SeparationOptions& options);

}  // namespace scrna::eval
