#include "lib/eval/umap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/random.h"

namespace scrna::eval {
namespace {

constexpr uint64_t kNoiseStream = (uint64_t{1} << 32) + 1, kLayoutStream = (uint64_t{1} << 32) + 2;
constexpr int kNegativeSamples = 5;
constexpr double kStartWidth = 10;    // of the first component
constexpr double kStartNoise = 1e-3;  // tells apart cells that have the same components

int num_epochs(int64_t cells) { return cells <= 10000 ? 500 : 200; }

CellMatrix start(const CellMatrix& components, uint64_t seed) {
  CellMatrix out(components.cells, 2);
  double largest = 0;
  for (int64_t i = 0; i < components.cells; ++i) largest = std::max(largest, std::abs(components.row(i)[0]));
  const double scale = largest > 0 ? kStartWidth / largest : 0;
  const RandomStream random(seed, RandomPurpose::kEvaluate, kNoiseStream);
  for (int64_t i = 0; i < components.cells; ++i) {
    for (int64_t d = 0; d < 2; ++d) {
      const double component = d < components.width ? components.row(i)[d] * scale : 0;
      out.row(i)[d] = component + kStartNoise * (2 * random.uniform(2 * i + d) - 1);
    }
  }
  return out;
}

struct Edge {
  int32_t from, to;
  double period;  // epochs between two samples
  double next;    // epoch of the next one
  double negative_next;
};

/// Both directions of each edge, as the symmetric matrix of umap-learn has them; too light ones are never sampled.
std::vector<Edge> edges_of(const Graph& graph, int epochs) {
  const double heaviest = graph.weights.empty() ? 0 : *std::max_element(graph.weights.begin(), graph.weights.end());
  std::vector<Edge> edges;
  for (int64_t v = 0; v < graph.nodes(); ++v) {
    for (int64_t e = graph.starts[v]; e < graph.starts[v + 1]; ++e) {
      if (graph.weights[e] < heaviest / epochs) continue;
      const double period = heaviest / graph.weights[e];
      edges.push_back({static_cast<int32_t>(v), graph.targets[e], period, period, period / kNegativeSamples});
    }
  }
  return edges;
}

class Layout {
 public:
  Layout(CellMatrix& places, UmapCurve curve, uint64_t seed)
      : places_(places), curve_(curve), random_(seed, RandomPurpose::kEvaluate, kLayoutStream) {}

  void sample(Edge& edge, int epoch, double rate) {
    double* from = places_.row(edge.from);
    attract(from, places_.row(edge.to), rate);
    edge.next += edge.period;
    const double negative_period = edge.period / kNegativeSamples;
    const auto count = static_cast<int>((epoch - edge.negative_next) / negative_period);
    for (int i = 0; i < count; ++i) {
      const auto other = static_cast<int64_t>(draw() * static_cast<uint64_t>(places_.cells) >> 32);
      if (other != edge.from) repel(from, places_.row(other), rate);
    }
    edge.negative_next += count * negative_period;
  }

 private:
  uint64_t draw() {
    if (num_drawn_ % 4 == 0) words_ = random_.words(num_drawn_ / 4);
    return words_[num_drawn_++ % 4];
  }
  static double clipped(double value) { return std::clamp(value, -4.0, 4.0); }
  static double squared(const double* a, const double* b) {
    return (a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]);
  }
  void attract(double* a, double* b, double rate) const {
    const double distance = squared(a, b);
    if (distance <= 0) return;
    const double power = std::pow(distance, curve_.b);
    const double factor = -2 * curve_.a * curve_.b * power / distance / (curve_.a * power + 1);
    for (int d = 0; d < 2; ++d) {
      const double step = clipped(factor * (a[d] - b[d])) * rate;
      a[d] += step;
      b[d] -= step;
    }
  }
  void repel(double* a, const double* b, double rate) const {
    const double distance = squared(a, b);
    if (distance <= 0) return;
    const double factor = 2 * curve_.b / ((0.001 + distance) * (curve_.a * std::pow(distance, curve_.b) + 1));
    for (int d = 0; d < 2; ++d) a[d] += clipped(factor * (a[d] - b[d])) * rate;
  }

  CellMatrix& places_;
  UmapCurve curve_;
  RandomStream random_;
  std::array<uint32_t, 4> words_{};
  uint64_t num_drawn_ = 0;
};

}  // namespace

UmapCurve umap_curve(double min_dist, double spread) {
  // Levenberg-Marquardt on two parameters.
  constexpr int kPoints = 300;
  const auto target = [&](double d) { return d < min_dist ? 1 : std::exp(-(d - min_dist) / spread); };
  const auto squares = [&](UmapCurve curve) {
    double sum = 0;
    for (int i = 0; i < kPoints; ++i) {
      const double d = 3 * spread * i / (kPoints - 1);
      const double residual = 1 / (1 + curve.a * std::pow(d, 2 * curve.b)) - target(d);
      sum += residual * residual;
    }
    return sum;
  };
  UmapCurve curve{1, 1};
  double damping = 1e-3, error = squares(curve);
  for (int step = 0; step < 200 && damping < 1e12; ++step) {
    double aa = 0, ab = 0, bb = 0, ga = 0, gb = 0;
    for (int i = 1; i < kPoints; ++i) {  // at d = 0 nothing depends on them
      const double d = 3 * spread * i / (kPoints - 1), power = std::pow(d, 2 * curve.b);
      const double value = 1 / (1 + curve.a * power), residual = value - target(d);
      const double by_a = -value * value * power, by_b = by_a * curve.a * 2 * std::log(d);
      aa += by_a * by_a, ab += by_a * by_b, bb += by_b * by_b, ga += by_a * residual, gb += by_b * residual;
    }
    const double p = aa * (1 + damping), q = bb * (1 + damping), determinant = p * q - ab * ab;
    const UmapCurve next{curve.a - (q * ga - ab * gb) / determinant, curve.b - (p * gb - ab * ga) / determinant};
    const double next_error = squares(next);
    if (next_error < error) {
      curve = next, error = next_error, damping /= 3;
    } else {
      damping *= 3;
    }
  }
  return curve;
}

CellMatrix umap(const Graph& graph, const CellMatrix& components, const UmapOptions& options) {
  SCRNA_CHECK(graph.nodes() == components.cells && components.width > 0, "{} nodes, {} x {} components", graph.nodes(),
              components.cells, components.width);
  const int epochs = num_epochs(graph.nodes());
  CellMatrix places = start(components, options.seed);
  std::vector<Edge> edges = edges_of(graph, epochs);
  Layout layout(places, umap_curve(options.min_dist, options.spread), options.seed);
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const double rate = 1 - static_cast<double>(epoch) / epochs;
    for (Edge& edge : edges)
      if (edge.next <= epoch) layout.sample(edge, epoch, rate);
  }
  return places;
}

}  // namespace scrna::eval
