// The obs and var tables of an .h5ad file: a group with an index and columns (AnnData 0.7 and later).
// Internal to lib/data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/data/anndata.h"
#include "lib/data/hdf5.h"

namespace scrna::data {

class Table {
 public:
  /// `name`: "obs", "var" or "raw/var". Throws DataError when it is missing or in an unsupported encoding.
  Table(const h5::Group& root, const std::string& name);
  [[nodiscard]] int64_t num_rows() const { return num_rows_; }
  /// Without the index, in the writer's order.
  [[nodiscard]] const std::vector<std::string>& columns() const { return columns_; }
  [[nodiscard]] std::vector<std::string> index() const;
  /// A column as texts ("" = missing). Numbers are written as decimal text.
  [[nodiscard]] std::vector<std::string> texts(std::string_view column) const;
  [[nodiscard]] CategoryColumn categories(std::string_view column) const;
  [[nodiscard]] std::vector<double> numbers(std::string_view column) const;

 private:
  [[nodiscard]] std::string member(std::string_view column) const;  // throws for an unknown column
  h5::Group group_;
  std::string index_name_;
  std::vector<std::string> columns_;
  int64_t num_rows_ = 0;
};

}  // namespace scrna::data
