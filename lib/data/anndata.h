// Reading AnnData .h5ad files (and 10x .h5 files as if they were): what is inside, its gene table, its obs columns, and blocks of cells of any of
// its matrices as CSR. Memory is bounded by the block asked for. Every size, index and code of the file is
// checked before it is used; what cannot be read throws DataError naming the file, the object and what to do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace scrna::data {

/// Rows [first_cell, first_cell + num_cells()) of a cells x genes matrix, CSR, genes ascending inside a cell,
/// no stored zeros, duplicates summed.
struct CellBlock {
  int64_t first_cell = 0;
  std::vector<int64_t> indptr{0};  // [num_cells + 1]
  std::vector<int32_t> genes;      // [nnz] column of the matrix
  std::vector<float> values;       // [nnz]
  int64_t num_repeated = 0;        // stored entries that were added to an earlier one of the same cell and gene
  [[nodiscard]] int64_t num_cells() const { return static_cast<int64_t>(indptr.size()) - 1; }
};

enum class MatrixLayout { kCsr, kCsc, kDense };
/// "CSR", "CSC" or "dense".
std::string_view name_of(MatrixLayout layout);

/// What a table column holds; kOther: an encoding that cannot be read.
enum class ColumnKind { kCategorical, kText, kInteger, kFloat, kBoolean, kOther };
/// "categorical", "text", "integer", "float", "boolean" or "other".
std::string_view name_of(ColumnKind kind);

/// A table column as codes into distinct texts: categorical, text, boolean and integer columns.
struct CategoryColumn {
  std::vector<int32_t> codes;           // [rows] -1: missing
  std::vector<std::string> categories;  // distinct values, in file order for categoricals
};

/// One matrix of a file. Reads may come from several threads; calls of HDF5 are serialised inside (it has one lock),
/// decompression of CSR matrices is not (hdf5_chunks.h).
class CountMatrix {
 public:
  virtual ~CountMatrix() = default;
  [[nodiscard]] virtual const std::string& name() const = 0;  // "X", "raw/X", "layers/counts"
  [[nodiscard]] virtual MatrixLayout layout() const = 0;
  [[nodiscard]] virtual int64_t num_cells() const = 0;
  [[nodiscard]] virtual int64_t num_genes() const = 0;
  /// Stored entries of a sparse matrix; for a dense one cells x genes.
  [[nodiscard]] virtual int64_t stored_values() const = 0;
  /// Stored entries of one cell, zeros and repeats counted: its expressed genes are no more. -1 where only
  /// reading the cell would tell (dense matrices). Thread-safe; the first call may turn a CSC matrix.
  [[nodiscard]] virtual int64_t stored_entries(int64_t cell) const {
    static_cast<void>(cell);
    return -1;
  }
  [[nodiscard]] virtual bool has_integer_type() const = 0;
  /// Type on disk: "float32", "int64", "uint16" ... Values beyond 2^24 are rounded to float32 when read.
  [[nodiscard]] virtual std::string type_name() const = 0;
  /// Cells [first, first + count). Throws DataError for a damaged file, InternalError for a range outside the
  /// matrix.
  [[nodiscard]] virtual CellBlock read(int64_t first_cell, int64_t num_cells) const = 0;
  /// The same into a block whose memory is used again, for loops over many blocks.
  virtual void read_into(int64_t first_cell, int64_t num_cells, CellBlock& out) const {
    out = read(first_cell, num_cells);
  }
};

/// An open .h5ad file, read only; or a 10x Genomics .h5 file, which reads as one with the matrix "X" (tenx.h).
class AnnDataFile {
 public:
  /// `genome` chooses among the genomes of a 10x .h5 file; other files have none and pass it over. Throws DataError:
  /// missing, not HDF5, truncated, not AnnData, an encoding that is not supported, a choice among genomes ...
  explicit AnnDataFile(const std::filesystem::path& path, const std::string& genome = {});
  ~AnnDataFile();
  AnnDataFile(AnnDataFile&&) noexcept;
  AnnDataFile& operator=(AnnDataFile&&) noexcept;

  [[nodiscard]] const std::filesystem::path& path() const;
  [[nodiscard]] int64_t num_cells() const;
  /// Which generation of AnnData's encodings the file has, for reports.
  [[nodiscard]] std::string format() const;
  /// Matrices present, in the order "X", "raw/X", "layers/<name>" (names sorted).
  [[nodiscard]] std::vector<std::string> matrix_names() const;
  /// Throws DataError naming the matrices there are.
  [[nodiscard]] std::shared_ptr<const CountMatrix> open_matrix(std::string_view name) const;

  /// The var table that belongs to a matrix: raw/X has raw/var, all others var.
  [[nodiscard]] std::vector<std::string> var_columns(std::string_view matrix_name) const;
  [[nodiscard]] std::vector<std::string> var_index(std::string_view matrix_name) const;
  /// A text-like var column, one string per gene ("" = missing).
  [[nodiscard]] std::vector<std::string> var_column(std::string_view matrix_name,
                                                    std::string_view column) const;

  [[nodiscard]] std::vector<std::string> obs_columns() const;
  [[nodiscard]] std::vector<std::string> obs_index() const;
  [[nodiscard]] ColumnKind obs_kind(std::string_view column) const;
  /// Throws DataError for a missing column (with a suggestion) or a floating-point one.
  [[nodiscard]] CategoryColumn obs_categories(std::string_view column) const;
  /// A numeric or boolean obs column as double; missing = NaN.
  [[nodiscard]] std::vector<double> obs_numbers(std::string_view column) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;  // shared with the matrices it opened
};

}  // namespace scrna::data
