// The weighted graph of neighbours that Leiden and UMAP stand on: UMAP's fuzzy union (McInnes, Healy and Melville 2018),
// as scanpy's and scib-metrics' `connectivities`.
#pragma once

#include <vector>

#include "lib/eval/neighbours.h"

namespace scrna::eval {

/// An undirected weighted graph, each edge in the lists of both ends, neighbours ascending, no loops.
struct Graph {
  std::vector<int64_t> starts{0};  // [nodes + 1]
  std::vector<int32_t> targets;    // [starts.back()]
  std::vector<double> weights;     // [starts.back()] above 0
  [[nodiscard]] int64_t nodes() const { return static_cast<int64_t>(starts.size()) - 1; }
};

/// Weights exp(-(d - rho) / sigma), rho the distance to the nearest neighbour that is not at 0, sigma such that they sum to
/// log2(neighbours + 1) (the cell itself counted, as umap-learn's n_neighbors does); then a + b - a b of both directions.
/// Agreement: umap.umap_.fuzzy_simplicial_set.
Graph connectivities(const Neighbours& neighbours);

}  // namespace scrna::eval
