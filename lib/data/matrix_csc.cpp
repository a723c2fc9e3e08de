// A CSC matrix lies gene by gene, but is wanted cell by cell. It is turned into CSR once, on first use: count
// the entries of each cell, then scatter them into an unlinked temporary file (in TMPDIR) that is mapped into
// memory. What stays resident is the page cache's business, so memory stays bounded. Rejected: one pass over
// the file for each block of cells, which costs (cells / block) passes.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/core/log.h"
#include "lib/data/matrix_layouts.h"

namespace scrna::data {
namespace {

constexpr int64_t kEntriesPerRead = 1 << 20;
constexpr std::size_t kBytesPerEntry = sizeof(int32_t) + sizeof(float);

// Memory backed by an unlinked file of fixed size; the space is reserved before it is used, because a full
// disk would otherwise end the program with SIGBUS.
class MappedScratch {
 public:
  explicit MappedScratch(std::size_t num_bytes) : num_bytes_(std::max<std::size_t>(num_bytes, 1)) {
    const char* folder = std::getenv("TMPDIR");
    std::string path =
        std::string(folder != nullptr && *folder != '\0' ? folder : "/tmp") + "/scrna-csc-XXXXXX";
    const int descriptor = ::mkstemp(path.data());
    if (descriptor < 0) {
      throw DataError("{}: cannot create a temporary file ({}); set TMPDIR to a folder with space", path,
                      std::strerror(errno));
    }
    ::unlink(path.c_str());
    int problem = ::posix_fallocate(descriptor, 0, static_cast<off_t>(num_bytes_));
    void* address = MAP_FAILED;
    if (problem == 0) {
      address = ::mmap(nullptr, num_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
      problem = errno;
    }
    ::close(descriptor);
    if (address == MAP_FAILED) {
      throw DataError(
          "{}: cannot take {} MB of temporary space to transpose a CSC matrix ({}); set TMPDIR to a folder "
          "with space, or store the matrix as CSR: adata.X = adata.X.tocsr()",
          path, num_bytes_ >> 20, std::strerror(problem));
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
      : MatrixBase(std::move(name), num_cells, num_genes), parts_(open_sparse(group, num_genes)) {
    if (num_cells >= std::numeric_limits<int32_t>::max()) {
      throw DataError("{}: {} cells are more than a CSC matrix may have here; store it as CSR", group.where(),
                      num_cells);
    }
  }
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
      const int64_t begin = cell_begin_[static_cast<std::size_t>(cell)];
      const int64_t end = cell_begin_[static_cast<std::size_t>(cell) + 1];
      cleaner.append(block, genes() + begin, values() + begin, static_cast<std::size_t>(end - begin));
    }
    return block;
  }

 private:
  int32_t* genes() const { return reinterpret_cast<int32_t*>(scratch_->data()); }
  float* values() const { return reinterpret_cast<float*>(scratch_->data()) + stored_values(); }

  // Calls visit(first entry, number) with pieces of `indices`, checked, in `cells`.
  template <class Visit>
  void for_pieces(std::vector<int32_t>& cells, const Visit& visit) const {
    for (int64_t first = 0; first < stored_values(); first += kEntriesPerRead) {
      const int64_t count = std::min(kEntriesPerRead, stored_values() - first);
      parts_.indices.read(static_cast<uint64_t>(first), static_cast<uint64_t>(count), cells.data());
      check_indices(cells, count, num_cells_, parts_.indices.where(), "cells");
      visit(first, count);
    }
  }

  void transpose() const {
    const auto num_entries = static_cast<std::size_t>(stored_values());
    log::info("[data] {}: CSC; making a CSR copy of {} entries ({} MB) in a temporary file",
              parts_.data.where(), num_entries, (num_entries * kBytesPerEntry) >> 20);
    scratch_ = std::make_unique<MappedScratch>(num_entries * kBytesPerEntry);
    const std::size_t piece = std::min<std::size_t>(num_entries, kEntriesPerRead);
    std::vector<int32_t> cells(piece);
    std::vector<float> entries(piece);
    cell_begin_.assign(static_cast<std::size_t>(num_cells_) + 1, 0);
    for_pieces(cells, [&](int64_t, int64_t count) {
      for (int64_t i = 0; i < count; ++i)
        ++cell_begin_[static_cast<std::size_t>(cells[static_cast<std::size_t>(i)]) + 1];
    });
    std::partial_sum(cell_begin_.begin(), cell_begin_.end(), cell_begin_.begin());
    std::vector<int64_t> cursor(cell_begin_.begin(), cell_begin_.end() - 1);
    std::size_t gene = 0;
    for_pieces(cells, [&](int64_t first, int64_t count) {
      parts_.data.read(static_cast<uint64_t>(first), static_cast<uint64_t>(count), entries.data());
      for (int64_t i = 0; i < count; ++i) {
        while (parts_.indptr[gene + 1] <= first + i) ++gene;
        const int64_t target = cursor[static_cast<std::size_t>(cells[static_cast<std::size_t>(i)])]++;
        genes()[target] = static_cast<int32_t>(gene);
        values()[target] = entries[static_cast<std::size_t>(i)];
      }
    });
  }

  SparseParts parts_;
  mutable std::once_flag transposed_;
  mutable std::unique_ptr<MappedScratch> scratch_;
  mutable std::vector<int64_t> cell_begin_;  // [num_cells + 1]
};

}  // namespace

std::shared_ptr<const CountMatrix> open_csc(const h5::Group& group, const std::string& name,
                                            int64_t num_cells, int64_t num_genes) {
  return std::make_shared<CscMatrix>(group, name, num_cells, num_genes);
}

}  // namespace scrna::data
