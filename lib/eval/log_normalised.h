// The baseline without a model: principal components of log-normalised counts, as scanpy's standard preprocessing makes
// them: counts scaled to 10,000 per cell, log(1 + x), 2,000 genes of high dispersion (flavour "seurat"), 50 components,
// no scaling to unit variance. An embedding that does not separate cell types better has learned nothing that a
// minute of linear algebra does not give.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/data/anndata.h"
#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

struct LogNormalisedOptions {
  double counts_per_cell = 1e4;
  int64_t num_genes = 2000;
  int64_t num_components = 50;
  bool is_normalised = false;  // the matrix holds log-normalised values already
};

/// Scores of the first components for these cells (ascending numbers). Reads the matrix twice, in blocks; keeps the values
/// of the chosen genes. Throws DataError for values that are negative or not finite, and when all cells are the same.
CellMatrix log_normalised_components(const data::CountMatrix& matrix, std::span<const int64_t> cells,
                                     const LogNormalisedOptions& options = {});

/// The genes of largest normalised dispersion, ascending. means, variances [genes]: of counts scaled per cell, not
/// logarithms. Dispersion is log(variance / mean), compared within 20 bins of log(1 + mean) of equal width; genes without
/// counts are never chosen. Agreement: scanpy.pp.highly_variable_genes(flavor="seurat").
std::vector<int32_t> variable_genes(std::span<const double> means, std::span<const double> variances, int64_t count);

}  // namespace scrna::eval
