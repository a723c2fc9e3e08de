#include "lib/eval/cell_matrix.h"

#include <algorithm>

#include "lib/core/error.h"

namespace scrna::eval {
namespace {

/// Drops the names without a cell.
Labels compact(std::vector<int32_t> codes, std::span<const std::string> names) {
  std::vector<int32_t> renumbered(names.size(), -1);
  for (const int32_t code : codes) renumbered[code] = 0;
  Labels out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (renumbered[i] < 0) continue;
    renumbered[i] = static_cast<int32_t>(out.names.size());
    out.names.push_back(names[i]);
  }
  for (int32_t& code : codes) code = renumbered[code];
  out.codes = std::move(codes);
  return out;
}

}  // namespace

std::vector<int64_t> Labels::sizes() const {
  std::vector<int64_t> sizes(names.size());
  for (const int32_t code : codes) ++sizes[code];
  return sizes;
}

std::vector<double> column_means(const CellMatrix& matrix) {
  std::vector<double> means(matrix.width);
  for (int64_t i = 0; i < matrix.cells; ++i)
    for (int64_t j = 0; j < matrix.width; ++j) means[j] += matrix.row(i)[j];
  for (double& mean : means) mean /= static_cast<double>(matrix.cells);
  return means;
}

CellMatrix rows_of(const CellMatrix& matrix, std::span<const int64_t> cells) {
  CellMatrix out(static_cast<int64_t>(cells.size()), matrix.width);
  for (int64_t i = 0; i < out.cells; ++i) std::copy_n(matrix.row(cells[i]), matrix.width, out.row(i));
  return out;
}

Labels labels_of(const Labels& labels, std::span<const int64_t> cells) {
  std::vector<int32_t> codes;
  codes.reserve(cells.size());
  for (const int64_t cell : cells) codes.push_back(labels.codes[cell]);
  return compact(std::move(codes), labels.names);
}

Labels labels_from_codes(std::span<const int32_t> codes, std::span<const std::string> names,
                         std::vector<int64_t>& cells) {
  cells.clear();
  std::vector<int32_t> kept;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (codes[i] < 0) continue;
    SCRNA_CHECK(codes[i] < static_cast<int64_t>(names.size()), "code {} of {}", codes[i], names.size());
    cells.push_back(static_cast<int64_t>(i));
    kept.push_back(codes[i]);
  }
  return compact(std::move(kept), names);
}

Labels joint_labels(const Labels& a, const Labels& b) {
  SCRNA_CHECK(a.cells() == b.cells(), "{} and {} cells", a.cells(), b.cells());
  std::vector<std::string> names;
  for (const std::string& first : a.names)
    for (const std::string& second : b.names) names.push_back(first + "|" + second);
  std::vector<int32_t> codes;
  for (int64_t i = 0; i < a.cells(); ++i) codes.push_back(a.codes[i] * b.count() + b.codes[i]);
  return compact(std::move(codes), names);
}

}  // namespace scrna::eval
