#include "lib/eval/classification.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "lib/eval/logistic_regression.h"
#include "lib/eval/neighbours.h"

namespace scrna::eval {
namespace {

/// Mean 0 and deviation 1 of the training cells; constant columns stay constant.
struct Standardisation {
  std::vector<double> mean, scale;

  explicit Standardisation(const CellMatrix& matrix) : mean(matrix.width), scale(matrix.width) {
    const double n = static_cast<double>(matrix.cells);
    for (int64_t i = 0; i < matrix.cells; ++i)
      for (int64_t j = 0; j < matrix.width; ++j) mean[j] += matrix.row(i)[j] / n;
    for (int64_t i = 0; i < matrix.cells; ++i)
      for (int64_t j = 0; j < matrix.width; ++j) scale[j] += (matrix.row(i)[j] - mean[j]) * (matrix.row(i)[j] - mean[j]) / n;
    for (double& value : scale) value = value > 0 ? 1 / std::sqrt(value) : 1;
  }
  void apply(CellMatrix& matrix) const {
    for (int64_t i = 0; i < matrix.cells; ++i)
      for (int64_t j = 0; j < matrix.width; ++j) matrix.row(i)[j] = (matrix.row(i)[j] - mean[j]) * scale[j];
  }
};

std::vector<int64_t> cells_of_fold(const std::vector<int32_t>& folds, int32_t fold, bool inside) {
  std::vector<int64_t> cells;
  for (std::size_t i = 0; i < folds.size(); ++i)
    if ((folds[i] == fold) == inside) cells.push_back(static_cast<int64_t>(i));
  return cells;
}

}  // namespace

Accuracy accuracy_of(const std::vector<int32_t>& predicted, const Labels& labels) {
  std::vector<double> right(labels.names.size()), said(labels.names.size());
  double all_right = 0;
  for (int64_t i = 0; i < labels.cells(); ++i) {
    ++said[predicted[i]];
    if (predicted[i] != labels.codes[i]) continue;
    ++right[labels.codes[i]];
    ++all_right;
  }
  const std::vector<int64_t> sizes = labels.sizes();
  double f1 = 0;
  for (std::size_t label = 0; label < sizes.size(); ++label)
    f1 += 2 * right[label] / (said[label] + static_cast<double>(sizes[label]));
  return {all_right / static_cast<double>(labels.cells()), f1 / static_cast<double>(sizes.size())};
}

std::vector<int32_t> stratified_folds(const Labels& labels, int32_t num_folds, uint64_t seed) {
  std::vector<std::vector<int64_t>> members(labels.names.size());
  for (int64_t i = 0; i < labels.cells(); ++i) members[labels.codes[i]].push_back(i);
  std::vector<int32_t> folds(labels.cells());
  int64_t dealt = 0;  // goes on over labels, so that folds have the same size
  for (std::size_t label = 0; label < members.size(); ++label) {
    std::vector<int64_t>& cells = members[label];
    if (static_cast<int64_t>(cells.size()) < num_folds)
      throw DataError("cross-validation in {} folds: the label '{}' has only {} cells; leave out rare labels with "
                      "--min-label-cells {}", num_folds, labels.names[label], cells.size(), num_folds);
    const RandomStream random(seed, RandomPurpose::kEvaluate, 1, label);
    for (std::size_t i = cells.size(); i > 1; --i) std::swap(cells[i - 1], cells[random.below(i, i)]);
    for (const int64_t cell : cells) folds[cell] = static_cast<int32_t>(dealt++ % num_folds);
  }
  return folds;
}

std::vector<int32_t> predict_by_neighbours(const CellMatrix& matrix, const Labels& labels,
                                           const std::vector<int32_t>& folds, int64_t num_neighbours) {
  const Neighbours neighbours = nearest_neighbours(matrix, num_neighbours, folds);
  std::vector<int32_t> predicted(matrix.cells);
  for (int64_t i = 0; i < matrix.cells; ++i) {
    std::vector<int32_t> votes(labels.names.size());
    for (int64_t j = 0; j < num_neighbours; ++j) ++votes[labels.codes[neighbours.indices[i * num_neighbours + j]]];
    predicted[i] = static_cast<int32_t>(std::max_element(votes.begin(), votes.end()) - votes.begin());
  }
  return predicted;
}

std::vector<int32_t> predict_by_linear_probe(const CellMatrix& matrix, const Labels& labels,
                                             const std::vector<int32_t>& folds) {
  const int32_t num_folds = *std::max_element(folds.begin(), folds.end()) + 1;
  std::vector<int32_t> predicted(matrix.cells);
  for (int32_t fold = 0; fold < num_folds; ++fold) {
    const std::vector<int64_t> training = cells_of_fold(folds, fold, false), test = cells_of_fold(folds, fold, true);
    CellMatrix train_matrix = rows_of(matrix, training), test_matrix = rows_of(matrix, test);
    const Standardisation standardisation(train_matrix);
    standardisation.apply(train_matrix);
    standardisation.apply(test_matrix);
    std::vector<int32_t> codes;
    for (const int64_t cell : training) codes.push_back(labels.codes[cell]);
    const LogisticRegression model = fit_logistic_regression(train_matrix, codes, labels.count(), 1.0);
    const CellMatrix scores = class_scores(model, test_matrix);
    for (std::size_t i = 0; i < test.size(); ++i) {
      const double* row = scores.row(static_cast<int64_t>(i));
      predicted[test[i]] = static_cast<int32_t>(std::max_element(row, row + scores.width) - row);
    }
  }
  return predicted;
}

}  // namespace scrna::eval
