#include "lib/eval/connectivities.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

constexpr double kSmallestScale = 1e-3;  // of sigma, relative to a mean distance
constexpr double kTolerance = 1e-5;
constexpr int kSteps = 64;

/// Membership strengths of one cell's neighbours.
void strengths(const double* distances, int64_t count, double mean_of_all, double* out) {
  double rho = 0;
  for (int64_t j = count; j-- > 0;)
    if (distances[j] > 0) rho = distances[j];
  const double target = std::log2(static_cast<double>(count + 1));
  double low = 0, high = std::numeric_limits<double>::infinity(), sigma = 1;
  for (int step = 0; step < kSteps; ++step) {
    double sum = 0;
    for (int64_t j = 0; j < count; ++j) sum += distances[j] > rho ? std::exp(-(distances[j] - rho) / sigma) : 1;
    if (std::abs(sum - target) < kTolerance) break;
    if (sum > target) {
      high = sigma;
      sigma = (low + high) / 2;
    } else {
      low = sigma;
      sigma = std::isinf(high) ? sigma * 2 : (low + high) / 2;
    }
  }
  // The mean of a row counts the cell itself, at distance 0.
  const double mean = std::accumulate(distances, distances + count, 0.0) / static_cast<double>(count + 1);
  sigma = std::max(sigma, kSmallestScale * (rho > 0 ? mean : mean_of_all));
  for (int64_t j = 0; j < count; ++j)
    out[j] = distances[j] <= rho || sigma == 0 ? 1 : std::exp(-(distances[j] - rho) / sigma);
}

}  // namespace

Graph connectivities(const Neighbours& neighbours) {
  const int64_t n = neighbours.cells, k = neighbours.count;
  const double mean_of_all = std::accumulate(neighbours.distances.begin(), neighbours.distances.end(), 0.0) /
                             static_cast<double>(n * (k + 1));
  std::vector<double> directed(n * k);
  parallel_for(n, [&](int64_t i) {
    strengths(neighbours.distances.data() + i * k, k, mean_of_all, directed.data() + i * k);
  });
  // Per cell: what it thinks of others and what others think of it.
  struct Edge {
    int32_t other;
    double out, in;
  };
  std::vector<std::vector<Edge>> edges(n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      const int32_t other = neighbours.indices[i * k + j];
      const double weight = directed[i * k + j];
      if (weight <= 0) continue;
      edges[i].push_back({other, weight, 0});
      edges[other].push_back({static_cast<int32_t>(i), 0, weight});
    }
  }
  Graph graph;
  for (std::vector<Edge>& list : edges) {
    std::sort(list.begin(), list.end(), [](const Edge& a, const Edge& b) { return a.other < b.other; });
    for (std::size_t e = 0; e < list.size(); ++e) {
      Edge edge = list[e];
      if (e + 1 < list.size() && list[e + 1].other == edge.other) {  // both directions
        ++e;
        edge.out += list[e].out;
        edge.in += list[e].in;
      }
      graph.targets.push_back(edge.other);
      graph.weights.push_back(edge.out + edge.in - edge.out * edge.in);
    }
    graph.starts.push_back(static_cast<int64_t>(graph.targets.size()));
  }
  return graph;
}

}  // namespace scrna::eval
