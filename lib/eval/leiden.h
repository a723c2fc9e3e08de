// Clusters of a graph by the Leiden algorithm (Traag, Waltman and van Eck 2019) for modularity with a resolution: local
// moving by a queue, refinement within clusters, aggregation, until an iteration changes nothing. Our own, about 300 lines,
// because the libraries that have it do not fit: igraph, libleidenalg and what is built on them are under the GPL, which
// would become the licence of every binary of this program, and igraph brings GLPK, ARPACK and libxml2 for one function;
// NetworKit (MIT) has a parallel variant whose result depends on the threads. Compared with igraph over seeds
// (tests/oracle/compare_eval.py). Serial and deterministic: a sweep runs its resolutions in parallel instead.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/eval/cell_matrix.h"
#include "lib/eval/connectivities.h"

namespace scrna::eval {

/// Clusters, the largest first, named "0", "1" ...
Labels leiden_clusters(const Graph& graph, double resolution, uint64_t seed);

/// Sum over clusters of inside / 2m - resolution (degrees / 2m)^2.
double modularity(const Graph& graph, const Labels& clusters, double resolution);

struct LeidenPoint {
  double resolution = 0;
  int32_t clusters = 0;
  double nmi = 0, ari = 0;
};
/// Clusters at each resolution compared with the labels.
std::vector<LeidenPoint> leiden_sweep(const Graph& graph, const Labels& labels, const std::vector<double>& resolutions,
                                      uint64_t seed);
/// The same without labels: numbers of clusters, NMI and ARI are NaN.
std::vector<LeidenPoint> leiden_sweep(const Graph& graph, const std::vector<double>& resolutions, uint64_t seed);
/// 0.2, 0.4 ... 2.0: scIB's.
std::vector<double> scib_resolutions();
/// The point with the largest NMI, which scIB reports; the first of equals.
const LeidenPoint& best_point(const std::vector<LeidenPoint>& sweep);

}  // namespace scrna::eval
