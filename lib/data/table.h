// The obs and var tables of an .h5ad file: a group with an index and columns (AnnData 0.7 and later), or a
// data set of records whose first field is the index (before 0.7). Whatever the encoding, a column comes down
// to values, perhaps with categories that the values are codes of, perhaps with a mask of missing values.
// Internal to lib/data.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/data/anndata.h"
#include "lib/data/hdf5.h"

namespace scrna::data {

class Table {
 public:
  /// `path`: "obs", "var", "raw/var" or "raw.var". Throws DataError when it is missing or not a table.
  Table(const h5::Group& root, const std::string& path);
  /// Lists of equal length that lie in `group` under other names, as in 10x .h5 files: `index` is the member
  /// with the index, `columns` pairs of a column's name and its member. Throws DataError when the index is
  /// missing.
  Table(h5::Group group, const std::string& index,
        const std::vector<std::pair<std::string, std::string>>& columns);
  [[nodiscard]] int64_t num_rows() const { return num_rows_; }
  /// Without the index, in the writer's order.
  [[nodiscard]] const std::vector<std::string>& columns() const { return columns_; }
  [[nodiscard]] std::vector<std::string> index() const;
  /// A column as texts ("" = missing). Numbers are written as decimal text.
  [[nodiscard]] std::vector<std::string> texts(std::string_view column) const;
  [[nodiscard]] CategoryColumn categories(std::string_view column) const;
  [[nodiscard]] std::vector<double> numbers(std::string_view column) const;
  [[nodiscard]] ColumnKind kind(std::string_view column) const;

 private:
  struct Column {
    h5::Dataset values;                  // or codes
    std::shared_ptr<Column> categories;  // what the codes stand for; itself without categories
    std::optional<h5::Dataset> mask;     // not 0: missing
  };
  void list_group();
  void list_records();
  void count_rows();
  [[nodiscard]] std::string known(std::string_view column) const;  // throws for an unknown column
  [[nodiscard]] Column open(const std::string& name) const;
  [[nodiscard]] Column open_record_field(const std::string& name) const;
  [[nodiscard]] Column open_list(const std::string& path) const;
  [[nodiscard]] std::vector<std::string> texts_of(const Column& column) const;
  void check_length(const h5::Dataset& values) const;

  std::string where_;
  std::optional<h5::Group> group_;      // since 0.7
  std::optional<h5::Dataset> records_;  // before
  std::optional<h5::Group> uns_;        // holds the categories of records
  std::string index_name_;
  std::vector<std::string> columns_;
  std::unordered_map<std::string, std::string> members_;  // of columns that have another name in the group
  int64_t num_rows_ = 0;
};

}  // namespace scrna::data
