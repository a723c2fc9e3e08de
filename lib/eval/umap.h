// A picture of an embedding in two dimensions: UMAP (McInnes, Healy and Melville 2018) by umap-learn's schedule: epochs,
// sampling of edges by weight, five negative samples, clipped gradients. It starts from the first two principal
// components, not from the graph's spectrum: that is deterministic, keeps the large distances (Kobak and Linderman 2021)
// and needs no sparse eigensolver. Our own, 150 lines on the neighbour graph that Leiden needs anyway: the one C++
// implementation that can be had packaged, umappp, comes in a source archive of fifty header libraries without a wheel
// (assorthead on PyPI), with Eigen and irlba, for what is only looked at. Compared with umap-learn by what of the
// neighbourhood a picture keeps (tests/oracle/compare_eval.py). Serial, so that a seed is a picture.
#pragma once

#include <cstdint>

#include "lib/eval/cell_matrix.h"
#include "lib/eval/connectivities.h"

namespace scrna::eval {

struct UmapOptions {
  double min_dist = 0.5;  // as the paper's pictures
  double spread = 1;
  uint64_t seed = 0;
};

/// The curve 1 / (1 + a d^2b) nearest to 1 up to min_dist and exp(-(d - min_dist) / spread) beyond, over 300 distances up
/// to 3 spread: umap-learn's find_ab_params.
struct UmapCurve {
  double a = 0, b = 0;
};
UmapCurve umap_curve(double min_dist, double spread);

/// Places of the cells. components [cells, 1 or more]: principal components to start from. [cells, 2]
CellMatrix umap(const Graph& graph, const CellMatrix& components, const UmapOptions& options);

}  // namespace scrna::eval
