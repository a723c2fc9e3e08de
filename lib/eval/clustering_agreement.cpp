#include "lib/eval/clustering_agreement.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"

namespace scrna::eval {
namespace {

/// Cells of each pair of classes. [a, b]
std::vector<double> contingency(const Labels& a, const Labels& b) {
  SCRNA_CHECK(a.cells() == b.cells(), "{} and {} cells", a.cells(), b.cells());
  std::vector<double> table(static_cast<int64_t>(a.count()) * b.count());
  for (int64_t i = 0; i < a.cells(); ++i) ++table[static_cast<int64_t>(a.codes[i]) * b.count() + b.codes[i]];
  return table;
}

double entropy(const Labels& labels) {
  double sum = 0;
  const double n = static_cast<double>(labels.cells());
  for (const int64_t size : labels.sizes()) {
    const double part = static_cast<double>(size) / n;
    if (size > 0) sum -= part * std::log(part);
  }
  return sum;
}

/// Sum over classes of size (size - 1): twice the pairs inside.
double pairs(const std::vector<double>& sizes) {
  double sum = 0;
  for (const double size : sizes) sum += size * (size - 1);
  return sum;
}

std::vector<double> as_numbers(const std::vector<int64_t>& sizes) { return {sizes.begin(), sizes.end()}; }

}  // namespace

double normalised_mutual_information(const Labels& a, const Labels& b) {
  if (a.count() <= 1 && b.count() <= 1) return 1;
  const std::vector<double> table = contingency(a, b);
  const std::vector<int64_t> rows = a.sizes(), columns = b.sizes();
  const double n = static_cast<double>(a.cells());
  double information = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < columns.size(); ++j) {
      const double cells = table[i * columns.size() + j];
      if (cells > 0)
        information += cells / n * (std::log(cells / n) - std::log(static_cast<double>(rows[i]) / n) -
                                    std::log(static_cast<double>(columns[j]) / n));
    }
  }
  const double mean_entropy = (entropy(a) + entropy(b)) / 2;
  return mean_entropy > 0 ? std::max(0.0, information) / mean_entropy : 0;
}

double adjusted_rand_index(const Labels& a, const Labels& b) {
  const double n = static_cast<double>(a.cells());
  const double together = pairs(contingency(a, b)), in_a = pairs(as_numbers(a.sizes())), in_b = pairs(as_numbers(b.sizes()));
  const double expected = n > 1 ? in_a * in_b / (n * (n - 1)) : 0;
  const double largest = (in_a + in_b) / 2;
  return largest == expected ? 1 : (together - expected) / (largest - expected);
}

}  // namespace scrna::eval
