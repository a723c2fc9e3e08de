#include "lib/data/matrix.h"

#include <limits>
#include <vector>

#include "lib/core/error.h"
#include "lib/data/matrix_layouts.h"

namespace scrna::data {
namespace {

void check_shape(const std::vector<int64_t>& shape, int64_t num_cells, int64_t num_genes,
                 const std::string& where) {
  if (shape.size() != 2) {
    throw DataError("{}: expected a shape of two sizes, cells x genes, got {}", where,
                    shape.empty() ? "none" : fmt::format("{}", shape.size()));
  }
  if (shape[0] != num_cells || shape[1] != num_genes) {
    throw DataError(
        "{}: its shape is {} x {}, but the file has {} cells (obs) and {} genes (var); the file is damaged",
        where, shape[0], shape[1], num_cells, num_genes);
  }
  constexpr int64_t kMaxIndex = std::numeric_limits<int32_t>::max() - 1;
  if (num_genes > kMaxIndex) throw DataError("{}: {} genes are more than can be handled", where, num_genes);
}

// Some writers say nothing (rare, and not for the anndata package); then the length of indptr does, unless
// there are as many cells as genes. "" when it does not.
std::string encoding_of(const h5::Group& group, int64_t num_cells, int64_t num_genes) {
  for (const char* attribute : {"encoding-type", "h5sparse_format"}) {  // the latter: AnnData before 0.7
    if (const auto encoding = group.text_attribute(attribute); encoding && !encoding->empty())
      return *encoding;
  }
  if (num_cells == num_genes || group.kind_of("indptr") != h5::ObjectKind::kDataset) return "";
  const auto num_lines = static_cast<int64_t>(group.dataset("indptr").num_elements()) - 1;
  return num_lines == num_cells ? "csr_matrix" : num_lines == num_genes ? "csc_matrix" : "";
}

// An attribute, or a data set as in 10x files; empty when there is none.
std::vector<int64_t> shape_of(const h5::Group& group) {
  for (const char* attribute : {"shape", "h5sparse_shape"}) {
    if (auto shape = group.integer_list_attribute(attribute)) return *std::move(shape);
  }
  if (group.kind_of("shape") == h5::ObjectKind::kDataset) return group.dataset("shape").read_integers();
  return {};
}

}  // namespace

std::shared_ptr<const CountMatrix> open_matrix(const h5::Group& root, const std::string& path,
                                               const std::string& name, int64_t num_cells,
                                               int64_t num_genes) {
  if (root.kind_of(path) == h5::ObjectKind::kDataset) {
    h5::Dataset dataset = root.dataset(path);
    check_shape({dataset.shape().begin(), dataset.shape().end()}, num_cells, num_genes, dataset.where());
    return open_dense(std::move(dataset), name, num_cells, num_genes);
  }
  const h5::Group group = root.group(path);
  const std::string encoding = encoding_of(group, num_cells, num_genes);
  const bool is_csr = encoding == "csr_matrix" || encoding == "csr";
  if (!is_csr && encoding != "csc_matrix" && encoding != "csc") {
    throw DataError("{}: its encoding {} is not one that can be read (csr_matrix, csc_matrix, array)",
                    group.where(), encoding.empty() ? "is missing and" : "'" + encoding + "'");
  }
  check_shape(shape_of(group), num_cells, num_genes, group.where());
  if (is_csr) return open_csr(group, name, num_cells, num_genes);
  return open_csc(group, name, num_cells, num_genes);
}

}  // namespace scrna::data
