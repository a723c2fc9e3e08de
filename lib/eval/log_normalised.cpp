#include "lib/eval/log_normalised.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "lib/core/error.h"
#include "lib/eval/principal_components.h"

namespace scrna::eval {
namespace {

constexpr int64_t kBlockCells = 2048;
constexpr int kBins = 20;

/// One cell's values, scaled to the same sum (or as they are).
using CellVisitor = std::function<void(int64_t place, std::span<const int32_t> genes, std::span<const double> values)>;

void for_each_cell(const data::CountMatrix& matrix, std::span<const int64_t> cells, const LogNormalisedOptions& options,
                   const CellVisitor& visit) {
  data::CellBlock block;
  std::vector<double> values;
  std::size_t next = 0;
  while (next < cells.size()) {
    const int64_t first = cells[next], count = std::min(kBlockCells, matrix.num_cells() - first);
    matrix.read_into(first, count, block);
    for (; next < cells.size() && cells[next] < first + count; ++next) {
      const int64_t begin = block.indptr[cells[next] - first], end = block.indptr[cells[next] - first + 1];
      values.assign(block.values.begin() + begin, block.values.begin() + end);
      double total = 0;
      for (const double value : values) {
        if (!(value >= 0) || std::isinf(value))
          throw DataError("{}: cell {} has the value {}; counts or log-normalised values are expected, never negative",
                          matrix.name(), cells[next], value);
        total += value;
      }
      if (!options.is_normalised && total > 0)
        for (double& value : values) value *= options.counts_per_cell / total;
      visit(static_cast<int64_t>(next), {block.genes.data() + begin, static_cast<std::size_t>(end - begin)}, values);
    }
  }
}

}  // namespace

std::vector<int32_t> variable_genes(std::span<const double> means, std::span<const double> variances, int64_t count) {
  std::vector<int32_t> genes;  // with counts
  std::vector<double> mean_logs, dispersions;
  for (std::size_t g = 0; g < means.size(); ++g) {
    if (!(means[g] > 0) || !(variances[g] > 0)) continue;
    genes.push_back(static_cast<int32_t>(g));
    mean_logs.push_back(std::log1p(means[g]));
    dispersions.push_back(std::log(variances[g] / means[g]));
  }
  if (static_cast<int64_t>(genes.size()) <= count) return genes;
  // Bins from the smallest mean, 0 for a gene without counts if there is one.
  double low = genes.size() < means.size() ? 0 : *std::min_element(mean_logs.begin(), mean_logs.end());
  const double high = *std::max_element(mean_logs.begin(), mean_logs.end());
  std::vector<int> bins(genes.size());
  std::vector<double> sums(kBins), squares(kBins), sizes(kBins);
  for (std::size_t i = 0; i < genes.size(); ++i) {
    const double place = high > low ? std::ceil((mean_logs[i] - low) / (high - low) * kBins) - 1 : 0;
    bins[i] = std::clamp(static_cast<int>(place), 0, kBins - 1);
    sums[bins[i]] += dispersions[i];
    ++sizes[bins[i]];
  }
  for (std::size_t i = 0; i < genes.size(); ++i) {
    const double difference = dispersions[i] - sums[bins[i]] / sizes[bins[i]];
    squares[bins[i]] += difference * difference;
  }
  std::vector<double> normalised(genes.size());
  for (std::size_t i = 0; i < genes.size(); ++i) {
    const int bin = bins[i];
    const double mean = sums[bin] / sizes[bin], deviation = sizes[bin] > 1 ? std::sqrt(squares[bin] / (sizes[bin] - 1)) : 0;
    // A gene alone in its bin counts as one deviation above.
    normalised[i] = sizes[bin] < 2 ? 1 : deviation > 0 ? (dispersions[i] - mean) / deviation : 0;
  }
  std::vector<int64_t> order(genes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return normalised[a] > normalised[b]; });
  std::vector<int32_t> chosen;
  for (int64_t i = 0; i < count; ++i) chosen.push_back(genes[order[i]]);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

CellMatrix log_normalised_components(const data::CountMatrix& matrix, std::span<const int64_t> cells,
                                     const LogNormalisedOptions& options) {
  SCRNA_CHECK(std::is_sorted(cells.begin(), cells.end()), "cells must ascend");
  const double n = static_cast<double>(cells.size());
  std::vector<double> means(matrix.num_genes()), variances(matrix.num_genes());
  for_each_cell(matrix, cells, options, [&](int64_t, std::span<const int32_t> genes, std::span<const double> values) {
    for (std::size_t i = 0; i < genes.size(); ++i) {
      const double value = options.is_normalised ? std::expm1(values[i]) : values[i];
      means[genes[i]] += value;
      variances[genes[i]] += value * value;
    }
  });
  for (std::size_t g = 0; g < means.size(); ++g) {
    means[g] /= n;
    variances[g] = std::max(0.0, (variances[g] / n - means[g] * means[g]) * n / std::max(1.0, n - 1));
  }
  const std::vector<int32_t> chosen = variable_genes(means, variances, options.num_genes);
  if (chosen.empty()) throw DataError("{}: no gene varies over the {} cells", matrix.name(), cells.size());
  std::vector<int32_t> column(means.size(), -1);
  for (std::size_t j = 0; j < chosen.size(); ++j) column[chosen[j]] = static_cast<int32_t>(j);

  CellMatrix logs(static_cast<int64_t>(cells.size()), static_cast<int64_t>(chosen.size()));
  for_each_cell(matrix, cells, options, [&](int64_t place, std::span<const int32_t> genes, std::span<const double> values) {
    for (std::size_t i = 0; i < genes.size(); ++i)
      if (column[genes[i]] >= 0) logs.row(place)[column[genes[i]]] = options.is_normalised ? values[i] : std::log1p(values[i]);
  });
  return first_components(logs, options.num_components).scores;
}

}  // namespace scrna::eval
