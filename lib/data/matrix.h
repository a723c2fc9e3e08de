// The matrices of an .h5ad file behind one interface (CountMatrix, anndata.h): CSR, CSC and dense. Internal
// to lib/data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lib/data/anndata.h"
#include "lib/data/hdf5.h"

namespace scrna::data {

/// Opens the matrix at `path` of `root`, known to users as `name`, and checks that it is num_cells x
/// num_genes. Throws DataError.
std::shared_ptr<const CountMatrix> open_matrix(const h5::Group& root, const std::string& path,
                                               const std::string& name, int64_t num_cells, int64_t num_genes);

}  // namespace scrna::data
