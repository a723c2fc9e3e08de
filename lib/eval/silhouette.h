// Silhouettes (Rousseeuw 1987) of labels, of isolated labels, and of batches within a label, from one pass over all
// distances: what they need is the sum of distances from each cell to each group of cells, where the groups
// are the pairs of label and batch that occur. Agreement:
// scikit-learn's silhouette_samples and, for the three scores,
// scib-metrics, whose scaling (s + 1) / 2 and 1 - |s| they have.
#pragma once

#include <string>
#include <vector>

#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

/// Sums of distances from each cell to the cells of each group.
struct GroupDistances {
  int32_t groups = 0;
  std::vector<double> sums;  // [cells, groups]
};
/// groups [cells]: one pass over all pairs.
GroupDistances group_distances(const CellMatrix& matrix, const Labels& groups);

struct SilhouetteScores {
  double label = 0;         // mean over cells, -1 ... 1
  double label_scaled = 0;  // (label + 1) / 2
  std::vector<double> samples;  // [cells]
  /// With batches: mean over labels of the mean over its cells of 1 - |silhouette of the batch within the label|; labels
  /// of one batch, or with a batch for each cell, are left out. 1 is well mixed. NaN when none remains.
  double batch = 0;
  /// Isolated labels are those that occur in the fewest batches: the mean over them of the mean scaled silhouette of their
  /// cells. When all labels occur in all batches, that is every label.
  double isolated_label = 0;
  std::vector<std::string> isolated_labels;
};
/// `batches` may be null: then batch and isolated_label are NaN. A label of one cell has the silhouette 0, as in
/// scikit-learn. Throws DataError with fewer than two labels.
SilhouetteScores silhouette_scores(const CellMatrix& matrix, const Labels& labels, const Labels* batches);

}  // namespace scrna::eval
