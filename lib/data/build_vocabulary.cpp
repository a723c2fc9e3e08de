#include "lib/data/build_vocabulary.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/core/error.h"
#include "lib/data/gene_statistics.h"

namespace scrna::data {
namespace {

constexpr int64_t kCellsPerRead = 256;
constexpr double kNormalizedTotal = 10000;

struct GeneTotals {
  MedianSketch normalized;
  double counts = 0;
};

// Statistics of every gene id met so far.
class GeneTable {
 public:
  /// Index of each column's gene, -1 for a column without id.
  std::vector<int32_t> add_columns(const std::vector<std::string>& ids) {
    std::vector<int32_t> indices;
    indices.reserve(ids.size());
    for (const std::string& id : ids) {
      if (id.empty()) {
        indices.push_back(-1);
        continue;
      }
      const auto [entry, is_new] = index_of_.emplace(id, static_cast<int32_t>(totals_.size()));
      if (is_new) {
        totals_.emplace_back();
        cell_counts_.push_back(0);
      }
      indices.push_back(entry->second);
    }
    return indices;
  }

  void add_cells(const CellSource& source, const CellBlock& block, const std::vector<int32_t>& indices) {
    collect_values(source, block, indices);
    sort_by_gene();
    for (const Value& value : sorted_) {
      GeneTotals& totals = totals_[static_cast<std::size_t>(value.gene)];
      totals.normalized.add(value.normalized);
      totals.counts += value.counts;
    }
  }

  [[nodiscard]] std::vector<Gene> genes(int64_t min_cells) const {
    std::vector<Gene> genes;
    for (const auto& [id, index] : index_of_) {
      const GeneTotals& totals = totals_[static_cast<std::size_t>(index)];
      if (totals.normalized.size() < min_cells) continue;
      genes.push_back({.id = id,
                       .median = static_cast<float>(totals.normalized.median()),
                       .cells = totals.normalized.size(),
                       .counts = totals.counts});
    }
    std::sort(genes.begin(), genes.end(), [](const Gene& a, const Gene& b) { return a.id < b.id; });
    return genes;
  }
  [[nodiscard]] std::size_t size() const { return totals_.size(); }

 private:
  // A gene that a cell expresses.
  struct Value {
    int32_t gene;
    float normalized;
    double counts;
  };

  void collect_values(const CellSource& source, const CellBlock& block, const std::vector<int32_t>& indices) {
    values_.clear();
    for (std::size_t cell = 0; cell < static_cast<std::size_t>(block.num_cells()); ++cell) {
      if (!source.is_chosen(block.first_cell + static_cast<int64_t>(cell))) continue;
      double total = 0;
      for (auto i = static_cast<std::size_t>(block.indptr[cell]);
           i < static_cast<std::size_t>(block.indptr[cell + 1]); ++i) {
        const float value = block.values[i];
        if (!(value > 0)) continue;
        total += value;
        const int32_t gene = indices[static_cast<std::size_t>(block.genes[i])];
        if (gene < 0) continue;
        double& count = cell_counts_[static_cast<std::size_t>(gene)];
        if (count == 0) expressed_.push_back(gene);
        count += value;
      }
      for (const int32_t gene : expressed_) {
        double& count = cell_counts_[static_cast<std::size_t>(gene)];
        values_.push_back({gene, static_cast<float>(count * (kNormalizedTotal / total)), count});
        count = 0;
      }
      expressed_.clear();
    }
  }

  // A counting sort that keeps the order of cells. Values of one gene are then added together: cell by cell,
  // nearly every value would wait for memory, since the sketches of all genes do not fit into any cache.
  void sort_by_gene() {
    place_.assign(totals_.size() + 1, 0);
    for (const Value& value : values_) ++place_[static_cast<std::size_t>(value.gene) + 1];
    std::partial_sum(place_.begin(), place_.end(), place_.begin());
    sorted_.resize(values_.size());
    for (const Value& value : values_) sorted_[place_[static_cast<std::size_t>(value.gene)]++] = value;
  }

  std::unordered_map<std::string, int32_t> index_of_;
  std::vector<GeneTotals> totals_;
  std::vector<double> cell_counts_;     // of the cell at hand; zero between cells
  std::vector<int32_t> expressed_;      // genes of the cell at hand
  std::vector<Value> values_, sorted_;  // of the block at hand
  std::vector<std::size_t> place_;      // [genes + 1] of sorted_
};

}  // namespace

Vocabulary build_vocabulary(std::span<const CellSource> sources, int64_t min_cells,
                            const Progress& progress) {
  SCRNA_CHECK(!sources.empty(), "no source");
  int64_t num_cells = 0;
  for (const CellSource& source : sources) {
    num_cells += source.matrix->num_cells();
    if (source.gene_ids.type != sources[0].gene_ids.type) {
      throw DataError(
          "{} has {} gene ids ({}), but {} has {} ones ({}); one vocabulary needs one kind: set "
          "data.gene_column "
          "to a var column that every file has, or train on files of one kind",
          source.name, name_of(source.gene_ids.type), source.gene_ids.source, sources[0].name,
          name_of(sources[0].gene_ids.type), sources[0].gene_ids.source);
    }
  }
  GeneTable table;
  int64_t done = 0;
  for (const CellSource& source : sources) {
    const std::vector<int32_t> indices = table.add_columns(source.gene_ids.ids);
    for (int64_t first = 0; first < source.matrix->num_cells(); first += kCellsPerRead) {
      const int64_t count = std::min(kCellsPerRead, source.matrix->num_cells() - first);
      if (source.any_chosen(first, count)) {
        const CellBlock block = source.matrix->read(first, count);
        check_values(source, block);
        table.add_cells(source, block, indices);
      }
      done += count;
      if (progress) progress("vocabulary", done, num_cells);
    }
  }
  std::vector<Gene> genes = table.genes(std::max<int64_t>(min_cells, 1));
  if (genes.empty()) {
    throw DataError(
        "none of the {} genes in {} file(s) is expressed in at least {} cell(s) (data.vocabulary_min_cells); "
        "there is "
        "nothing to learn from",
        table.size(), sources.size(), min_cells);
  }
  return Vocabulary(std::move(genes));
}

}  // namespace scrna::data
