// 10x Genomics .h5 files, read as if they were AnnData: barcodes are cells, features are genes. Cell Ranger 3
// and later has one group `matrix` with a table of features; Cell Ranger 2 and earlier one group per genome.
// Both store the matrix barcode by barcode, which is CSR with cells as rows. What is kept follows
// scanpy.read_10x_h5: "Gene Expression" features only (the log says what was left out), of the genome that
// was asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/data/anndata.h"
#include "lib/data/hdf5.h"
#include "lib/data/table.h"

namespace scrna::data {

struct TenxFile {
  std::string format;  // "10x Genomics .h5 (Cell Ranger 3 or later)", for reports
  h5::Group group;     // holds the matrix
  Table obs;           // index: barcodes
  Table var;  // of all features. Index: names; columns gene_ids, feature_types, genome ... as scanpy has them
  std::vector<int64_t> kept;  // features that are genes of the wanted genome; empty: all of them
};

/// nullopt when the file is no 10x .h5. `genome` "": all genomes of a file of Cell Ranger 3; of older ones,
/// the only genome. Throws DataError when there are several (naming them), when there is none of that name,
/// and for damage.
std::optional<TenxFile> open_tenx(const h5::Group& root, const std::string& genome);

/// The cells of the file. Its genes are the kept features.
std::shared_ptr<const CountMatrix> open_tenx_matrix(const TenxFile& file, const std::string& name);

}  // namespace scrna::data
