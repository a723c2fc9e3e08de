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
  // h5sparse_*: AnnData before 0.7.
  const std::string encoding =
      group.text_attribute("encoding-type").value_or(group.text_attribute("h5sparse_format").value_or(""));
  const bool is_csr = encoding == "csr_matrix" || encoding == "csr";
  if (!is_csr && encoding != "csc_matrix" && encoding != "csc") {
    throw DataError("{}: its encoding {} is not one that can be read (csr_matrix, csc_matrix, array)",
                    group.where(), encoding.empty() ? "is missing and" : "'" + encoding + "'");
  }
  const auto shape = group.integer_list_attribute("shape").value_or(
      group.integer_list_attribute("h5sparse_shape").value_or(std::vector<int64_t>{}));
  check_shape(shape, num_cells, num_genes, group.where());
  if (is_csr) return open_csr(group, name, num_cells, num_genes);
  return open_csc(group, name, num_cells, num_genes);
}

}  // namespace scrna::data
