// How well clusters agree with labels: normalised mutual information and adjusted Rand index, as scIB reports them.
#pragma once

#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

/// Mutual information over the mean of the two entropies (arithmetic), 0 ... 1; 1 when both have one class. Agreement:
/// sklearn.metrics.normalized_mutual_info_score.
double normalised_mutual_information(const Labels& a, const Labels& b);
/// Hubert and Arabie 1985: 1 for equal partitions, 0 on average for random ones. Agreement:
/// sklearn.metrics.adjusted_rand_score.
double adjusted_rand_index(const Labels& a, const Labels& b);

}  // namespace scrna::eval
