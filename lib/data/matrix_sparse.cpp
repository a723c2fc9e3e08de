// Sparse matrices: what CSR and CSC share, and CSR, whose cells are read as they lie on disk, a block of
// cells at once, by hdf5_chunks.h where it can and by HDF5 where it cannot. The rejected alternative, a read
// per cell, costs 30 times as much on compressed files.
#include <algorithm>
#include <mutex>
#include <numeric>

#include "lib/data/hdf5_chunks.h"
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
      : MatrixBase(std::move(name), num_cells, num_genes),
        parts_(open_sparse(group, num_cells, num_genes)),
        data_chunks_(h5::ChunkReader::open(parts_.data)),
        indices_chunks_(h5::ChunkReader::open(parts_.indices)) {}
  MatrixLayout layout() const override { return MatrixLayout::kCsr; }
  int64_t stored_values() const override { return parts_.indptr.back(); }
  int64_t stored_entries(int64_t cell) const override {
    const auto at = static_cast<std::size_t>(cell);
    return parts_.indptr[at + 1] - parts_.indptr[at];
  }
  bool has_integer_type() const override { return parts_.data.number_kind() != h5::NumberKind::kFloat; }
  std::string type_name() const override { return parts_.data.type_name(); }

  CellBlock read(int64_t first_cell, int64_t count) const override {
    CellBlock block;
    read_into(first_cell, count, block);
    return block;
  }

  void read_into(int64_t first_cell, int64_t count, CellBlock& out) const override {
    check_range(first_cell, count);
    const auto first = static_cast<std::size_t>(first_cell), num_cells = static_cast<std::size_t>(count);
    const int64_t begin = parts_.indptr[first];
    const int64_t num_entries = parts_.indptr[first + num_cells] - begin;
    out.first_cell = first_cell;
    out.num_repeated = 0;
    out.genes.resize(static_cast<std::size_t>(num_entries));
    out.values.resize(static_cast<std::size_t>(num_entries));
    read_entries(static_cast<uint64_t>(begin), static_cast<uint64_t>(num_entries), out);
    check_indices(out.genes, num_entries, num_genes_, parts_.indices.where(), "genes");
    out.indptr.resize(num_cells + 1);
    for (std::size_t i = 0; i <= num_cells; ++i) out.indptr[i] = parts_.indptr[first + i] - begin;
    if (!is_clean(out)) clean(out);
  }

 private:
  void read_entries(uint64_t first, uint64_t count, CellBlock& out) const {
    if (indices_chunks_) {
      indices_chunks_->read(first, count, out.genes.data());
    } else {
      parts_.indices.read(first, count, out.genes.data());
    }
    if (data_chunks_) {
      data_chunks_->read(first, count, out.values.data());
    } else {
      parts_.data.read(first, count, out.values.data());
    }
  }

  // Nearly every file is: then the entries are the block, as they were read. Indices were checked, so that
  // their differences do not overflow; loops without branches, which the compiler turns into vector
  // instructions.
  static bool is_clean(const CellBlock& block) {
    uint32_t num_zeros = 0;
    for (const float value : block.values) num_zeros |= value == 0.0F ? 1U : 0U;
    int32_t signs = 0;  // negative when a gene does not come after the one before it
    for (std::size_t cell = 0; cell + 1 < block.indptr.size(); ++cell) {
      const auto end = static_cast<std::size_t>(block.indptr[cell + 1]);
      for (auto i = static_cast<std::size_t>(block.indptr[cell]) + 1; i < end; ++i)
        signs |= block.genes[i] - block.genes[i - 1] - 1;
    }
    return num_zeros == 0 && signs >= 0;
  }

  static void clean(CellBlock& block) {
    CellBlock cleaned{.first_cell = block.first_cell};
    CellCleaner cleaner;
    for (std::size_t cell = 0; cell + 1 < block.indptr.size(); ++cell) {
      const auto at = static_cast<std::size_t>(block.indptr[cell]);
      const auto end = static_cast<std::size_t>(block.indptr[cell + 1]);
      cleaner.append(cleaned, block.genes.data() + at, block.values.data() + at, end - at);
    }
    block = std::move(cleaned);
  }

  SparseParts parts_;
  std::unique_ptr<const h5::ChunkReader> data_chunks_, indices_chunks_;  // nullptr: HDF5 reads
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
  const auto num_indices = static_cast<std::size_t>(count);
  // First without a branch for each, then, if one is wrong, which. Shapes fit int32: they were checked
  // (matrix.cpp).
  const auto last = static_cast<uint32_t>(bound - 1);
  uint32_t signs = 0;
  for (std::size_t i = 0; i < num_indices; ++i)
    signs |= static_cast<uint32_t>(indices[i]) | (last - static_cast<uint32_t>(indices[i]));
  for (std::size_t i = 0; signs >> 31 != 0 && i < num_indices; ++i) {
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
