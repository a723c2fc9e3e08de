// What the three layouts of a matrix share, and how each is opened. Internal to lib/data; matrix.h chooses.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/core/error.h"
#include "lib/data/anndata.h"
#include "lib/data/hdf5.h"

namespace scrna::data {

std::shared_ptr<const CountMatrix> open_csr(const h5::Group& group, const std::string& name,
                                            int64_t num_cells, int64_t num_genes);
std::shared_ptr<const CountMatrix> open_csc(const h5::Group& group, const std::string& name,
                                            int64_t num_cells, int64_t num_genes);
std::shared_ptr<const CountMatrix> open_dense(h5::Dataset dataset, const std::string& name, int64_t num_cells,
                                              int64_t num_genes);

class MatrixBase : public CountMatrix {
 public:
  MatrixBase(std::string name, int64_t num_cells, int64_t num_genes)
      : name_(std::move(name)), num_cells_(num_cells), num_genes_(num_genes) {}
  const std::string& name() const override { return name_; }
  int64_t num_cells() const override { return num_cells_; }
  int64_t num_genes() const override { return num_genes_; }

 protected:
  void check_range(int64_t first, int64_t count) const {
    SCRNA_CHECK(first >= 0 && count >= 0 && count <= num_cells_ - first, "cells {} + {} of {}", first, count,
                num_cells_);
  }
  std::string name_;
  int64_t num_cells_, num_genes_;
};

/// The members of a sparse matrix, opened and checked: indptr begins at 0, never falls, ends at the number of
/// entries and gives no line more than a few times its length; data and indices are numbers and equally many.
struct SparseParts {
  h5::Dataset data, indices;
  std::vector<int64_t> indptr;  // [lines + 1]
};
/// num_lines, line_length: cells and genes of a CSR matrix, genes and cells of a CSC matrix. Throws
/// DataError.
SparseParts open_sparse(const h5::Group& group, int64_t num_lines, int64_t line_length);

/// Throws DataError unless the first `count` indices lie in [0, bound). `what`: "genes" or "cells".
void check_indices(const std::vector<int32_t>& indices, int64_t count, int64_t bound,
                   const std::string& where, const char* what);

/// Appends cells to a block, each with its entries sorted by gene, duplicates summed and zeros dropped. Most
/// files need none of it.
class CellCleaner {
 public:
  void append(CellBlock& block, const int32_t* genes, const float* values, std::size_t count);

 private:
  std::vector<std::size_t> order_;
};

}  // namespace scrna::data
