// Dense matrices, read in pieces of whole rows of bounded size; zeros are dropped. The chunk cache of the
// data set (hdf5_dataset.cpp) makes pieces that share chunks cheap.
#include <algorithm>
#include <vector>

#include "lib/data/matrix_layouts.h"

namespace scrna::data {
namespace {

constexpr int64_t kPieceBytes = int64_t{32} << 20;

class DenseMatrix : public MatrixBase {
 public:
  DenseMatrix(h5::Dataset dataset, std::string name, int64_t num_cells, int64_t num_genes)
      : MatrixBase(std::move(name), num_cells, num_genes), dataset_(std::move(dataset)) {
    if (dataset_.number_kind() == h5::NumberKind::kNone)
      throw DataError("{}: expected numbers, got {}", dataset_.where(), dataset_.type_name());
  }
  MatrixLayout layout() const override { return MatrixLayout::kDense; }
  int64_t stored_values() const override { return num_cells_ * num_genes_; }
  bool has_integer_type() const override { return dataset_.number_kind() != h5::NumberKind::kFloat; }
  std::string type_name() const override { return dataset_.type_name(); }

  CellBlock read(int64_t first_cell, int64_t count) const override {
    check_range(first_cell, count);
    CellBlock block{.first_cell = first_cell};
    const int64_t row_bytes = std::max<int64_t>(1, num_genes_) * static_cast<int64_t>(sizeof(float));
    const int64_t rows_per_piece = std::max<int64_t>(1, kPieceBytes / row_bytes);
    std::vector<float> rows;
    for (int64_t first = first_cell; first < first_cell + count; first += rows_per_piece) {
      const int64_t num_rows = std::min(rows_per_piece, first_cell + count - first);
      rows.resize(static_cast<std::size_t>(num_rows * num_genes_));
      dataset_.read_rows(static_cast<uint64_t>(first), static_cast<uint64_t>(num_rows), rows.data());
      for (int64_t row = 0; row < num_rows; ++row) append(block, rows.data() + row * num_genes_);
    }
    return block;
  }

 private:
  void append(CellBlock& block, const float* values) const {
    for (int64_t gene = 0; gene < num_genes_; ++gene) {
      if (values[gene] == 0.0F) continue;
      block.genes.push_back(static_cast<int32_t>(gene));
      block.values.push_back(values[gene]);
    }
    block.indptr.push_back(static_cast<int64_t>(block.genes.size()));
  }

  h5::Dataset dataset_;
};

}  // namespace

std::shared_ptr<const CountMatrix> open_dense(h5::Dataset dataset, const std::string& name, int64_t num_cells,
                                              int64_t num_genes) {
  return std::make_shared<DenseMatrix>(std::move(dataset), name, num_cells, num_genes);
}

}  // namespace scrna::data
