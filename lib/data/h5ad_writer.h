// Writes an .h5ad file cell block by cell block: X as CSR (float32, int32 columns, gzip with shuffle), obs
// and var tables. The on-disk encodings are those of anndata 0.8 and later. The file appears under its name
// only when commit() has succeeded. Memory holds one block.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "lib/data/anndata.h"

namespace scrna::data {

enum class ColumnType { kText, kCategory, kInteger, kNumber };

struct ColumnSpec {
  std::string name;
  ColumnType kind = ColumnType::kText;
  std::vector<std::string> categories;  // of a kCategory column; at most 2^31 - 1
};

/// Values of some rows of a column: texts, codes into the categories (-1 = missing), integers or numbers.
using ColumnValues =
    std::variant<std::vector<std::string>, std::vector<int32_t>, std::vector<int64_t>, std::vector<double>>;

/// Some rows of a table, columns in the order of the specification.
struct TableRows {
  std::vector<std::string> index;
  std::vector<ColumnValues> columns;
};

class H5adWriter {
 public:
  /// Creates a temporary file beside `path`. Throws DataError when the folder cannot be written.
  H5adWriter(const std::filesystem::path& path, std::vector<ColumnSpec> obs_columns, int gzip_level = 4);
  /// Without commit() the temporary file is removed.
  ~H5adWriter();
  H5adWriter(const H5adWriter&) = delete;
  H5adWriter& operator=(const H5adWriter&) = delete;

  /// Once, at any time before commit(): the genes.
  void write_var(const std::vector<ColumnSpec>& columns, const TableRows& rows);
  /// Cells of X with their obs rows; block.first_cell is ignored. Throws InternalError when their numbers
  /// differ.
  void append(const CellBlock& block, const TableRows& obs);
  /// An entry of uns/<group>.
  void write_uns(const std::string& group, const std::string& name,
                 const std::variant<std::string, int64_t, double>& value);

  [[nodiscard]] int64_t num_cells() const;
  [[nodiscard]] int64_t stored_values() const;
  /// Completes the file and puts it in place. Throws DataError (disk full ...); then nothing is at `path`.
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace scrna::data
