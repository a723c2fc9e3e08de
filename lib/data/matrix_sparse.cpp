// Sparse matrices: what CSR and CSC share, and CSR, whose cells are read as they lie on disk, one read of
// HDF5 per block of cells. The rejected alternative, a read per cell, costs 30 times as much on compressed
// files.
#include <algorithm>
#include <mutex>
#include <numeric>

#include "lib/data/matrix_layouts.h"

namespace scrna::data {
namespace {

// A line may hold an entry more than once, but not without limit: what a block of cells takes in memory
// must follow from its number of cells and genes, not from what a damaged file says.
constexpr int64_t kMaxRepeats = 4;
constexpr int64_t kFreeEntries = 4096;

std::vector<int64_t> read_indptr(const h5::Dataset& dataset, int64_t num_lines, int64_t line_length,
                                 int64_t num_entries) {
  if (dataset.shape().size() != 1 || static_cast<int64_t>(dataset.shape()[0]) != num_lines + 1) {
    throw DataError("{}: expected {} entries (one more than the lines of the matrix), got {}",
                    dataset.where(), num_lines + 1, dataset.num_elements());
  }
  if (dataset.number_kind() != h5::NumberKind::kInteger)
    throw DataError("{}: expected integers, got {}", dataset.where(), dataset.type_name());
  std::vector<int64_t> indptr = dataset.read_integers();
  if (indptr.front() != 0)
    throw DataError("{}: must begin with 0, begins with {}; the matrix is damaged", dataset.where(),
                    indptr.front());
  for (std::size_t i = 1; i < indptr.size(); ++i) {
    if (indptr[i] < indptr[i - 1]) {
      throw DataError("{}: must never fall, but entry {} is {} after {}; the matrix is damaged",
                      dataset.where(), i, indptr[i], indptr[i - 1]);
    }
    const int64_t length = indptr[i] - indptr[i - 1];
    if (length > kFreeEntries && length / kMaxRepeats > line_length) {
      throw DataError("{}: line {} of the matrix has {} entries, but there is room for {}; it is damaged",
                      dataset.where(), i - 1, length, line_length);
    }
  }
  if (indptr.back() != num_entries) {
    throw DataError("{}: ends with {}, but {} entries are stored; the matrix is damaged", dataset.where(),
                    indptr.back(), num_entries);
  }
  return indptr;
}

class CsrMatrix : public MatrixBase {
 public:
  CsrMatrix(const h5::Group& group, std::string name, int64_t num_cells, int64_t num_genes)
      : MatrixBase(std::move(name), num_cells, num_genes), parts_(open_sparse(group, num_cells, num_genes)) {}
  MatrixLayout layout() const override { return MatrixLayout::kCsr; }
  int64_t stored_values() const override { return parts_.indptr.back(); }
  bool has_integer_type() const override { return parts_.data.number_kind() != h5::NumberKind::kFloat; }
  std::string type_name() const override { return parts_.data.type_name(); }

  CellBlock read(int64_t first_cell, int64_t count) const override {
    check_range(first_cell, count);
    const int64_t begin = parts_.indptr[static_cast<std::size_t>(first_cell)];
    const int64_t num_entries = parts_.indptr[static_cast<std::size_t>(first_cell + count)] - begin;
    std::vector<int32_t> indices(static_cast<std::size_t>(num_entries));
    std::vector<float> values(static_cast<std::size_t>(num_entries));
    {
      const std::scoped_lock lock(h5::hdf5_mutex());
      parts_.indices.read(static_cast<uint64_t>(begin), static_cast<uint64_t>(num_entries), indices.data());
      parts_.data.read(static_cast<uint64_t>(begin), static_cast<uint64_t>(num_entries), values.data());
    }
    check_indices(indices, num_entries, num_genes_, parts_.indices.where(), "genes");
    CellBlock block{.first_cell = first_cell};
    block.indptr.reserve(static_cast<std::size_t>(count) + 1);
    block.genes.reserve(indices.size());
    block.values.reserve(indices.size());
    CellCleaner cleaner;
    for (int64_t cell = first_cell; cell < first_cell + count; ++cell) {
      const auto at = static_cast<std::size_t>(parts_.indptr[static_cast<std::size_t>(cell)] - begin);
      const auto end = static_cast<std::size_t>(parts_.indptr[static_cast<std::size_t>(cell) + 1] - begin);
      cleaner.append(block, indices.data() + at, values.data() + at, end - at);
    }
    return block;
  }

 private:
  SparseParts parts_;
};

}  // namespace

SparseParts open_sparse(const h5::Group& group, int64_t num_lines, int64_t line_length) {
  SparseParts parts{group.dataset("data"), group.dataset("indices"), {}};
  if (parts.data.number_kind() == h5::NumberKind::kNone)
    throw DataError("{}: expected numbers, got {}", parts.data.where(), parts.data.type_name());
  if (parts.indices.number_kind() != h5::NumberKind::kInteger)
    throw DataError("{}: expected integers, got {}", parts.indices.where(), parts.indices.type_name());
  if (parts.data.shape().size() != 1 || parts.indices.shape() != parts.data.shape()) {
    throw DataError("{}: has {} entries, but indices has {}; the matrix is damaged", parts.data.where(),
                    parts.data.num_elements(), parts.indices.num_elements());
  }
  parts.indptr = read_indptr(group.dataset("indptr"), num_lines, line_length,
                             static_cast<int64_t>(parts.data.num_elements()));
  return parts;
}

void check_indices(const std::vector<int32_t>& indices, int64_t count, int64_t bound,
                   const std::string& where, const char* what) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    if (indices[i] < 0 || indices[i] >= bound) {
      throw DataError("{}: index {} is outside 0..{} (there are {} {}); the matrix is damaged", where,
                      indices[i], bound - 1, bound, what);
    }
  }
}

void CellCleaner::append(CellBlock& block, const int32_t* genes, const float* values, std::size_t count) {
  bool is_clean = true;
  for (std::size_t i = 0; i < count; ++i)
    is_clean = is_clean && values[i] != 0.0F && (i == 0 || genes[i] > genes[i - 1]);
  if (is_clean) {
    block.genes.insert(block.genes.end(), genes, genes + count);
    block.values.insert(block.values.end(), values, values + count);
  } else {
    order_.resize(count);
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return genes[a] < genes[b]; });
    for (std::size_t position = 0; position < count;) {
      const int32_t gene = genes[order_[position]];
      float sum = 0;
      --block.num_repeated;
      for (; position < count && genes[order_[position]] == gene; ++position, ++block.num_repeated)
        sum += values[order_[position]];
      if (sum == 0.0F) continue;
      block.genes.push_back(gene);
      block.values.push_back(sum);
    }
  }
  block.indptr.push_back(static_cast<int64_t>(block.genes.size()));
}

std::shared_ptr<const CountMatrix> open_csr(const h5::Group& group, const std::string& name,
                                            int64_t num_cells, int64_t num_genes) {
  return std::make_shared<CsrMatrix>(group, name, num_cells, num_genes);
}

}  // namespace scrna::data
