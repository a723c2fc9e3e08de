#include "lib/data/tenx.h"

#include <algorithm>
#include <map>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/core/suggest.h"
#include "lib/data/matrix_layouts.h"

namespace scrna::data {
namespace {

constexpr const char* kExpression = "Gene Expression";

bool holds_a_matrix(const h5::Group& root, const std::string& path) {
  return root.has(path + "/barcodes") && root.has(path + "/indptr");
}

// Selected columns of another matrix. Its order of genes is kept, so cells stay sorted.
class SelectedGenes : public MatrixBase {
 public:
  SelectedGenes(std::shared_ptr<const CountMatrix> matrix, const std::vector<int64_t>& kept)
      : MatrixBase(matrix->name(), matrix->num_cells(), std::ssize(kept)),
        matrix_(std::move(matrix)),
        column_of_(static_cast<std::size_t>(matrix_->num_genes()), -1) {
    for (std::size_t i = 0; i < kept.size(); ++i)
      column_of_[static_cast<std::size_t>(kept[i])] = static_cast<int32_t>(i);
  }
  MatrixLayout layout() const override { return matrix_->layout(); }
  int64_t stored_values() const override { return matrix_->stored_values(); }
  bool has_integer_type() const override { return matrix_->has_integer_type(); }
  std::string type_name() const override { return matrix_->type_name(); }

  CellBlock read(int64_t first_cell, int64_t count) const override {
    CellBlock block = matrix_->read(first_cell, count);
    std::size_t kept = 0, entry = 0;
    for (std::size_t cell = 1; cell < block.indptr.size(); ++cell) {
      for (; entry < static_cast<std::size_t>(block.indptr[cell]); ++entry) {
        const int32_t column = column_of_[static_cast<std::size_t>(block.genes[entry])];
        if (column < 0) continue;
        block.genes[kept] = column;
        block.values[kept++] = block.values[entry];
      }
      block.indptr[cell] = static_cast<int64_t>(kept);
    }
    block.genes.resize(kept);
    block.values.resize(kept);
    return block;
  }

 private:
  std::shared_ptr<const CountMatrix> matrix_;
  std::vector<int32_t> column_of_;  // [columns of matrix_] -1: left out
};

DataError unknown_genome(const std::string& where, const std::string& genome,
                         const std::vector<std::string>& genomes) {
  const std::string nearest = nearest_name(genome, genomes);
  return DataError("{} has no genome '{}'; {}it has: {}. Set data.genome (inspect: --genome) to one of them",
                   where, genome, nearest.empty() ? "" : "did you mean '" + nearest + "'? ",
                   fmt::join(genomes, ", "));
}

// Cell Ranger 3 and later.
TenxFile open_features(const h5::Group& root, const std::string& genome) {
  h5::Group group = root.group("matrix");
  h5::Group features = group.group("features");
  std::vector<std::pair<std::string, std::string>> columns;
  for (const std::string& member : features.members()) {
    if (member == "name" || member == "_all_tag_keys" || features.kind_of(member) != h5::ObjectKind::kDataset)
      continue;
    columns.emplace_back(member == "id"             ? "gene_ids"
                         : member == "feature_type" ? "feature_types"
                                                    : member,
                         member);
  }
  const auto has = [&](const std::string& name) {
    return std::any_of(columns.begin(), columns.end(),
                       [&](const auto& column) { return column.first == name; });
  };
  Table obs(root.group("matrix"), "barcodes", {});
  Table var(std::move(features), "name", columns);
  const std::vector<std::string> types =
      has("feature_types") ? var.texts("feature_types") : std::vector<std::string>{};
  const bool has_expression = std::find(types.begin(), types.end(), kExpression) != types.end();
  if (!types.empty() && !has_expression) {
    throw DataError(
        "{} is a 10x .h5 file without features of type '{}' (they are '{}'); there is nothing to train on",
        root.where(), kExpression, types.front());
  }
  const std::vector<std::string> genomes = has("genome") ? var.texts("genome") : std::vector<std::string>{};
  std::map<std::string, int64_t> left_out, kept_of_genome;
  std::vector<int64_t> kept;
  for (int64_t row = 0; row < var.num_rows(); ++row) {
    const auto at = static_cast<std::size_t>(row);
    if (has_expression && types[at] != kExpression) {
      ++left_out[types[at]];
      continue;
    }
    if (!genomes.empty()) ++kept_of_genome[genomes[at]];
    if (genome.empty() || genomes.empty() || genomes[at] == genome) kept.push_back(row);
  }
  if (!genome.empty() && !kept_of_genome.contains(genome)) {
    std::vector<std::string> known;
    for (const auto& [name, count] : kept_of_genome) known.push_back(name);
    if (known.empty()) known.emplace_back("no genome at all");
    throw unknown_genome(root.where(), genome, known);
  }
  for (const auto& [type, count] : left_out)
    log::info("[data] {} {} features of type '{}' are left out", root.where(), count, type);
  if (genome.empty() && kept_of_genome.size() > 1) {
    std::string sizes;
    for (const auto& [name, count] : kept_of_genome)
      sizes += fmt::format("{}{} ({} genes)", sizes.empty() ? "" : ", ", name, count);
    log::info("[data] {} genes of several genomes are read together: {}; data.genome chooses one",
              root.where(), sizes);
  }
  if (std::ssize(kept) == var.num_rows()) kept.clear();
  return {.format = "10x Genomics .h5 (Cell Ranger 3 or later)",
          .group = std::move(group),
          .obs = std::move(obs),
          .var = std::move(var),
          .kept = std::move(kept)};
}

// Cell Ranger 2 and earlier.
TenxFile open_genome(const h5::Group& root, const std::vector<std::string>& genomes,
                     const std::string& wanted) {
  if (wanted.empty() && genomes.size() > 1) {
    throw DataError(
        "{} is a 10x .h5 file with {} genomes, each with cells of its own: {}. Choose one with data.genome "
        "(inspect: "
        "--genome)",
        root.where(), genomes.size(), fmt::join(genomes, ", "));
  }
  const std::string& genome = wanted.empty() ? genomes.front() : wanted;
  if (std::find(genomes.begin(), genomes.end(), genome) == genomes.end())
    throw unknown_genome(root.where(), genome, genomes);
  h5::Group group = root.group(genome);
  Table obs(root.group(genome), "barcodes", {});
  Table var(root.group(genome), "gene_names", {{"gene_ids", "genes"}});
  return {.format = "10x Genomics .h5 (Cell Ranger 2 or earlier)",
          .group = std::move(group),
          .obs = std::move(obs),
          .var = std::move(var),
          .kept = {}};
}

}  // namespace

std::optional<TenxFile> open_tenx(const h5::Group& root, const std::string& genome) {
  if (root.has("obs") || root.has("row_attrs") || root.has("mod")) return std::nullopt;
  if (holds_a_matrix(root, "matrix") && root.has("matrix/features")) return open_features(root, genome);
  std::vector<std::string> genomes;
  for (const std::string& member : root.members()) {
    if (root.kind_of(member) == h5::ObjectKind::kGroup && holds_a_matrix(root, member) &&
        root.has(member + "/gene_names")) {
      genomes.push_back(member);
    }
  }
  if (genomes.empty()) return std::nullopt;
  return open_genome(root, genomes, genome);
}

std::shared_ptr<const CountMatrix> open_tenx_matrix(const TenxFile& file, const std::string& name) {
  const int64_t num_cells = file.obs.num_rows(), num_features = file.var.num_rows();
  const std::vector<int64_t> shape = file.group.dataset("shape").read_integers();  // features x barcodes
  if (shape != std::vector<int64_t>{num_features, num_cells}) {
    throw DataError("{}/shape: is {}, but the file has {} features and {} barcodes; the file is damaged",
                    file.group.where(), fmt::join(shape, " x "), num_features, num_cells);
  }
  auto matrix = open_csr(file.group, name, num_cells, num_features);
  if (file.kept.empty()) return matrix;
  return std::make_shared<SelectedGenes>(std::move(matrix), file.kept);
}

}  // namespace scrna::data
