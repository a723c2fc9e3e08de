#include "lib/data/h5ad_writer.h"

#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/hdf5_write.h"

namespace scrna::data {
namespace {

using h5::Appender;
using h5::ElementType;
using h5::Handle;

// A growing AnnData dataframe.
class TableWriter {
 public:
  TableWriter(const Handle& parent, const std::string& name, std::vector<ColumnSpec> columns, int gzip_level)
      : columns_(std::move(columns)),
        group_(h5::create_group(parent, name)),
        index_(group_, "_index", ElementType::kText, gzip_level) {
    h5::set_encoding(group_, "dataframe", "0.2.0");
    h5::set_attribute(group_, "_index", "_index");
    std::vector<std::string> order;
    for (const ColumnSpec& column : columns_) {
      order.push_back(column.name);
      appenders_.push_back(begin_column(column, gzip_level));
    }
    h5::set_attribute(group_, "column-order", order);
  }

  void append(const TableRows& rows) {
    SCRNA_CHECK(rows.columns.size() == columns_.size(), "{} columns of {}", rows.columns.size(),
                columns_.size());
    index_.append(rows.index);
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      std::visit(
          [&](const auto& values) {
            SCRNA_CHECK(values.size() == rows.index.size(), "column {}: {} values, {} rows", columns_[i].name,
                        values.size(), rows.index.size());
            append_values(i, values);
          },
          rows.columns[i]);
    }
  }
  [[nodiscard]] int64_t num_rows() const { return static_cast<int64_t>(index_.size()); }

 private:
  Appender begin_column(const ColumnSpec& column, int gzip_level) const {
    switch (column.kind) {
      case ColumnType::kText:
        return {group_, column.name, ElementType::kText, gzip_level};
      case ColumnType::kInteger:
        return {group_, column.name, ElementType::kInt64, gzip_level};
      case ColumnType::kNumber:
        return {group_, column.name, ElementType::kFloat64, gzip_level};
      case ColumnType::kCategory:
        break;
    }
    const Handle group = h5::create_group(group_, column.name);
    h5::set_encoding(group, "categorical", "0.2.0");
    h5::set_bool_attribute(group, "ordered", false);
    Appender(group, "categories", ElementType::kText, gzip_level).append(column.categories);
    const bool is_small = column.categories.size() <= std::numeric_limits<int8_t>::max();
    return {group, "codes", is_small ? ElementType::kInt8 : ElementType::kInt32, gzip_level};
  }

  template <class T>
  void append_values(std::size_t column, const std::vector<T>& values) {
    const ColumnSpec& spec = columns_[column];
    constexpr ColumnType kKind = std::is_same_v<T, std::string> ? ColumnType::kText
                                 : std::is_same_v<T, int32_t>   ? ColumnType::kCategory
                                 : std::is_same_v<T, int64_t>   ? ColumnType::kInteger
                                                                : ColumnType::kNumber;
    SCRNA_CHECK(spec.kind == kKind, "column {}: values of another kind than declared", spec.name);
    if constexpr (std::is_same_v<T, int32_t>) {
      for (const int32_t code : values) {
        SCRNA_CHECK(code >= -1 && code < std::ssize(spec.categories), "column {}: code {} of {} categories",
                    spec.name, code, spec.categories.size());
      }
    }
    appenders_[column].append(values);
  }

  std::vector<ColumnSpec> columns_;
  Handle group_;
  Appender index_;
  std::vector<Appender> appenders_;
};

Handle create_dict(const Handle& parent, const std::string& name) {
  Handle group = h5::create_group(parent, name);
  h5::set_encoding(group, "dict", "0.1.0");
  return group;
}

}  // namespace

struct H5adWriter::Impl {
  Impl(const std::filesystem::path& path, std::vector<ColumnSpec> obs_columns, int level)
      : file(path), root(h5::create_file(file.temporary_path())), gzip_level(level) {
    h5::set_encoding(root, "anndata", "0.1.0");
    matrix = h5::create_group(root, "X");
    h5::set_encoding(matrix, "csr_matrix", "0.1.0");
    data.emplace(matrix, "data", ElementType::kFloat32, level);
    indices.emplace(matrix, "indices", ElementType::kInt32, level);
    indptr.emplace(matrix, "indptr", ElementType::kInt64, level);
    const int64_t zero = 0;
    indptr->append(std::span(&zero, 1));
    obs.emplace(root, "obs", std::move(obs_columns), level);
    for (const char* name : {"layers", "obsm", "obsp", "varm", "varp"}) create_dict(root, name);
    uns = create_dict(root, "uns");
  }

  AtomicFile file;
  Handle root, matrix, uns;  // declared after the file: closed before it is removed
  int gzip_level;
  std::optional<Appender> data, indices, indptr;
  std::optional<TableWriter> obs;
  std::map<std::string, Handle> uns_groups;
  int64_t num_genes = -1;
};

H5adWriter::H5adWriter(const std::filesystem::path& path, std::vector<ColumnSpec> obs_columns,
                       int gzip_level) {
  const std::scoped_lock lock(h5::hdf5_mutex());
  impl_ = std::make_unique<Impl>(path, std::move(obs_columns), gzip_level);
}
H5adWriter::~H5adWriter() {
  const std::scoped_lock lock(h5::hdf5_mutex());
  impl_.reset();
}

void H5adWriter::write_var(const std::vector<ColumnSpec>& columns, const TableRows& rows) {
  const std::scoped_lock lock(h5::hdf5_mutex());
  SCRNA_CHECK(impl_->num_genes < 0, "var was written before");
  TableWriter(impl_->root, "var", columns, impl_->gzip_level).append(rows);
  impl_->num_genes = std::ssize(rows.index);
}

void H5adWriter::append(const CellBlock& block, const TableRows& rows) {
  const std::scoped_lock lock(h5::hdf5_mutex());
  SCRNA_CHECK(block.num_cells() == std::ssize(rows.index) && block.indptr.front() == 0 &&
                  block.indptr.back() == std::ssize(block.genes) && block.genes.size() == block.values.size(),
              "{} cells with {} obs rows, {} genes, {} values", block.num_cells(), rows.index.size(),
              block.genes.size(), block.values.size());
  std::vector<int64_t> ends(block.indptr.begin() + 1, block.indptr.end());
  for (int64_t& end : ends) end += stored_values();
  impl_->data->append(block.values);
  impl_->indices->append(block.genes);
  impl_->indptr->append(ends);
  impl_->obs->append(rows);
}

void H5adWriter::write_uns(const std::string& group, const std::string& name,
                           const std::variant<std::string, int64_t, double>& value) {
  const std::scoped_lock lock(h5::hdf5_mutex());
  auto found = impl_->uns_groups.find(group);
  if (found == impl_->uns_groups.end())
    found = impl_->uns_groups.emplace(group, create_dict(impl_->uns, group)).first;
  std::visit([&](const auto& scalar) { h5::write_scalar(found->second, name, scalar); }, value);
}

int64_t H5adWriter::num_cells() const { return impl_->obs->num_rows(); }
int64_t H5adWriter::stored_values() const { return static_cast<int64_t>(impl_->data->size()); }

void H5adWriter::commit() {
  const std::scoped_lock lock(h5::hdf5_mutex());
  SCRNA_CHECK(impl_->num_genes >= 0, "write_var() was not called");
  h5::set_attribute(impl_->matrix, "shape", std::vector<int64_t>{num_cells(), impl_->num_genes});
  impl_->data.reset();
  impl_->indices.reset();
  impl_->indptr.reset();
  impl_->obs.reset();
  impl_->uns_groups.clear();
  impl_->uns = {};
  impl_->matrix = {};
  h5::close_file(std::exchange(impl_->root, {}), impl_->file.temporary_path());
  impl_->file.commit();
}

}  // namespace scrna::data
