#include "lib/eval/neighbours.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "lib/core/error.h"
#include "lib/eval/distances.h"
#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

using Candidate = std::pair<double, int32_t>;  // squared distance, cell: compared in this order

double squared_distance(const double* a, const double* b, int64_t width) {
  double sum = 0;
  for (int64_t j = 0; j < width; ++j) sum += (a[j] - b[j]) * (a[j] - b[j]);
  return sum;
}

}  // namespace

void require_others(int64_t cells, int64_t count, const std::vector<int32_t>& apart) {
  int64_t smallest = cells - 1;
  if (!apart.empty()) {
    std::vector<int64_t> sizes(*std::max_element(apart.begin(), apart.end()) + 1);
    for (const int32_t group : apart) ++sizes[group];
    for (const int64_t size : sizes) smallest = std::min(smallest, cells - size);
  }
  if (count < 1 || count > smallest)
    throw DataError("nearest neighbours: {} were asked for, but a cell has only {} others to choose from; take fewer "
                    "neighbours or more cells", count, smallest);
}

Neighbours nearest_neighbours(const CellMatrix& matrix, int64_t count, const std::vector<int32_t>& apart) {
  require_others(matrix.cells, count, apart);
  Neighbours out{matrix.cells, count, std::vector<int32_t>(matrix.cells * count),
                 std::vector<double>(matrix.cells * count)};
  const int64_t n = matrix.cells;
  for_each_distance_block(matrix, [&](int64_t first, int64_t num_rows, const double* block) {
    parallel_for(num_rows, [&](int64_t r) {
      const int64_t cell = first + r;
      const double* row = block + r * n;
      std::vector<Candidate> heap;  // the farthest of the nearest on top
      heap.reserve(count + 1);
      for (int64_t j = 0; j < n; ++j) {
        const bool is_full = static_cast<int64_t>(heap.size()) == count;
        if (is_full && row[j] >= heap.front().first) continue;
        if (j == cell || (!apart.empty() && apart[j] == apart[cell])) continue;
        if (is_full) {
          std::pop_heap(heap.begin(), heap.end());
          heap.pop_back();
        }
        heap.emplace_back(row[j], static_cast<int32_t>(j));
        std::push_heap(heap.begin(), heap.end());
      }
      // Chosen by products, ordered by differences, which have no cancellation.
      for (Candidate& near : heap) near.first = squared_distance(matrix.row(cell), matrix.row(near.second), matrix.width);
      std::sort(heap.begin(), heap.end());
      for (int64_t i = 0; i < count; ++i) {
        out.indices[cell * count + i] = heap[i].second;
        out.distances[cell * count + i] = std::sqrt(heap[i].first);
      }
    });
  });
  return out;
}

Neighbours first_neighbours(const Neighbours& neighbours, int64_t count) {
  SCRNA_CHECK(count <= neighbours.count, "{} of {}", count, neighbours.count);
  Neighbours out{neighbours.cells, count, {}, {}};
  for (int64_t i = 0; i < neighbours.cells; ++i) {
    const int64_t start = i * neighbours.count;
    out.indices.insert(out.indices.end(), neighbours.indices.begin() + start, neighbours.indices.begin() + start + count);
    out.distances.insert(out.distances.end(), neighbours.distances.begin() + start,
                         neighbours.distances.begin() + start + count);
  }
  return out;
}

}  // namespace scrna::eval
