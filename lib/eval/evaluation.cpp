#include "lib/eval/evaluation.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/eval/batch_mixing.h"
#include "lib/eval/connectivities.h"
#include "lib/eval/neighbours.h"
#include "lib/eval/principal_components.h"
#include "lib/eval/umap.h"

namespace scrna::eval {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// Runs a part, notes its seconds and tells who asked.
class Parts {
 public:
  Parts(Evaluation& out, const PartBegins& begins) : out_(out), begins_(begins) {}
  template <class Work>
  void operator()(const char* name, const Work& work) {
    if (begins_) begins_(name);
    const double start = now_seconds();
    work();
    out_.seconds.emplace_back(name, now_seconds() - start);
  }

 private:
  Evaluation& out_;
  const PartBegins& begins_;
};

double batch_value(const Evaluation& evaluation, double BatchScores::*member) {
  return evaluation.batch ? (*evaluation.batch).*member : kNone;
}

}  // namespace

void require_enough_cells(int64_t cells, const Labels* labels, const EvaluationOptions& options) {
  require_others(cells, options.num_neighbours - 1);
  if (labels != nullptr)
    require_others(cells, options.num_neighbours, stratified_folds(*labels, options.num_folds, options.seed));
}

Evaluation evaluate_embedding(const std::string& name, const CellMatrix& embedding, const Labels& labels,
                              const Labels* batches, const EvaluationOptions& options, const PartBegins& part_begins) {
  SCRNA_CHECK(embedding.cells == labels.cells(), "{} rows, {} labels", embedding.cells, labels.cells());
  Evaluation out;
  out.name = name;
  out.cells = embedding.cells;
  out.width = embedding.width;
  Parts part(out, part_begins);
  const std::vector<int32_t> folds = stratified_folds(labels, options.num_folds, options.seed);

  PrincipalComponents components;
  part("principal components", [&] { components = components_for_variance(embedding, options.pca_variance); });
  out.components = components.scores.width;

  part("silhouette", [&] {
    SilhouetteScores scores = silhouette_scores(embedding, labels, batches);
    out.silhouette = scores.label;
    out.silhouette_scaled = scores.label_scaled;
    if (batches != nullptr)
      out.batch = BatchScores{scores.batch, kNone, scores.isolated_label, std::move(scores.isolated_labels)};
  });

  const int64_t near = options.num_neighbours - 1;
  const int64_t lisi_near = std::min(options.num_lisi_neighbours, embedding.cells) - 1;
  Neighbours neighbours;
  part("neighbours", [&] {
    const Neighbours all = nearest_neighbours(components.scores, batches != nullptr ? std::max(near, lisi_near) : near);
    neighbours = first_neighbours(all, near);
    out.graph_connectivity = graph_connectivity(neighbours, labels);
    if (batches != nullptr) out.batch->ilisi = batch_lisi(first_neighbours(all, lisi_near), *batches);
  });
  part("kNN accuracy", [&] {
    out.neighbours = accuracy_of(predict_by_neighbours(components.scores, labels, folds, options.num_neighbours), labels);
  });
  part("linear probe", [&] { out.probe = accuracy_of(predict_by_linear_probe(embedding, labels, folds), labels); });

  Graph graph;
  part("Leiden", [&] {
    graph = connectivities(neighbours);
    out.leiden = leiden_sweep(graph, labels, options.resolutions, options.seed);
    out.best = best_point(out.leiden);
    out.bio_conservation = (out.best.nmi + out.best.ari + out.silhouette_scaled) / 3;
  });
  part("MMD", [&] {
    SeparationOptions separation = options.separation;
    separation.seed = options.seed;
    out.separation = separation_of_pairs(embedding, labels, separation);
    for (const PairSeparation& pair : out.separation) out.mean_mmd += pair.mmd / static_cast<double>(out.separation.size());
  });
  if (options.with_umap) {
    part("UMAP", [&] {
      out.umap = umap(graph, components.scores, {.min_dist = options.umap_min_dist, .seed = options.seed});
    });
  }
  return out;
}

Evaluation evaluate_unlabelled(const std::string& name, const CellMatrix& embedding, const Labels* batches,
                               const EvaluationOptions& options, const PartBegins& part_begins) {
  Evaluation out;
  out.name = name;
  out.cells = embedding.cells;
  out.width = embedding.width;
  out.silhouette = out.silhouette_scaled = out.bio_conservation = out.graph_connectivity = out.mean_mmd = kNone;
  out.best = {kNone, 0, kNone, kNone};
  out.neighbours = out.probe = {kNone, kNone};
  Parts part(out, part_begins);
  PrincipalComponents components;
  part("principal components", [&] { components = components_for_variance(embedding, options.pca_variance); });
  out.components = components.scores.width;
  const int64_t near = options.num_neighbours - 1;
  Neighbours neighbours;
  part("neighbours", [&] {
    const int64_t lisi_near = std::min(options.num_lisi_neighbours, embedding.cells) - 1;
    const Neighbours all = nearest_neighbours(components.scores, batches != nullptr ? std::max(near, lisi_near) : near);
    neighbours = first_neighbours(all, near);
    if (batches != nullptr) out.batch = BatchScores{kNone, batch_lisi(first_neighbours(all, lisi_near), *batches), kNone, {}};
  });
  Graph graph;
  part("Leiden", [&] {
    graph = connectivities(neighbours);
    out.leiden = leiden_sweep(graph, options.resolutions, options.seed);
  });
  if (options.with_umap) {
    part("UMAP", [&] {
      out.umap = umap(graph, components.scores, {.min_dist = options.umap_min_dist, .seed = options.seed});
    });
  }
  return out;
}

double masked_loss_of(const Evaluation& evaluation) { return evaluation.loss ? evaluation.loss->mean : kNone; }

const std::vector<MetricRow>& metric_rows() {
  using E = const Evaluation&;
  static const std::vector<MetricRow> rows = {
      {"silhouette_label", "silhouette of labels, scaled to 0 ... 1", [](E e) { return e.silhouette_scaled; }},
      {"leiden_nmi", "Leiden NMI, best of the sweep", [](E e) { return e.best.nmi; }},
      {"leiden_ari", "Leiden ARI, at that resolution", [](E e) { return e.best.ari; }},
      {"bio_conservation", "mean of these three", [](E e) { return e.bio_conservation; }},
      {"knn_accuracy", "kNN accuracy, cross-validated", [](E e) { return e.neighbours.accuracy; }},
      {"knn_macro_f1", "kNN macro F1", [](E e) { return e.neighbours.macro_f1; }},
      {"probe_accuracy", "linear probe accuracy", [](E e) { return e.probe.accuracy; }},
      {"probe_macro_f1", "linear probe macro F1", [](E e) { return e.probe.macro_f1; }},
      {"mean_mmd", "MMD of pairs of labels, mean", [](E e) { return e.mean_mmd; }},
      {"graph_connectivity", "graph connectivity of labels", [](E e) { return e.graph_connectivity; }},
      {"isolated_label", "isolated labels, silhouette", [](E e) { return batch_value(e, &BatchScores::isolated_label); }},
      {"batch_silhouette", "batches within labels (ASW), mixed", [](E e) { return batch_value(e, &BatchScores::silhouette); }},
      {"ilisi", "iLISI of batches, mixed", [](E e) { return batch_value(e, &BatchScores::ilisi); }},
  };
  return rows;
}

}  // namespace scrna::eval
