#include "lib/data/table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/suggest.h"

namespace scrna::data {
namespace {

// As Python's str() writes it, so that a category reads the same in both.
std::string decimal(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

std::vector<std::string> texts_of_values(const h5::Dataset& dataset) {
  if (dataset.is_text()) return dataset.read_text();
  std::vector<std::string> texts;
  switch (dataset.number_kind()) {
    case h5::NumberKind::kInteger:
      for (const int64_t value : dataset.read_integers()) texts.push_back(std::to_string(value));
      return texts;
    case h5::NumberKind::kBoolean:
      for (const int64_t value : dataset.read_integers()) texts.emplace_back(value != 0 ? "True" : "False");
      return texts;
    case h5::NumberKind::kFloat:
      for (const double value : dataset.read_doubles())
        texts.push_back(std::isnan(value) ? "" : decimal(value));
      return texts;
    case h5::NumberKind::kNone:
      break;
  }
  throw DataError("{}: expected texts or numbers, got {}", dataset.where(), dataset.type_name());
}

// One flag for each of the values: the mask says that it is missing.
std::vector<bool> missing(const h5::Dataset& values, const std::optional<h5::Dataset>& mask) {
  std::vector<bool> result(values.num_elements(), false);
  if (!mask) return result;
  const std::vector<int64_t> flags = mask->read_integers();
  if (flags.size() != result.size()) {
    throw DataError("{}: expected one value for each of the {} values it masks, got {} values", mask->where(),
                    result.size(), flags.size());
  }
  for (std::size_t row = 0; row < result.size(); ++row) result[row] = flags[row] != 0;
  return result;
}

std::vector<std::string> texts_of_list(const h5::Dataset& values, const std::optional<h5::Dataset>& mask) {
  std::vector<std::string> texts = texts_of_values(values);
  if (!mask) return texts;
  const std::vector<bool> is_missing = missing(values, mask);
  for (std::size_t row = 0; row < texts.size(); ++row) {
    if (is_missing[row]) texts[row].clear();
  }
  return texts;
}

std::string join(const std::string& a, const std::string& b) { return a + "/" + b; }

std::vector<int32_t> checked_codes(const h5::Dataset& dataset, std::size_t num_categories) {
  if (dataset.number_kind() != h5::NumberKind::kInteger)
    throw DataError("{}: expected the integer codes of categories, got {}", dataset.where(),
                    dataset.type_name());
  std::vector<int32_t> codes;
  for (const int64_t code : dataset.read_integers()) {
    if (code < -1 || code >= static_cast<int64_t>(num_categories)) {
      throw DataError("{}: code {} is outside -1..{} (there are {} categories); the column is damaged",
                      dataset.where(), code, static_cast<int64_t>(num_categories) - 1, num_categories);
    }
    codes.push_back(static_cast<int32_t>(code));
  }
  return codes;
}

}  // namespace

Table::Table(const h5::Group& root, const std::string& path) : where_(root.where() + "/" + path) {
  switch (root.kind_of(path)) {
    case h5::ObjectKind::kGroup:
      group_ = root.group(path);
      list_group();
      break;
    case h5::ObjectKind::kDataset:
      records_ = root.dataset(path);
      if (root.kind_of("uns") == h5::ObjectKind::kGroup) uns_ = root.group("uns");
      list_records();
      break;
    case h5::ObjectKind::kMissing:
      throw DataError("{} has no table '{}'; is it an AnnData .h5ad file?", root.where(), path);
  }
}

Table::Table(h5::Group group, const std::string& index,
             const std::vector<std::pair<std::string, std::string>>& columns)
    : where_(group.where()), group_(std::move(group)), index_name_(index) {
  for (const auto& [name, member] : columns) {
    columns_.push_back(name);
    members_.emplace(name, member);
  }
  count_rows();
}

void Table::list_group() {
  index_name_ = group_->text_attribute("_index").value_or("");
  if (index_name_.empty() || !group_->has(index_name_)) {
    index_name_ = group_->has("_index") ? "_index" : group_->has("index") ? "index" : "";
  }
  if (index_name_.empty()) throw DataError("{}: has no index column; is it an AnnData .h5ad file?", where_);
  if (const auto order = group_->text_list_attribute("column-order")) {
    for (const std::string& column : *order) {
      if (group_->has(column)) columns_.push_back(column);
    }
  } else {
    for (const std::string& column : group_->members()) {
      if (column != index_name_ && column != "__categories") columns_.push_back(column);
    }
  }
  count_rows();
}

void Table::count_rows() {
  const Column index = open(index_name_);
  if (index.values.shape().size() != 1) throw DataError("{}: expected a list", index.values.where());
  num_rows_ = static_cast<int64_t>(index.values.shape()[0]);
}

void Table::list_records() {
  columns_ = records_->field_names();
  if (columns_.empty() || records_->shape().size() != 1) {
    throw DataError("{}: expected a table (a group of columns, or records), got {}", where_,
                    records_->type_name());
  }
  index_name_ = columns_.front();
  columns_.erase(columns_.begin());
  num_rows_ = static_cast<int64_t>(records_->shape()[0]);
}

std::string Table::known(std::string_view column) const {
  if (std::find(columns_.begin(), columns_.end(), column) == columns_.end()) {
    const std::string nearest = nearest_name(column, columns_);
    throw DataError("{}: has no column '{}'; {}{}", where_, column,
                    nearest.empty() ? "" : "did you mean '" + nearest + "'? ",
                    columns_.empty() ? "it has none" : fmt::format("columns: {}", fmt::join(columns_, ", ")));
  }
  return std::string(column);
}

Table::Column Table::open(const std::string& name) const {
  if (records_) return open_record_field(name);
  const auto renamed = members_.find(name);
  const std::string& path = renamed != members_.end() ? renamed->second : name;
  Column column = group_->has(join(path, "codes")) ? Column{group_->dataset(join(path, "codes")), {}, {}}
                                                   : open_list(path);
  if (group_->kind_of(path) == h5::ObjectKind::kGroup) {
    if (group_->has(join(path, "codes")))
      column.categories = std::make_shared<Column>(open_list(join(path, "categories")));
  } else if (const std::string legacy = join("__categories", path); group_->has(legacy)) {
    column.categories = std::make_shared<Column>(open_list(legacy));  // 0.7: codes here, their meaning there
  }
  return column;
}

// A data set, or values of which a mask may say that some are missing (AnnData 0.8 wrote no mask when none
// was).
Table::Column Table::open_list(const std::string& path) const {
  if (group_->kind_of(path) != h5::ObjectKind::kGroup) return {group_->dataset(path), {}, {}};
  if (!group_->has(join(path, "values"))) {
    throw DataError("{}/{}: the encoding '{}' is not supported for a column", where_, path,
                    group_->text_attribute("encoding-type", path).value_or("unknown"));
  }
  Column column{group_->dataset(join(path, "values")), {}, {}};
  if (group_->has(join(path, "mask"))) column.mask = group_->dataset(join(path, "mask"));
  return column;
}

// Before 0.7 the categories of obs and var columns lay in uns under one name; they belong to this table if
// its codes fit them, which is also how the anndata package decides.
Table::Column Table::open_record_field(const std::string& name) const {
  Column column{records_->field(name), {}, {}};
  const std::string path = name + "_categories";
  if (column.values.number_kind() != h5::NumberKind::kInteger || !uns_ ||
      uns_->kind_of(path) != h5::ObjectKind::kDataset)
    return column;
  h5::Dataset categories = uns_->dataset(path);
  const std::vector<int64_t> codes = column.values.read_integers();
  const auto num_categories = static_cast<int64_t>(categories.num_elements());  // a single one may be no list
  if (std::all_of(codes.begin(), codes.end(), [&](int64_t code) { return code < num_categories; }))
    column.categories = std::make_shared<Column>(Column{std::move(categories), {}, {}});
  return column;
}

void Table::check_length(const h5::Dataset& values) const {
  if (values.shape().size() != 1 || static_cast<int64_t>(values.shape()[0]) != num_rows_) {
    throw DataError("{}: expected one value for each of the table's {} rows, got {} values", values.where(),
                    num_rows_, values.num_elements());
  }
}

std::vector<std::string> Table::texts_of(const Column& column) const {
  check_length(column.values);
  if (!column.categories) return texts_of_list(column.values, column.mask);
  const std::vector<std::string> categories =
      texts_of_list(column.categories->values, column.categories->mask);
  std::vector<std::string> texts;
  for (const int32_t code : checked_codes(column.values, categories.size()))
    texts.push_back(code < 0 ? "" : categories[static_cast<std::size_t>(code)]);
  return texts;
}

std::vector<std::string> Table::index() const { return texts_of(open(index_name_)); }

std::vector<std::string> Table::texts(std::string_view column) const { return texts_of(open(known(column))); }

ColumnKind Table::kind(std::string_view column) const {
  try {
    const Column opened = open(known(column));
    if (opened.categories) return ColumnKind::kCategorical;
    if (opened.values.is_text()) return ColumnKind::kText;
    switch (opened.values.number_kind()) {
      case h5::NumberKind::kInteger:
        return ColumnKind::kInteger;
      case h5::NumberKind::kFloat:
        return ColumnKind::kFloat;
      case h5::NumberKind::kBoolean:
        return ColumnKind::kBoolean;
      case h5::NumberKind::kNone:
        break;
    }
  } catch (const DataError&) {  // a column that cannot be read has no kind; reading it says why
  }
  return ColumnKind::kOther;
}

CategoryColumn Table::categories(std::string_view name) const {
  const Column column = open(known(name));
  check_length(column.values);
  CategoryColumn result;
  if (column.categories) {
    result.categories = texts_of_list(column.categories->values, column.categories->mask);
    result.codes = checked_codes(column.values, result.categories.size());
    return result;
  }
  if (column.values.number_kind() == h5::NumberKind::kFloat) {
    throw DataError("{}: is {}; expected a column of categories, texts, integers or booleans",
                    column.values.where(), column.values.type_name());
  }
  const std::vector<std::string> texts = texts_of_values(column.values);
  const std::vector<bool> is_missing = missing(column.values, column.mask);
  std::unordered_map<std::string, int32_t> known_texts;  // codes in order of first appearance
  for (std::size_t row = 0; row < texts.size(); ++row) {
    if (is_missing[row]) {
      result.codes.push_back(-1);
      continue;
    }
    const auto [entry, is_new] =
        known_texts.emplace(texts[row], static_cast<int32_t>(result.categories.size()));
    if (is_new) result.categories.push_back(texts[row]);
    result.codes.push_back(entry->second);
  }
  return result;
}

std::vector<double> Table::numbers(std::string_view name) const {
  const Column column = open(known(name));
  if (column.categories || column.values.number_kind() == h5::NumberKind::kNone) {
    throw DataError("{}: expected a column of numbers, got {}", column.values.where(),
                    column.categories ? "categories" : column.values.type_name());
  }
  check_length(column.values);
  std::vector<double> values = column.values.read_doubles();
  const std::vector<bool> is_missing = missing(column.values, column.mask);
  for (std::size_t row = 0; row < values.size(); ++row) {
    if (is_missing[row]) values[row] = std::numeric_limits<double>::quiet_NaN();
  }
  return values;
}

}  // namespace scrna::data
