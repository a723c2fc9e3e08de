// Are batches mixed where cells are near each other? Two scores of the neighbour graph, as scib-metrics has them; the
// third, the silhouette of batches within labels, comes with the others (silhouette.h). kBET is left out: its verdict
// depends on the sample size through a test whose null hypothesis no real data meet.
#pragma once

#include <vector>

#include "lib/eval/cell_matrix.h"
#include "lib/eval/neighbours.h"

namespace scrna::eval {

/// Inverse Simpson index of the labels around each cell (LISI, Korsunsky 2019): neighbours weighted by exp(-beta distance)
/// with beta such that their perplexity is `perplexity`. From 1 (one label) to the number of labels. [cells]
std::vector<double> local_inverse_simpson(const Neighbours& neighbours, const Labels& labels, double perplexity);

/// iLISI, scaled as scIB does: (median over cells - 1) / (batches - 1); perplexity a third of the neighbours, the cell
/// itself counted. 0: every cell is among its own batch; 1: perfect mixing. Agreement: scib_metrics.ilisi_knn.
double batch_lisi(const Neighbours& neighbours, const Labels& batches);

/// Mean over labels of the part of a label's cells in its largest strongly connected component of the directed graph of
/// neighbours within the label. 1: no label falls apart. Agreement: scib_metrics.graph_connectivity.
double graph_connectivity(const Neighbours& neighbours, const Labels& labels);

}  // namespace scrna::eval
