// Every metric of lib/eval on one embedding, as JSON, for compare_eval.py: eval_dump FOLDER, where FOLDER holds shape.txt
// (cells, width), matrix.f64, labels.i32 and batches.i32 (codes that all occur). Writes FOLDER/result.json.
#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "lib/eval/batch_mixing.h"
#include "lib/eval/classification.h"
#include "lib/eval/clustering_agreement.h"
#include "lib/eval/leiden.h"
#include "lib/eval/logistic_regression.h"
#include "lib/eval/principal_components.h"
#include "lib/eval/separation.h"
#include "lib/eval/silhouette.h"
#include "lib/eval/umap.h"

namespace {

using namespace scrna::eval;
using nlohmann::json;

template <class T>
std::vector<T> read_binary(const std::string& path) {
  const std::string bytes = scrna::read_file(path);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(values.data()));
  return values;
}

Labels read_labels(const std::string& path) {
  Labels labels;
  labels.codes = read_binary<int32_t>(path);
  for (const int32_t code : labels.codes)
    while (code >= labels.count()) labels.names.push_back(std::to_string(labels.count()));
  return labels;
}

json edges_of(const Graph& graph) {
  json edges = json::array();
  for (int64_t v = 0; v < graph.nodes(); ++v)
    for (int64_t e = graph.starts[v]; e < graph.starts[v + 1]; ++e) edges.push_back({v, graph.targets[e], graph.weights[e]});
  return edges;
}

json leiden_of(const Graph& graph, const Labels& labels) {
  json runs = json::array();
  for (const double resolution : {0.4, 1.0, 1.6}) {
    for (uint64_t seed = 0; seed < 8; ++seed) {
      const Labels clusters = leiden_clusters(graph, resolution, seed);
      runs.push_back({{"resolution", resolution}, {"seed", seed}, {"clusters", clusters.count()},
                      {"quality", modularity(graph, clusters, resolution)},
                      {"nmi", normalised_mutual_information(clusters, labels)},
                      {"ari", adjusted_rand_index(clusters, labels)}, {"codes", clusters.codes}});
    }
  }
  return runs;
}

json result_of(const CellMatrix& matrix, const Labels& labels, const Labels& batches) {
  json out;
  const PrincipalComponents components = components_for_variance(matrix, 0.95);
  out["pca"] = {{"scores", components.scores.values}, {"kept", components.scores.width},
                {"ratios", components.variance_ratios}};
  const Neighbours neighbours = nearest_neighbours(matrix, 14);
  out["neighbours"] = {{"indices", neighbours.indices}, {"distances", neighbours.distances}};
  const SilhouetteScores scores = silhouette_scores(matrix, labels, &batches);
  out["silhouette"] = {{"label", scores.label}, {"scaled", scores.label_scaled}, {"samples", scores.samples},
                       {"batch", scores.batch}, {"isolated", scores.isolated_label}};
  out["agreement"] = {{"nmi", normalised_mutual_information(labels, batches)}, {"ari", adjusted_rand_index(labels, batches)}};
  out["ilisi"] = batch_lisi(nearest_neighbours(matrix, 89), batches);
  out["graph_connectivity"] = graph_connectivity(neighbours, labels);

  const std::vector<int32_t> folds = stratified_folds(labels, 5, 7);
  out["folds"] = folds;
  const std::vector<int32_t> by_neighbours = predict_by_neighbours(matrix, labels, folds, 15);
  const std::vector<int32_t> by_probe = predict_by_linear_probe(matrix, labels, folds);
  out["knn"] = {{"predicted", by_neighbours}, {"accuracy", accuracy_of(by_neighbours, labels).accuracy},
                {"macro_f1", accuracy_of(by_neighbours, labels).macro_f1}};
  out["probe"] = {{"predicted", by_probe}, {"accuracy", accuracy_of(by_probe, labels).accuracy},
                  {"macro_f1", accuracy_of(by_probe, labels).macro_f1}};
  const LogisticRegression model = fit_logistic_regression(matrix, labels.codes, labels.count(), 1.0, 1e-8);
  out["regression"] = {{"weights", model.weights.values}, {"intercepts", model.intercepts},
                       {"iterations", model.iterations}, {"has_converged", model.has_converged}};
  json pairs = json::array();
  for (const PairSeparation& pair : separation_of_pairs(matrix, labels, {.num_resamples = 1000, .seed = 3}))
    pairs.push_back({{"first", pair.first}, {"second", pair.second}, {"bandwidth", pair.bandwidth},
                     {"mmd_squared", pair.mmd_squared}, {"mmd", pair.mmd}, {"low", pair.mmd_low},
                     {"high", pair.mmd_high}, {"deviation", pair.mmd_deviation}});
  out["mmd"] = pairs;
  const Graph graph = connectivities(neighbours);
  out["edges"] = edges_of(graph);
  out["leiden"] = leiden_of(graph, labels);
  json pictures = json::array();
  for (uint64_t seed = 0; seed < 2; ++seed) pictures.push_back(umap(graph, components.scores, {.seed = seed}).values);
  const UmapCurve curve = umap_curve(0.5, 1);
  out["umap"] = {{"a", curve.a}, {"b", curve.b}, {"places", pictures}};
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: eval_dump FOLDER\n";
    return 2;
  }
  const std::string folder = argv[1];
  std::ifstream shape(folder + "/shape.txt");
  CellMatrix matrix;
  shape >> matrix.cells >> matrix.width;
  matrix.values = read_binary<double>(folder + "/matrix.f64");
  const json result = result_of(matrix, read_labels(folder + "/labels.i32"), read_labels(folder + "/batches.i32"));
  scrna::write_file_atomically(folder + "/result.json", result.dump());
  return 0;
}
