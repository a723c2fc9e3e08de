#include "lib/data/anndata.h"

#include <algorithm>
#include <initializer_list>
#include <mutex>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/suggest.h"
#include "lib/data/hdf5.h"
#include "lib/data/matrix.h"
#include "lib/data/table.h"
#include "lib/data/tenx.h"

namespace scrna::data {
namespace {

// Other kinds of HDF5 file that people take for .h5ad, each told apart by what only it has.
void refuse_relatives(const h5::Group& root) {
  const auto has_all = [&](std::initializer_list<const char*> names) {
    return std::all_of(names.begin(), names.end(), [&](const char* name) { return root.has(name); });
  };
  if (has_all({"mod"}))
    throw DataError("{} is a MuData .h5mu file; write one modality as .h5ad: mdata['rna'].write_h5ad(path)",
                    root.where());
  if (has_all({"row_attrs", "col_attrs"})) {
    throw DataError("{} is a loom file; convert it once: anndata.io.read_loom(path).write_h5ad(new_path)",
                    root.where());
  }
  if (has_all({"obs", "var"})) return;
  if (has_all({"barcode_idx"}) || has_all({"molecule_info"}) || has_all({"gem_group", "umi"})) {
    throw DataError(
        "{} is a 10x molecule_info.h5 file, single molecules without a matrix; take "
        "filtered_feature_bc_matrix.h5 of the "
        "same run",
        root.where());
  }
  if (has_all({"cell.names", "assays"})) {
    throw DataError(
        "{} is an .h5Seurat file; convert it once, in R: SeuratDisk::Convert(path, dest = \"h5ad\")",
        root.where());
  }
  const std::vector<std::string> members = root.members();
  const bool is_hdf_store = std::any_of(members.begin(), members.end(), [&](const std::string& member) {
    return root.text_attribute("pandas_type", member).has_value();
  });
  if (is_hdf_store) {
    throw DataError(
        "{} is a pandas HDFStore; convert it once: "
        "anndata.AnnData(pandas.read_hdf(path)).write_h5ad(new_path)",
        root.where());
  }
  constexpr std::size_t kShown = 6;
  throw DataError(
      "{} is an HDF5 file, but not AnnData: it lacks the table{} {}; its root holds {}{}. Expected an .h5ad "
      "file or a 10x "
      ".h5 file",
      root.where(), root.has("obs") || root.has("var") ? "" : "s",
      root.has("obs")   ? "'var'"
      : root.has("var") ? "'obs'"
                        : "'obs' and 'var'",
      members.empty() ? "nothing"
                      : fmt::format("{}", fmt::join(members.begin(),
                                                    members.begin() + static_cast<std::ptrdiff_t>(
                                                                          std::min(kShown, members.size())),
                                                    ", ")),
      members.size() > kShown ? ", ..." : "");
}

}  // namespace

struct AnnDataFile::Impl {
  Impl(const std::filesystem::path& file, const std::string& genome)
      : path(file), root(h5::open_file(file)), tenx(open_tenx(root, genome)) {
    if (tenx) {
      names.emplace_back("X");
    } else {
      open_anndata();
    }
    if (num_cells() == 0) throw DataError("{} has zero cells; there is nothing to train on", root.where());
  }
  void open_anndata() {
    refuse_relatives(root);
    own_obs.emplace(root, "obs");
    own_var.emplace(root, "var");
    // Before AnnData 0.7, raw was two members of the root: "raw.X" and "raw.var".
    for (const char* prefix : {"raw/", "raw."}) {
      if (raw_var || !root.has(std::string(prefix) + "X") || !root.has(std::string(prefix) + "var")) continue;
      raw_var.emplace(root, std::string(prefix) + "var");
      raw_path = std::string(prefix) + "X";
    }
    if (root.has("X") && !is_null("X")) names.emplace_back("X");
    if (raw_var && !is_null(raw_path)) names.emplace_back("raw/X");
    if (root.kind_of("layers") == h5::ObjectKind::kGroup) {
      for (const std::string& layer : root.group("layers").members()) names.push_back("layers/" + layer);
    }
    if (names.empty())
      throw DataError("{} has no matrix: neither X, nor raw/X, nor layers; there is nothing to train on",
                      root.where());
  }
  [[nodiscard]] bool is_null(const std::string& matrix) const {  // X = None
    return root.text_attribute("encoding-type", matrix).value_or("") == "null";
  }
  [[nodiscard]] const Table& var_of(std::string_view matrix_name) const {
    return tenx ? tenx->var : matrix_name == "raw/X" && raw_var ? *raw_var : *own_var;
  }
  [[nodiscard]] const Table& obs() const { return tenx ? tenx->obs : *own_obs; }
  [[nodiscard]] int64_t num_cells() const { return obs().num_rows(); }
  /// Those of a 10x file's features that are genes of the wanted genome.
  [[nodiscard]] std::vector<std::string> of_kept_genes(std::vector<std::string> texts) const {
    if (!tenx || tenx->kept.empty()) return texts;
    std::vector<std::string> kept;
    kept.reserve(tenx->kept.size());
    for (const int64_t row : tenx->kept) kept.push_back(std::move(texts[static_cast<std::size_t>(row)]));
    return kept;
  }

  std::filesystem::path path;
  h5::Group root;
  std::optional<TenxFile> tenx;
  std::optional<Table> own_obs, own_var, raw_var;  // of AnnData
  std::string raw_path;
  std::vector<std::string> names;
};

std::string_view name_of(MatrixLayout layout) {
  return layout == MatrixLayout::kCsr ? "CSR" : layout == MatrixLayout::kCsc ? "CSC" : "dense";
}

std::string_view name_of(ColumnKind kind) {
  switch (kind) {
    case ColumnKind::kCategorical:
      return "categorical";
    case ColumnKind::kText:
      return "text";
    case ColumnKind::kInteger:
      return "integer";
    case ColumnKind::kFloat:
      return "float";
    case ColumnKind::kBoolean:
      return "boolean";
    case ColumnKind::kOther:
      break;
  }
  return "other";
}

AnnDataFile::AnnDataFile(const std::filesystem::path& path, const std::string& genome) {
  const std::scoped_lock lock(h5::hdf5_mutex());
  impl_ = std::make_shared<const Impl>(path, genome);
}
AnnDataFile::~AnnDataFile() = default;
AnnDataFile::AnnDataFile(AnnDataFile&&) noexcept = default;
AnnDataFile& AnnDataFile::operator=(AnnDataFile&&) noexcept = default;

const std::filesystem::path& AnnDataFile::path() const { return impl_->path; }
int64_t AnnDataFile::num_cells() const { return impl_->num_cells(); }
std::vector<std::string> AnnDataFile::matrix_names() const { return impl_->names; }
std::string AnnDataFile::format() const {
  const std::scoped_lock lock(h5::hdf5_mutex());
  if (impl_->tenx) return impl_->tenx->format;
  const h5::Group& root = impl_->root;
  if (root.text_attribute("encoding-type").value_or("") == "anndata")
    return fmt::format("AnnData encoding {} (anndata 0.8 or later)",
                       root.text_attribute("encoding-version").value_or("of unknown version"));
  if (root.kind_of("obs") == h5::ObjectKind::kDataset) return "AnnData before 0.7 (tables of records)";
  return "AnnData 0.7";
}

std::shared_ptr<const CountMatrix> AnnDataFile::open_matrix(std::string_view name) const {
  const std::scoped_lock lock(h5::hdf5_mutex());
  if (std::find(impl_->names.begin(), impl_->names.end(), name) == impl_->names.end()) {
    const std::string nearest = nearest_name(name, impl_->names);
    throw DataError("{}: has no matrix '{}'; {}it has: {}", impl_->path.string(), name,
                    nearest.empty() ? "" : "did you mean '" + nearest + "'? ", fmt::join(impl_->names, ", "));
  }
  if (impl_->tenx) return open_tenx_matrix(*impl_->tenx, std::string(name));
  const std::string path = name == "raw/X" ? impl_->raw_path : std::string(name);
  return data::open_matrix(impl_->root, path, std::string(name), num_cells(), impl_->var_of(name).num_rows());
}

std::vector<std::string> AnnDataFile::var_columns(std::string_view matrix_name) const {
  return impl_->var_of(matrix_name).columns();
}
std::vector<std::string> AnnDataFile::var_index(std::string_view matrix_name) const {
  const std::scoped_lock lock(h5::hdf5_mutex());
  return impl_->of_kept_genes(impl_->var_of(matrix_name).index());
}
std::vector<std::string> AnnDataFile::var_column(std::string_view matrix_name,
                                                 std::string_view column) const {
  const std::scoped_lock lock(h5::hdf5_mutex());
  return impl_->of_kept_genes(impl_->var_of(matrix_name).texts(column));
}
std::vector<std::string> AnnDataFile::obs_columns() const { return impl_->obs().columns(); }
std::vector<std::string> AnnDataFile::obs_index() const {
  const std::scoped_lock lock(h5::hdf5_mutex());
  return impl_->obs().index();
}
ColumnKind AnnDataFile::obs_kind(std::string_view column) const {
  const std::scoped_lock lock(h5::hdf5_mutex());
  return impl_->obs().kind(column);
}
CategoryColumn AnnDataFile::obs_categories(std::string_view column) const {
  const std::scoped_lock lock(h5::hdf5_mutex());
  return impl_->obs().categories(column);
}
std::vector<double> AnnDataFile::obs_numbers(std::string_view column) const {
  const std::scoped_lock lock(h5::hdf5_mutex());
  return impl_->obs().numbers(column);
}

}  // namespace scrna::data
