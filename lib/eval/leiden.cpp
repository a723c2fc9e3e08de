#include "lib/eval/leiden.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>

#include "lib/core/random.h"
#include "lib/eval/clustering_agreement.h"
#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

constexpr double kRandomness = 0.01;  // of the refinement: probabilities exp(gain / this), as in the paper and igraph
constexpr int kMaxIterations = 20;
constexpr uint64_t kLeidenStream = uint64_t{1} << 32;  // of RandomPurpose::kEvaluate

/// A graph of clusters of a finer one: edges between nodes, weight inside a node, and its degree (loops included).
struct Level {
  std::vector<int64_t> starts{0};
  std::vector<int32_t> targets;
  std::vector<double> weights;
  std::vector<double> degrees;
  [[nodiscard]] int64_t nodes() const { return static_cast<int64_t>(starts.size()) - 1; }
};

using Membership = std::vector<int32_t>;

/// Weight from one node to each cluster around it; only what was touched is cleared.
class WeightsToClusters {
 public:
  explicit WeightsToClusters(int64_t clusters) : weights_(clusters), is_listed_(clusters) {}
  void collect(const Level& level, int64_t node, const Membership& membership) {
    for (const int32_t cluster : listed_) weights_[cluster] = 0, is_listed_[cluster] = false;
    listed_.clear();
    for (int64_t e = level.starts[node]; e < level.starts[node + 1]; ++e) {
      const int32_t cluster = membership[level.targets[e]];
      weights_[cluster] += level.weights[e];
      if (!is_listed_[cluster]) listed_.push_back(cluster), is_listed_[cluster] = true;
    }
  }
  [[nodiscard]] const std::vector<int32_t>& listed() const { return listed_; }
  [[nodiscard]] double operator[](int32_t cluster) const { return weights_[cluster]; }

 private:
  std::vector<double> weights_;
  std::vector<char> is_listed_;
  std::vector<int32_t> listed_;
};

class Leiden {
 public:
  Leiden(const Graph& graph, double resolution, uint64_t seed) : random_(seed, RandomPurpose::kEvaluate, kLeidenStream) {
    base_.starts = graph.starts;
    base_.targets = graph.targets;
    base_.weights = graph.weights;
    base_.degrees.resize(graph.nodes());
    for (int64_t v = 0; v < graph.nodes(); ++v)
      for (int64_t e = graph.starts[v]; e < graph.starts[v + 1]; ++e) base_.degrees[v] += graph.weights[e];
    const double twice_total = std::accumulate(base_.degrees.begin(), base_.degrees.end(), 0.0);
    factor_ = twice_total > 0 ? resolution / twice_total : 0;
  }

  Membership run() {
    Membership membership(base_.nodes());
    std::iota(membership.begin(), membership.end(), 0);
    for (int i = 0; i < kMaxIterations && iterate(membership); ++i) {
    }
    return membership;
  }

 private:
  /// One pass through all levels; true when something moved.
  bool iterate(Membership& membership) {
    Level level = base_;
    Membership of_level = membership, node_of(base_.nodes());  // cluster of each node; node of each cell
    std::iota(node_of.begin(), node_of.end(), 0);
    bool has_moved = false;
    while (true) {
      has_moved = move_nodes(level, of_level) || has_moved;
      const int32_t clusters = renumber(of_level);
      for (std::size_t cell = 0; cell < node_of.size(); ++cell) membership[cell] = of_level[node_of[cell]];
      if (clusters == level.nodes()) return has_moved;
      Membership refined = refine(level, of_level);
      const int32_t parts = renumber(refined);
      if (parts == level.nodes()) refined = of_level;  // nothing was merged: go on with the clusters themselves
      const int32_t next_nodes = parts == level.nodes() ? clusters : parts;
      Membership next(next_nodes);
      for (int64_t v = 0; v < level.nodes(); ++v) next[refined[v]] = of_level[v];
      for (int32_t& node : node_of) node = refined[node];
      level = aggregate(level, refined, next_nodes);
      of_level = std::move(next);
    }
  }

  /// Nodes go to the neighbouring (or an empty) cluster of the largest gain, until none gains anything.
  bool move_nodes(const Level& level, Membership& membership) {
    const int64_t n = level.nodes();
    std::vector<double> totals(n);
    std::vector<int64_t> sizes(n);
    for (int64_t v = 0; v < n; ++v) totals[membership[v]] += level.degrees[v], ++sizes[membership[v]];
    std::vector<int32_t> empty;
    for (int64_t c = n; c-- > 0;)
      if (sizes[c] == 0) empty.push_back(static_cast<int32_t>(c));
    const std::vector<int32_t> order = shuffled(n);
    std::deque<int32_t> queue(order.begin(), order.end());
    std::vector<char> is_queued(n, true);
    WeightsToClusters around(n);
    bool has_moved = false;
    while (!queue.empty()) {
      const int32_t v = queue.front();
      queue.pop_front();
      is_queued[v] = false;
      const int32_t old = membership[v];
      const double degree = level.degrees[v];
      totals[old] -= degree;
      if (--sizes[old] == 0) empty.push_back(old);
      around.collect(level, v, membership);
      // Staying wins ties; then the first. An empty cluster has the gain 0.
      int32_t best = old;
      double best_gain = around[old] - factor_ * degree * totals[old];
      for (const int32_t c : around.listed()) {
        const double gain = around[c] - factor_ * degree * totals[c];
        if (gain > best_gain + 1e-12) best = c, best_gain = gain;
      }
      if (best_gain < -1e-12) best = empty.back();
      totals[best] += degree;
      if (sizes[best]++ == 0) std::erase(empty, best);
      if (best == old) continue;
      membership[v] = best;
      has_moved = true;
      for (int64_t e = level.starts[v]; e < level.starts[v + 1]; ++e) {
        const int32_t u = level.targets[e];
        if (membership[u] == best || is_queued[u]) continue;
        queue.push_back(u);
        is_queued[u] = true;
      }
    }
    return has_moved;
  }

  /// Within each cluster, merges single nodes that are well connected to it into parts that are, at random, better
  /// ones more often.
  Membership refine(const Level& level, const Membership& membership) {
    const int64_t n = level.nodes();
    Membership part(n);
    std::iota(part.begin(), part.end(), 0);
    std::vector<double> cluster_totals(n), totals = level.degrees, outside(n);  // outside: weight to the rest of the cluster
    std::vector<char> is_single(n, true);
    for (int64_t v = 0; v < n; ++v) cluster_totals[membership[v]] += level.degrees[v];
    for (int64_t v = 0; v < n; ++v)
      for (int64_t e = level.starts[v]; e < level.starts[v + 1]; ++e)
        if (membership[level.targets[e]] == membership[v]) outside[v] += level.weights[e];
    WeightsToClusters around(n);
    std::vector<int32_t> candidates;
    std::vector<double> gains;
    for (const int32_t v : shuffled(n)) {
      const double all = cluster_totals[membership[v]], degree = level.degrees[v];
      if (!is_single[part[v]] || outside[part[v]] < factor_ * degree * (all - degree)) continue;
      around.collect(level, v, part);
      candidates.assign(1, part[v]);
      gains.assign(1, 0);
      for (const int32_t c : around.listed()) {
        if (c == part[v] || membership[c] != membership[v]) continue;  // a part has the number of one of its nodes
        const double gain = around[c] - factor_ * degree * totals[c];
        if (gain < 0 || outside[c] < factor_ * totals[c] * (all - totals[c])) continue;
        candidates.push_back(c);
        gains.push_back(gain);
      }
      const int32_t chosen = choose(candidates, gains);
      if (chosen == part[v]) continue;
      outside[chosen] += outside[part[v]] - 2 * around[chosen];
      totals[chosen] += degree;
      totals[part[v]] = 0;
      is_single[chosen] = false;
      part[v] = chosen;
    }
    return part;
  }

  int32_t choose(const std::vector<int32_t>& candidates, std::vector<double>& gains) {
    const double largest = *std::max_element(gains.begin(), gains.end());
    double sum = 0;
    for (double& gain : gains) sum += gain = std::exp((gain - largest) / kRandomness);
    double place = random_.uniform(draws_++) * sum;
    for (std::size_t i = 0; i < gains.size(); ++i)
      if ((place -= gains[i]) < 0) return candidates[i];
    return candidates.back();
  }

  static Level aggregate(const Level& level, const Membership& node_of, int32_t nodes) {
    std::vector<std::vector<int32_t>> members(nodes);
    for (int64_t v = 0; v < level.nodes(); ++v) members[node_of[v]].push_back(static_cast<int32_t>(v));
    Level out;
    out.degrees.resize(nodes);
    std::vector<double> weights(nodes);
    std::vector<int32_t> listed;
    for (int32_t a = 0; a < nodes; ++a) {
      listed.clear();
      for (const int32_t v : members[a]) {
        out.degrees[a] += level.degrees[v];
        for (int64_t e = level.starts[v]; e < level.starts[v + 1]; ++e) {
          const int32_t b = node_of[level.targets[e]];
          if (b == a) continue;  // inside: counted in the degree, and moves do not change it
          if (weights[b] == 0) listed.push_back(b);
          weights[b] += level.weights[e];
        }
      }
      std::sort(listed.begin(), listed.end());
      for (const int32_t b : listed) {
        out.targets.push_back(b);
        out.weights.push_back(weights[b]);
        weights[b] = 0;
      }
      out.starts.push_back(static_cast<int64_t>(out.targets.size()));
    }
    return out;
  }

  /// Numbers from 0 in order of appearance; returns how many.
  static int32_t renumber(Membership& membership) {
    std::vector<int32_t> names(membership.size(), -1);
    int32_t count = 0;
    for (int32_t& cluster : membership) {
      if (names[cluster] < 0) names[cluster] = count++;
      cluster = names[cluster];
    }
    return count;
  }

  std::vector<int32_t> shuffled(int64_t count) {
    std::vector<int32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    for (int64_t i = count; i > 1; --i) std::swap(order[i - 1], order[random_.below(i, draws_++)]);
    return order;
  }

  Level base_;
  double factor_;  // resolution / 2m
  RandomStream random_;
  uint64_t draws_ = 0;
};

}  // namespace

Labels leiden_clusters(const Graph& graph, double resolution, uint64_t seed) {
  Labels out;
  out.codes = Leiden(graph, resolution, seed).run();
  std::vector<int64_t> sizes;
  for (const int32_t code : out.codes) {
    if (code >= static_cast<int64_t>(sizes.size())) sizes.resize(code + 1);
    ++sizes[code];
  }
  std::vector<int32_t> by_size(sizes.size()), rank(sizes.size());
  std::iota(by_size.begin(), by_size.end(), 0);
  std::stable_sort(by_size.begin(), by_size.end(), [&](int32_t a, int32_t b) { return sizes[a] > sizes[b]; });
  for (std::size_t i = 0; i < by_size.size(); ++i) {
    rank[by_size[i]] = static_cast<int32_t>(i);
    out.names.push_back(std::to_string(i));
  }
  for (int32_t& code : out.codes) code = rank[code];
  return out;
}

double modularity(const Graph& graph, const Labels& clusters, double resolution) {
  std::vector<double> degrees(clusters.names.size());
  double inside = 0, total = 0;
  for (int64_t v = 0; v < graph.nodes(); ++v) {
    for (int64_t e = graph.starts[v]; e < graph.starts[v + 1]; ++e) {
      total += graph.weights[e];
      degrees[clusters.codes[v]] += graph.weights[e];
      if (clusters.codes[graph.targets[e]] == clusters.codes[v]) inside += graph.weights[e];
    }
  }
  if (total <= 0) return 0;
  double expected = 0;
  for (const double degree : degrees) expected += degree / total * (degree / total);
  return inside / total - resolution * expected;
}

std::vector<double> scib_resolutions() {
  std::vector<double> resolutions;
  for (int i = 1; i <= 10; ++i) resolutions.push_back(2.0 * i / 10);
  return resolutions;
}

std::vector<LeidenPoint> leiden_sweep(const Graph& graph, const Labels& labels, const std::vector<double>& resolutions,
                                      uint64_t seed) {
  std::vector<LeidenPoint> sweep(resolutions.size());
  parallel_for(static_cast<int64_t>(resolutions.size()), [&](int64_t i) {
    const Labels clusters = leiden_clusters(graph, resolutions[i], seed);
    sweep[i] = {resolutions[i], clusters.count(), normalised_mutual_information(clusters, labels),
                adjusted_rand_index(clusters, labels)};
  });
  return sweep;
}

std::vector<LeidenPoint> leiden_sweep(const Graph& graph, const std::vector<double>& resolutions, uint64_t seed) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::vector<LeidenPoint> sweep(resolutions.size());
  parallel_for(static_cast<int64_t>(resolutions.size()), [&](int64_t i) {
    sweep[i] = {resolutions[i], leiden_clusters(graph, resolutions[i], seed).count(), kNone, kNone};
  });
  return sweep;
}

const LeidenPoint& best_point(const std::vector<LeidenPoint>& sweep) {
  return *std::max_element(sweep.begin(), sweep.end(), [](const LeidenPoint& a, const LeidenPoint& b) { return a.nmi < b.nmi; });
}

}  // namespace scrna::eval
