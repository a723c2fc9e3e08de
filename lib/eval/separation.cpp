#include "lib/eval/separation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "lib/core/random.h"
#include "lib/eval/dense.h"
#include "lib/eval/distances.h"
#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

constexpr uint64_t kSubsample = 2, kResample = 3;  // streams of RandomPurpose::kEvaluate

/// Cells of a label, at most `most` of them, ascending.
std::vector<int64_t> cells_of(const Labels& labels, int32_t label, int64_t most, uint64_t seed) {
  std::vector<int64_t> cells;
  for (int64_t i = 0; i < labels.cells(); ++i)
    if (labels.codes[i] == label) cells.push_back(i);
  const int64_t count = static_cast<int64_t>(cells.size());
  if (count <= most) return cells;
  const RandomStream random(seed, RandomPurpose::kEvaluate, kSubsample, label);
  for (int64_t i = 0; i < most; ++i) std::swap(cells[i], cells[i + random.below(count - i, i)]);
  cells.resize(most);
  std::sort(cells.begin(), cells.end());
  return cells;
}

/// Row r: how often resample r holds each of the cells, over their number. [resamples, width] at `offset`
void draw_weights(CellMatrix& weights, int64_t offset, int64_t count, int32_t label, uint64_t seed) {
  parallel_for(weights.cells, [&](int64_t r) {
    const RandomStream random(seed, RandomPurpose::kEvaluate, kResample + static_cast<uint64_t>(label), r);
    double* row = weights.row(r) + offset;
    for (int64_t i = 0; i < count; ++i) row[random.below(count, i)] += 1 / static_cast<double>(count);
  });
}

double quantile(std::vector<double>& sorted, double part) {
  const double place = part * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (place - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

/// Squared distances of all pairs. [n, n]
std::vector<double> squared_distances(const CellMatrix& matrix) {
  std::vector<double> out(matrix.cells * matrix.cells);
  for_each_distance_block(matrix, [&](int64_t first, int64_t count, const double* block) {
    parallel_for(count, [&](int64_t r) {
      std::copy_n(block + r * matrix.cells, matrix.cells, out.begin() + (first + r) * matrix.cells);
    });
  });
  return out;
}

/// The number of rank `rank` among the entries off the diagonal, none negative: by the 16 highest bits, then the next, each
/// a count over all threads. Sorting 16 million numbers for each of a thousand pairs of labels would take minutes; so would, for
/// small labels, clearing counters that are many more than the numbers.
double entry_of_rank(const std::vector<double>& values, int64_t n, int64_t rank) {
  constexpr int64_t kBins = 65536, kMaxParts = 64, kLeastEntries = 4 * kBins;  // of a part
  const int64_t num_parts = std::clamp<int64_t>(n * n / kLeastEntries, 1, std::min(kMaxParts, n));
  uint64_t prefix = 0;
  for (int shift = 48; shift >= 0; shift -= 16) {
    std::vector<std::vector<int64_t>> counts(num_parts);
    parallel_for(num_parts, [&](int64_t part) {
      counts[part].assign(kBins, 0);
      for (int64_t i = n * part / num_parts; i < n * (part + 1) / num_parts; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          const auto bits = std::bit_cast<uint64_t>(values[i * n + j]);
          const bool has_prefix = shift == 48 || (bits >> (shift + 16)) == prefix;
          if (has_prefix && i != j) ++counts[part][(bits >> shift) % kBins];
        }
      }
    });
    int64_t bin = 0;
    for (;; ++bin) {
      int64_t in_bin = 0;
      for (const std::vector<int64_t>& part : counts) in_bin += part[bin];
      if (rank < in_bin) break;
      rank -= in_bin;
    }
    prefix = prefix << 16 | static_cast<uint64_t>(bin);
  }
  return std::bit_cast<double>(prefix);
}

/// Median distance of pairs of different cells; in the symmetric matrix each pair stands twice.
double median_distance(const std::vector<double>& squared, int64_t n) {
  const int64_t pairs = n * (n - 1) / 2;
  const double upper = std::sqrt(entry_of_rank(squared, n, 2 * (pairs / 2)));
  return pairs % 2 == 1 ? upper : (upper + std::sqrt(entry_of_rank(squared, n, 2 * (pairs / 2 - 1)))) / 2;
}

void negate_second(CellMatrix& weights, int64_t first) {
  for (int64_t r = 0; r < weights.cells; ++r)
    for (int64_t i = first; i < weights.width; ++i) weights.row(r)[i] = -weights.row(r)[i];
}

PairSeparation separate(const CellMatrix& matrix, int64_t num_first, int32_t first, int32_t second,
                        const SeparationOptions& options) {
  const int64_t n = matrix.cells;
  PairSeparation out{first, second, num_first, n - num_first};
  std::vector<double> kernel = squared_distances(matrix);
  out.bandwidth = median_distance(kernel, n);
  if (out.bandwidth <= 0) return out;
  const double factor = -1 / (2 * out.bandwidth * out.bandwidth);
  parallel_for(n, [&](int64_t i) {
    for (int64_t j = 0; j < n; ++j) kernel[i * n + j] = std::exp(factor * kernel[i * n + j]);
  });
  // Row 0: the sample itself; then the resamples.
  CellMatrix weights(options.num_resamples + 1, n);
  draw_weights(weights, 0, num_first, first, options.seed);
  draw_weights(weights, num_first, n - num_first, second, options.seed);
  std::fill_n(weights.row(0), num_first, 1 / static_cast<double>(num_first));
  std::fill_n(weights.row(0) + num_first, n - num_first, 1 / static_cast<double>(n - num_first));
  negate_second(weights, num_first);
  CellMatrix products(weights.cells, n);
  product_nn(weights.values.data(), kernel.data(), products.values.data(), weights.cells, n, n);
  std::vector<double> values(weights.cells);
  parallel_for(weights.cells, [&](int64_t r) {
    values[r] = std::sqrt(std::max(0.0, std::inner_product(weights.row(r), weights.row(r) + n, products.row(r), 0.0)));
  });
  out.mmd = values[0];
  out.mmd_squared = values[0] * values[0];
  if (options.num_resamples < 2) return out;
  values.erase(values.begin());
  std::sort(values.begin(), values.end());
  out.mmd_low = quantile(values, 0.025);
  out.mmd_high = quantile(values, 0.975);
  const double count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  out.mmd_deviation = std::sqrt(squares / (count - 1));
  return out;
}

}  // namespace

std::vector<PairSeparation> separation_of_pairs(const CellMatrix& matrix, const Labels& labels,
                                                const SeparationOptions& options) {
  std::vector<std::vector<int64_t>> cells;
  for (int32_t label = 0; label < labels.count(); ++label)
    cells.push_back(cells_of(labels, label, options.max_label_cells, options.seed));
  std::vector<PairSeparation> out;
  for (int32_t first = 0; first < labels.count(); ++first) {
    for (int32_t second = first + 1; second < labels.count(); ++second) {
      std::vector<int64_t> both = cells[first];
      both.insert(both.end(), cells[second].begin(), cells[second].end());
      out.push_back(separate(rows_of(matrix, both), static_cast<int64_t>(cells[first].size()), first, second, options));
    }
  }
  return out;
}

}  // namespace scrna::eval
