// What can be read off an embedding: the label of held-out cells by a vote of their nearest neighbours and by a linear
// classifier, in a stratified cross-validation whose folds are a function of (seed, label, cell).
#pragma once

#include <cstdint>
#include <vector>

#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

struct Accuracy {
  double accuracy = 0;  // part of the cells that are predicted right
  double macro_f1 = 0;  // mean over labels of F1; a label that is never predicted right has 0
};
/// predicted [cells]: codes of the labels.
Accuracy accuracy_of(const std::vector<int32_t>& predicted, const Labels& labels);

/// A fold from 0 to num_folds - 1 for each cell; each label is spread evenly, to one cell. Throws DataError when a label
/// has fewer cells than there are folds, naming the label.
std::vector<int32_t> stratified_folds(const Labels& labels, int32_t num_folds, uint64_t seed);

/// Majority of the `num_neighbours` nearest cells of other folds; of equally frequent labels the first. Agreement:
/// sklearn.neighbors.KNeighborsClassifier on the same folds.
std::vector<int32_t> predict_by_neighbours(const CellMatrix& matrix, const Labels& labels,
                                           const std::vector<int32_t>& folds, int64_t num_neighbours);

/// Linear probe: multinomial logistic regression with an L2 penalty (logistic_regression.h) trained on the other folds,
/// columns standardised by their mean and deviation there.
std::vector<int32_t> predict_by_linear_probe(const CellMatrix& matrix, const Labels& labels,
                                             const std::vector<int32_t>& folds);

}  // namespace scrna::eval
