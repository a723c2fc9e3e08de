// All metrics of one embedding, in the spaces that the paper (arXiv 2604.27124, 4 and A.3) and scIB use:
//   - silhouettes, MMD and the linear probe on the embedding itself,
//   - neighbours (k = 15, the cell itself counted), Leiden, kNN accuracy, iLISI, graph connectivity and UMAP on its
//     principal components to 95 % of the variance.
// Nothing is sampled here: the caller chooses the cells. The one exception, cells per label of the MMD, is in the result.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/eval/cell_matrix.h"
#include "lib/eval/classification.h"
#include "lib/eval/leiden.h"
#include "lib/eval/masked_loss.h"
#include "lib/eval/separation.h"
#include "lib/eval/silhouette.h"

namespace scrna::eval {

struct EvaluationOptions {
  double pca_variance = 0.95;
  int64_t num_neighbours = 15;        // the cell itself counted, as scanpy's n_neighbors
  int64_t num_lisi_neighbours = 90;   // the same; fewer when there are fewer cells
  int32_t num_folds = 5;
  std::vector<double> resolutions = scib_resolutions();
  bool with_umap = true;
  double umap_min_dist = 0.5;
  SeparationOptions separation;
  uint64_t seed = 0;
};

struct BatchScores {
  double silhouette = 0;          // scIB's batch ASW, 1 is well mixed; NaN when no label has two batches
  double ilisi = 0;               // 0 ... 1
  double isolated_label = 0;
  std::vector<std::string> isolated_labels;
};

/// Of one embedding. Numbers that need labels are NaN after evaluate_unlabelled().
struct Evaluation {
  std::string name;
  std::string group;               // runs that differ in their seed alone share it (seed_groups.h); empty: none
  int64_t cells = 0, width = 0;
  int64_t components = 0;          // to pca_variance
  double silhouette = 0, silhouette_scaled = 0;
  std::vector<LeidenPoint> leiden;
  LeidenPoint best;                // the largest NMI of the sweep
  double bio_conservation = 0;     // mean of best NMI, best ARI and the scaled silhouette, the paper's aggregate
  Accuracy neighbours, probe;      // cross-validated
  double graph_connectivity = 0;
  std::vector<PairSeparation> separation;  // of all pairs of labels
  double mean_mmd = 0;             // over pairs
  std::optional<BatchScores> batch;
  std::optional<MaskedLoss> loss;  // of models; evaluate_embedding() leaves it empty
  CellMatrix umap;                 // [cells, 2], empty without
  std::vector<std::pair<std::string, double>> seconds;  // by part
};

/// Called before each part with its name ("silhouette", "neighbours" ...).
using PartBegins = std::function<void(std::string_view part)>;

/// Throws DataError where evaluate_embedding() (labels null: evaluate_unlabelled()) of so many cells would: a label with
/// fewer cells than folds, too few cells for the neighbours.
void require_enough_cells(int64_t cells, const Labels* labels, const EvaluationOptions& options);

/// `batches` may be null. Throws DataError: fewer than two labels, a label with fewer cells than folds, too few cells for the
/// neighbours, all cells the same.
Evaluation evaluate_embedding(const std::string& name, const CellMatrix& embedding, const Labels& labels,
                              const Labels* batches, const EvaluationOptions& options, const PartBegins& part_begins = {});

/// What can be said without labels: components, clusters of the Leiden sweep, iLISI, UMAP; everything else is NaN or
/// empty. Throws DataError: too few cells for the neighbours, all cells the same.
Evaluation evaluate_unlabelled(const std::string& name, const CellMatrix& embedding, const Labels* batches,
                               const EvaluationOptions& options, const PartBegins& part_begins = {});

/// Mean of the masked loss, NaN for embeddings that are no model's.
double masked_loss_of(const Evaluation& evaluation);

/// The rows of a table of results: names, units in words, and what to read of an Evaluation; NaN where it has none.
struct MetricRow {
  std::string name;         // "leiden_nmi": key of JSON and CSV
  std::string what;         // for people
  std::function<double(const Evaluation&)> value;
};
const std::vector<MetricRow>& metric_rows();

}  // namespace scrna::eval
