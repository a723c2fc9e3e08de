// CSR rows are read as they lie on disk. A CSC matrix is turned into CSR once, on first use, in an unlinked
// temporary file (TMPDIR) that is mapped into memory: what stays resident is the page cache's business, so
// memory stays bounded; the rejected alternative, one pass over the file per block of cells, costs (cells /
// block) passes. Dense rows are read in pieces. All three check indptr and every index before use.
#include "lib/data/matrix.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/core/error.h"
#include "lib/core/log.h"

namespace scrna::data {
namespace {

constexpr int64_t kDenseRowsPerRead = 128;
constexpr int64_t kEntriesPerRead = 1 << 20;

// indptr of a sparse matrix, read whole and checked: begins at 0, never falls, ends at the number of stored
// entries.
std::vector<int64_t> read_indptr(const h5::Dataset& dataset, int64_t num_lines, int64_t num_entries) {
  if (dataset.shape().size() != 1 || static_cast<int64_t>(dataset.shape()[0]) != num_lines + 1) {
    throw DataError("{}: expected {} entries (one more than the lines of the matrix), got {}",
                    dataset.where(), num_lines + 1, dataset.num_elements());
  }
  if (dataset.number_kind() != h5::NumberKind::kInteger)
    throw DataError("{}: expected integers, got {}", dataset.where(), dataset.type_name());
  std::vector<int64_t> indptr = dataset.read_integers();
  if (indptr.front() != 0)
    throw DataError("{}: must begin with 0, begins with {}", dataset.where(), indptr.front());
  for (std::size_t i = 1; i < indptr.size(); ++i) {
    if (indptr[i] < indptr[i - 1]) {
      throw DataError("{}: must never fall, but entry {} is {} after {}; the matrix is damaged",
                      dataset.where(), i, indptr[i], indptr[i - 1]);
    }
  }
  if (indptr.back() != num_entries) {
    throw DataError("{}: ends with {}, but {} entries are stored; the matrix is damaged", dataset.where(),
                    indptr.back(), num_entries);
  }
  return indptr;
}

// Sorts the entries of one cell by gene, adds up duplicates and drops zeros. Most files need none of it.
class CellCleaner {
 public:
  void append(CellBlock& block, const int32_t* genes, const float* values, std::size_t count) {
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
        for (; position < count && genes[order_[position]] == gene; ++position)
          sum += values[order_[position]];
        if (sum == 0.0F) continue;
        block.genes.push_back(gene);
        block.values.push_back(sum);
      }
    }
    block.indptr.push_back(static_cast<int64_t>(block.genes.size()));
  }

 private:
  std::vector<std::size_t> order_;
};

void check_indices(const int32_t* indices, int64_t count, int64_t bound, const std::string& where,
                   const char* what) {
  for (int64_t i = 0; i < count; ++i) {
    if (indices[i] < 0 || indices[i] >= bound) {
      throw DataError("{}: index {} is outside 0..{} (the number of {}); the matrix is damaged", where,
                      indices[i], bound - 1, what);
    }
  }
}

struct SparseParts {
  h5::Dataset data, indices;
  std::vector<int64_t> indptr;
};

SparseParts open_sparse(const h5::Group& group, int64_t num_lines) {
  SparseParts parts{group.dataset("data"), group.dataset("indices"), {}};
  const int64_t num_entries = static_cast<int64_t>(parts.data.num_elements());
  if (parts.data.number_kind() == h5::NumberKind::kNone) {
    throw DataError("{}: expected numbers, got {}", parts.data.where(), parts.data.type_name());
  }
  if (parts.indices.number_kind() != h5::NumberKind::kInteger) {
    throw DataError("{}: expected integers, got {}", parts.indices.where(), parts.indices.type_name());
  }
  if (parts.data.shape().size() != 1 || parts.indices.shape() != parts.data.shape()) {
    throw DataError("{}: has {} entries, but indices has {}; the matrix is damaged", parts.data.where(),
                    num_entries, parts.indices.num_elements());
  }
  parts.indptr = read_indptr(group.dataset("indptr"), num_lines, num_entries);
  return parts;
}

class MatrixBase : public CountMatrix {
 public:
  MatrixBase(std::string name, int64_t num_cells, int64_t num_genes)
      : name_(std::move(name)), num_cells_(num_cells), num_genes_(num_genes) {}
  const std::string& name() const override { return name_; }
  int64_t num_cells() const override { return num_cells_; }
  int64_t num_genes() const override { return num_genes_; }

 protected:
  void check_range(int64_t first, int64_t count) const {
    SCRNA_CHECK(first >= 0 && count >= 0 && first + count <= num_cells_, "cells {} + {} of {}", first, count,
                num_cells_);
  }
  std::string name_;
  int64_t num_cells_, num_genes_;
};

class CsrMatrix : public MatrixBase {
 public:
  CsrMatrix(const h5::Group& group, std::string name, int64_t num_cells, int64_t num_genes)
      : MatrixBase(std::move(name), num_cells, num_genes), parts_(open_sparse(group, num_cells)) {}
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
    check_indices(indices.data(), num_entries, num_genes_, parts_.indices.where(), "genes");
    CellBlock block{.first_cell = first_cell};
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

// An unlinked file of fixed size mapped into memory.
class MappedScratch {
 public:
  explicit MappedScratch(std::size_t num_bytes) : num_bytes_(std::max<std::size_t>(num_bytes, 1)) {
    const char* folder = std::getenv("TMPDIR");
    std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/scrna-csc-XXXXXX";
    const int descriptor = ::mkstemp(path.data());
    if (descriptor < 0)
      throw DataError("{}: cannot create a temporary file: {}; set TMPDIR to a folder with space", path,
                      std::strerror(errno));
    ::unlink(path.c_str());
    const int problem = ::posix_fallocate(descriptor, 0, static_cast<off_t>(num_bytes_));
    void* address = problem == 0
                        ? ::mmap(nullptr, num_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
                        : MAP_FAILED;
    ::close(descriptor);
    if (address == MAP_FAILED) {
      throw DataError(
          "{}: cannot take {} MB of temporary space to transpose a CSC matrix: {}; set TMPDIR to a folder "
          "with space, or "
          "store the matrix as CSR",
          path, num_bytes_ >> 20, std::strerror(problem != 0 ? problem : errno));
    }
    address_ = static_cast<char*>(address);
  }
  ~MappedScratch() { ::munmap(address_, num_bytes_); }
  MappedScratch(const MappedScratch&) = delete;
  MappedScratch& operator=(const MappedScratch&) = delete;
  [[nodiscard]] char* data() const { return address_; }

 private:
  std::size_t num_bytes_;
  char* address_ = nullptr;
};

class CscMatrix : public MatrixBase {
 public:
  CscMatrix(const h5::Group& group, std::string name, int64_t num_cells, int64_t num_genes)
      : MatrixBase(std::move(name), num_cells, num_genes), parts_(open_sparse(group, num_genes)) {}
  MatrixLayout layout() const override { return MatrixLayout::kCsc; }
  int64_t stored_values() const override { return parts_.indptr.back(); }
  bool has_integer_type() const override { return parts_.data.number_kind() != h5::NumberKind::kFloat; }
  std::string type_name() const override { return parts_.data.type_name(); }

  CellBlock read(int64_t first_cell, int64_t count) const override {
    check_range(first_cell, count);
    std::call_once(transposed_, [&] { transpose(); });
    CellBlock block{.first_cell = first_cell};
    CellCleaner cleaner;
    for (int64_t cell = first_cell; cell < first_cell + count; ++cell) {
      const int64_t begin = cell_begin_[static_cast<std::size_t>(cell)],
                    end = cell_begin_[static_cast<std::size_t>(cell) + 1];
      cleaner.append(block, genes() + begin, values() + begin, static_cast<std::size_t>(end - begin));
    }
    return block;
  }

 private:
  int32_t* genes() const { return reinterpret_cast<int32_t*>(scratch_->data()); }
  float* values() const { return reinterpret_cast<float*>(scratch_->data()) + stored_values(); }

  void transpose() const {
    const int64_t num_entries = stored_values();
    log::info("[data] {}: CSC; making a CSR copy of {} entries ({} MB) in a temporary file",
              parts_.data.where(), num_entries, (num_entries * 8) >> 20);
    scratch_ = std::make_unique<MappedScratch>(static_cast<std::size_t>(num_entries) * 8);
    std::vector<int32_t> cells(kEntriesPerRead);
    std::vector<float> chunk(kEntriesPerRead);
    cell_begin_.assign(static_cast<std::size_t>(num_cells_) + 1, 0);
    for (int64_t first = 0; first < num_entries; first += kEntriesPerRead) {
      const int64_t count = std::min(kEntriesPerRead, num_entries - first);
      parts_.indices.read(static_cast<uint64_t>(first), static_cast<uint64_t>(count), cells.data());
      check_indices(cells.data(), count, num_cells_, parts_.indices.where(), "cells");
      for (int64_t i = 0; i < count; ++i)
        ++cell_begin_[static_cast<std::size_t>(cells[static_cast<std::size_t>(i)]) + 1];
    }
    std::partial_sum(cell_begin_.begin(), cell_begin_.end(), cell_begin_.begin());
    std::vector<int64_t> cursor(cell_begin_.begin(), cell_begin_.end() - 1);
    std::size_t gene = 0;
    for (int64_t first = 0; first < num_entries; first += kEntriesPerRead) {
      const int64_t count = std::min(kEntriesPerRead, num_entries - first);
      parts_.indices.read(static_cast<uint64_t>(first), static_cast<uint64_t>(count), cells.data());
      parts_.data.read(static_cast<uint64_t>(first), static_cast<uint64_t>(count), chunk.data());
      for (int64_t i = 0; i < count; ++i) {
        while (parts_.indptr[gene + 1] <= first + i) ++gene;
        const int64_t target = cursor[static_cast<std::size_t>(cells[static_cast<std::size_t>(i)])]++;
        genes()[target] = static_cast<int32_t>(gene);
        values()[target] = chunk[static_cast<std::size_t>(i)];
      }
    }
  }

  SparseParts parts_;
  mutable std::once_flag transposed_;
  mutable std::unique_ptr<MappedScratch> scratch_;
  mutable std::vector<int64_t> cell_begin_;  // [num_cells + 1]
};

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
    std::vector<float> rows;
    for (int64_t first = first_cell; first < first_cell + count; first += kDenseRowsPerRead) {
      const int64_t num_rows = std::min(kDenseRowsPerRead, first_cell + count - first);
      rows.resize(static_cast<std::size_t>(num_rows * num_genes_));
      dataset_.read_rows(static_cast<uint64_t>(first), static_cast<uint64_t>(num_rows), rows.data());
      for (int64_t row = 0; row < num_rows; ++row) {
        const float* values = rows.data() + row * num_genes_;
        for (int64_t gene = 0; gene < num_genes_; ++gene) {
          if (values[gene] == 0.0F) continue;
          block.genes.push_back(static_cast<int32_t>(gene));
          block.values.push_back(values[gene]);
        }
        block.indptr.push_back(static_cast<int64_t>(block.genes.size()));
      }
    }
    return block;
  }

 private:
  h5::Dataset dataset_;
};

void check_shape(const std::vector<int64_t>& shape, int64_t num_cells, int64_t num_genes,
                 const std::string& where) {
  if (shape.size() != 2 || shape[0] != num_cells || shape[1] != num_genes) {
    throw DataError(
        "{}: has shape {} x {}, but obs has {} cells and its var table {} genes; the file is damaged", where,
        shape.empty() ? 0 : shape[0], shape.size() < 2 ? 0 : shape[1], num_cells, num_genes);
  }
}

}  // namespace

std::shared_ptr<const CountMatrix> open_matrix(const h5::Group& root, const std::string& name,
                                               int64_t num_cells, int64_t num_genes) {
  if (root.kind_of(name) == h5::ObjectKind::kDataset) {
    h5::Dataset dataset = root.dataset(name);
    check_shape({dataset.shape().begin(), dataset.shape().end()}, num_cells, num_genes, dataset.where());
    return std::make_shared<DenseMatrix>(std::move(dataset), name, num_cells, num_genes);
  }
  const h5::Group group = root.group(name);
  const std::string encoding =
      group.text_attribute("encoding-type").value_or(group.text_attribute("h5sparse_format").value_or(""));
  const auto shape = group.integer_list_attribute("shape").value_or(
      group.integer_list_attribute("h5sparse_shape").value_or(std::vector<int64_t>{}));
  const bool is_csr = encoding == "csr_matrix" || encoding == "csr";
  if (!is_csr && encoding != "csc_matrix" && encoding != "csc") {
    throw DataError("{}: encoding '{}' is not one that can be read (csr_matrix, csc_matrix, array)",
                    group.where(), encoding);
  }
  check_shape(shape, num_cells, num_genes, group.where());
  if (is_csr) return std::make_shared<CsrMatrix>(group, name, num_cells, num_genes);
  return std::make_shared<CscMatrix>(group, name, num_cells, num_genes);
}

}  // namespace scrna::data
