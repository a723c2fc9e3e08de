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

// Codes of texts in order of first appearance.
CategoryColumn factorise(const std::vector<std::string>& texts) {
  CategoryColumn column;
  std::unordered_map<std::string, int32_t> known;
  for (const std::string& text : texts) {
    const auto [entry, is_new] = known.emplace(text, static_cast<int32_t>(column.categories.size()));
    if (is_new) column.categories.push_back(text);
    column.codes.push_back(entry->second);
  }
  return column;
}

std::vector<std::string> texts_of(const h5::Dataset& dataset) {
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
        texts.push_back(std::isnan(value) ? "" : fmt::format("{}", value));
      return texts;
    case h5::NumberKind::kNone:
      break;
  }
  throw DataError("{}: expected texts or numbers, got {}", dataset.where(), dataset.type_name());
}

std::string join(const std::string& a, const std::string& b) { return a + "/" + b; }

}  // namespace

Table::Table(const h5::Group& root, const std::string& name)
    : group_([&] {
        if (root.kind_of(name) == h5::ObjectKind::kDataset) {
          throw DataError(
              "{}/{}: is a compound table, as anndata before 0.7 wrote it; open and save the file once with "
              "a current "
              "anndata: anndata.read_h5ad(path).write_h5ad(new_path)",
              root.where(), name);
        }
        if (!root.has(name))
          throw DataError("{} has no '{}' table; expected AnnData .h5ad", root.where(), name);
        return root.group(name);
      }()) {
  index_name_ = group_.text_attribute("_index").value_or("");
  if (index_name_.empty() || !group_.has(index_name_)) {
    index_name_ = group_.has("_index") ? "_index" : group_.has("index") ? "index" : "";
  }
  if (index_name_.empty()) throw DataError("{}: has no index column; expected AnnData .h5ad", group_.where());
  if (const auto order = group_.text_list_attribute("column-order")) {
    for (const std::string& column : *order) {
      if (group_.has(column)) columns_.push_back(column);
    }
  } else {
    for (const std::string& column : group_.members()) {
      if (column != index_name_ && column != "__categories") columns_.push_back(column);
    }
  }
  const bool is_group = group_.kind_of(index_name_) == h5::ObjectKind::kGroup;
  const std::string lengths =
      !is_group ? index_name_
                : join(index_name_, group_.has(join(index_name_, "codes")) ? "codes" : "values");
  const h5::Dataset dataset = group_.dataset(lengths);
  if (dataset.shape().size() != 1) throw DataError("{}: expected a list", dataset.where());
  num_rows_ = static_cast<int64_t>(dataset.shape()[0]);
}

std::string Table::member(std::string_view column) const {
  if (std::find(columns_.begin(), columns_.end(), column) == columns_.end()) {
    const std::string nearest = nearest_name(column, columns_);
    throw DataError("{}: has no column '{}'; {}{}", group_.where(), column,
                    nearest.empty() ? "" : "did you mean '" + nearest + "'? ",
                    columns_.empty() ? "it has none" : fmt::format("columns: {}", fmt::join(columns_, ", ")));
  }
  return std::string(column);
}

std::vector<std::string> Table::index() const {
  if (group_.kind_of(index_name_) == h5::ObjectKind::kDataset) return texts_of(group_.dataset(index_name_));
  if (group_.has(join(index_name_, "values"))) return texts_of(group_.dataset(join(index_name_, "values")));
  throw DataError("{}/{}: this kind of index is not supported", group_.where(), index_name_);
}

CategoryColumn Table::categories(std::string_view column) const {
  const std::string name = member(column);
  CategoryColumn result;
  if (group_.kind_of(name) == h5::ObjectKind::kDataset) {
    const h5::Dataset dataset = group_.dataset(name);
    const std::string legacy = join("__categories", name);  // anndata 0.7: codes here, texts in __categories
    if (!group_.has(legacy)) {
      if (dataset.number_kind() == h5::NumberKind::kFloat) {
        throw DataError("{}: is {}; expected a column of categories, texts, integers or booleans",
                        dataset.where(), dataset.type_name());
      }
      result = factorise(texts_of(dataset));
    } else {
      result.categories = texts_of(group_.dataset(legacy));
      for (const int64_t code : dataset.read_integers()) result.codes.push_back(static_cast<int32_t>(code));
    }
  } else if (group_.has(join(name, "codes"))) {
    const h5::Dataset codes = group_.dataset(join(name, "codes"));
    if (codes.number_kind() != h5::NumberKind::kInteger)
      throw DataError("{}: expected integers, got {}", codes.where(), codes.type_name());
    result.categories = texts_of(group_.dataset(join(name, "categories")));
    for (const int64_t code : codes.read_integers()) {
      if (code < -1 || code >= static_cast<int64_t>(result.categories.size())) {
        throw DataError("{}: code {} is outside -1..{}; the column is damaged", codes.where(), code,
                        static_cast<int64_t>(result.categories.size()) - 1);
      }
      result.codes.push_back(static_cast<int32_t>(code));
    }
  } else if (group_.has(join(name, "values")) && group_.has(join(name, "mask"))) {
    const h5::Dataset values = group_.dataset(join(name, "values"));
    if (values.number_kind() == h5::NumberKind::kFloat)
      throw DataError("{}: is {}; expected categories, texts, integers or booleans", values.where(),
                      values.type_name());
    std::vector<std::string> texts = texts_of(values);
    const std::vector<int64_t> mask = group_.dataset(join(name, "mask")).read_integers();
    if (mask.size() != texts.size()) throw DataError("{}: mask and values differ in length", values.where());
    std::unordered_map<std::string, int32_t> known;
    for (std::size_t row = 0; row < texts.size(); ++row) {
      if (mask[row] != 0) {
        result.codes.push_back(-1);
        continue;
      }
      const auto [entry, is_new] = known.emplace(texts[row], static_cast<int32_t>(result.categories.size()));
      if (is_new) result.categories.push_back(texts[row]);
      result.codes.push_back(entry->second);
    }
  } else {
    throw DataError("{}/{}: encoding '{}' is not supported for a column", group_.where(), name,
                    group_.text_attribute("encoding-type", name).value_or("unknown"));
  }
  if (static_cast<int64_t>(result.codes.size()) != num_rows_) {
    throw DataError("{}/{}: has {} rows, but the table has {}", group_.where(), name, result.codes.size(),
                    num_rows_);
  }
  for (const int32_t code : result.codes) {
    if (code < -1 || code >= static_cast<int32_t>(result.categories.size())) {
      throw DataError("{}/{}: code {} is outside -1..{}; the column is damaged", group_.where(), name, code,
                      static_cast<int64_t>(result.categories.size()) - 1);
    }
  }
  return result;
}

std::vector<std::string> Table::texts(std::string_view column) const {
  const std::string name = member(column);
  if (group_.kind_of(name) == h5::ObjectKind::kDataset && !group_.has(join("__categories", name)))
    return texts_of(group_.dataset(name));
  const CategoryColumn coded = categories(column);
  std::vector<std::string> result;
  result.reserve(coded.codes.size());
  for (const int32_t code : coded.codes)
    result.push_back(code < 0 ? "" : coded.categories[static_cast<std::size_t>(code)]);
  return result;
}

std::vector<double> Table::numbers(std::string_view column) const {
  const std::string name = member(column);
  const bool is_nullable = group_.kind_of(name) == h5::ObjectKind::kGroup && group_.has(join(name, "mask"));
  if (group_.kind_of(name) == h5::ObjectKind::kGroup && !is_nullable)
    throw DataError("{}/{}: expected a column of numbers", group_.where(), name);
  const h5::Dataset dataset = group_.dataset(is_nullable ? join(name, "values") : name);
  if (dataset.number_kind() == h5::NumberKind::kNone)
    throw DataError("{}: expected numbers, got {}", dataset.where(), dataset.type_name());
  std::vector<double> values = dataset.read_doubles();
  if (is_nullable) {
    const std::vector<int64_t> mask = group_.dataset(join(name, "mask")).read_integers();
    if (mask.size() != values.size())
      throw DataError("{}: mask and values differ in length", dataset.where());
    for (std::size_t row = 0; row < values.size(); ++row) {
      if (mask[row] != 0) values[row] = std::numeric_limits<double>::quiet_NaN();
    }
  }
  if (static_cast<int64_t>(values.size()) != num_rows_)
    throw DataError("{}: has {} rows, but the table has {}", dataset.where(), values.size(), num_rows_);
  return values;
}

}  // namespace scrna::data
