// Which cells to take, said as an expression over obs columns (data.filter):
//
//   is_primary_data == true and tissue in ['blood', 'lung'] and not (n_genes < 200 or `cell type` ==
//   'doublet')
//
// A small language of its own, parsed into a tree and evaluated column by column: the grammar, and what
// missing values do, stand in lib/data/README.md. Rejected: pandas' query language, whose full Python
// expressions nobody can check.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/data/anndata.h"

namespace scrna::data {

/// A value in an expression.
struct FilterValue {
  enum class Kind { kText, kNumber, kTruth };
  Kind kind = Kind::kText;
  std::string text;          // as written, without quotes
  double number = 0;         // of kNumber
  bool truth = false;        // of kTruth
  std::size_t position = 0;  // in characters of the expression, from 1
};

/// A node of the tree: `and`, `or`, `not` of parts, or a test of one column.
struct FilterNode {
  enum class Kind { kAnd, kOr, kNot, kTest };
  enum class Test { kEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIsTrue };
  Kind kind = Kind::kTest;
  std::vector<std::unique_ptr<FilterNode>> parts;
  Test test = Test::kIsTrue;
  std::string column;
  bool may_be_absent = false;       // "column?": in a file without it every cell lacks a value
  std::vector<FilterValue> values;  // one, or those of `in`: any of them
  std::size_t position = 0;         // of the column's name
};

class ObsFilter {
 public:
  /// Throws ConfigError "name: at character N ...: expected ..." for what is no expression. `name`: the
  /// setting, for messages here and later.
  static ObsFilter parse(std::string_view text, std::string name = "data.filter");

  struct Result {
    std::vector<bool> chosen;  // [cells]
    std::map<std::string, std::string>
        unknown_values;  // "'lugn' of 'tissue'", a text that no cell has: nearest or ""
  };
  /// Tests every cell of the file; reads the columns that the expression names. Throws DataError for a column
  /// that is not there (with the nearest name) or holds nothing that can be compared with the value beside
  /// it.
  [[nodiscard]] Result choose(const AnnDataFile& file) const;

 private:
  std::shared_ptr<const FilterNode> root_;
  std::string name_;
};

}  // namespace scrna::data
