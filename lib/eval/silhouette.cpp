#include "lib/eval/silhouette.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lib/core/error.h"
#include "lib/eval/distances.h"
#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double sum_of_roots(const double* squared, int64_t count) {
  double sums[4] = {0, 0, 0, 0};  // four chains, which the processor adds at once
  int64_t j = 0;
  for (; j + 4 <= count; j += 4)
    for (int64_t lane = 0; lane < 4; ++lane) sums[lane] += std::sqrt(squared[j + lane]);
  for (; j < count; ++j) sums[0] += std::sqrt(squared[j]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// Of a cell in cluster `own` from its sums of distances to each cluster.
double silhouette_of(const std::vector<double>& sums, const std::vector<int64_t>& sizes, std::size_t own) {
  if (sizes[own] < 2) return 0;
  const double inside = sums[own] / static_cast<double>(sizes[own] - 1);
  double outside = std::numeric_limits<double>::infinity();
  for (std::size_t other = 0; other < sums.size(); ++other)
    if (other != own && sizes[other] > 0) outside = std::min(outside, sums[other] / static_cast<double>(sizes[other]));
  const double larger = std::max(inside, outside);
  return larger > 0 ? (outside - inside) / larger : 0;
}

double mean_of(const std::vector<double>& values) {
  return values.empty() ? kNone : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// The groups of label and batch, and what belongs to which.
struct Groups {
  Labels joint;
  std::vector<int32_t> label_of, batch_of;  // [groups]
  std::vector<int64_t> sizes;               // [groups]
};

Groups make_groups(const Labels& labels, const Labels* batches) {
  Groups groups;
  groups.joint = batches != nullptr ? joint_labels(labels, *batches) : labels;
  groups.sizes = groups.joint.sizes();
  groups.label_of.resize(groups.sizes.size());
  groups.batch_of.resize(groups.sizes.size());
  for (int64_t i = 0; i < labels.cells(); ++i) {
    groups.label_of[groups.joint.codes[i]] = labels.codes[i];
    groups.batch_of[groups.joint.codes[i]] = batches != nullptr ? batches->codes[i] : 0;
  }
  return groups;
}

/// Silhouettes of all cells when group g belongs to cluster cluster_of[g]; -1: to none.
std::vector<double> silhouettes(const GroupDistances& distances, const Groups& groups,
                                const std::vector<int32_t>& cluster_of) {
  const int32_t num_clusters = *std::max_element(cluster_of.begin(), cluster_of.end()) + 1;
  std::vector<int64_t> sizes(num_clusters);
  for (int32_t g = 0; g < distances.groups; ++g)
    if (cluster_of[g] >= 0) sizes[cluster_of[g]] += groups.sizes[g];
  std::vector<double> out(groups.joint.codes.size(), kNone);
  parallel_for(groups.joint.cells(), [&](int64_t i) {
    const int32_t own = cluster_of[groups.joint.codes[i]];
    if (own < 0) return;
    std::vector<double> sums(num_clusters);
    for (int32_t g = 0; g < distances.groups; ++g)
      if (cluster_of[g] >= 0) sums[cluster_of[g]] += distances.sums[i * distances.groups + g];
    out[i] = silhouette_of(sums, sizes, own);
  });
  return out;
}

double batch_score(const GroupDistances& distances, const Groups& groups, const Labels& labels) {
  const std::vector<int64_t> label_sizes = labels.sizes();
  std::vector<double> by_label;
  for (int32_t label = 0; label < labels.count(); ++label) {
    std::vector<int32_t> cluster_of(groups.sizes.size(), -1);
    int32_t num_batches = 0;
    for (std::size_t g = 0; g < cluster_of.size(); ++g)
      if (groups.label_of[g] == label) cluster_of[g] = num_batches++;
    if (num_batches == 1 || num_batches == label_sizes[label]) continue;
    std::vector<double> scores;
    for (const double value : silhouettes(distances, groups, cluster_of))
      if (!std::isnan(value)) scores.push_back(1 - std::abs(value));
    by_label.push_back(mean_of(scores));
  }
  return mean_of(by_label);
}

void add_isolated(const Groups& groups, const Labels& labels, SilhouetteScores& out) {
  std::vector<int64_t> num_batches(labels.names.size());
  for (const int32_t label : groups.label_of) ++num_batches[label];
  const int64_t fewest = *std::min_element(num_batches.begin(), num_batches.end());
  std::vector<double> scores;
  for (int32_t label = 0; label < labels.count(); ++label) {
    if (num_batches[label] != fewest) continue;
    std::vector<double> samples;
    for (int64_t i = 0; i < labels.cells(); ++i)
      if (labels.codes[i] == label) samples.push_back(out.samples[i]);
    scores.push_back((mean_of(samples) + 1) / 2);
    out.isolated_labels.push_back(labels.names[label]);
  }
  out.isolated_label = mean_of(scores);
}

}  // namespace

GroupDistances group_distances(const CellMatrix& matrix, const Labels& groups) {
  SCRNA_CHECK(matrix.cells == groups.cells(), "{} rows, {} labels", matrix.cells, groups.cells());
  // Cells of a group side by side: a sum over them is a sum over neighbours in memory.
  std::vector<int64_t> order(matrix.cells);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return groups.codes[a] < groups.codes[b]; });
  std::vector<int64_t> starts{0};
  for (const int64_t size : groups.sizes()) starts.push_back(starts.back() + size);
  GroupDistances out{groups.count(), std::vector<double>(matrix.cells * groups.count())};
  for_each_distance_block(rows_of(matrix, order), [&](int64_t first, int64_t count, const double* block) {
    parallel_for(count, [&](int64_t r) {
      const double* row = block + r * matrix.cells;
      double* sums = out.sums.data() + order[first + r] * out.groups;
      for (int32_t g = 0; g < out.groups; ++g) sums[g] = sum_of_roots(row + starts[g], starts[g + 1] - starts[g]);
    });
  });
  return out;
}

SilhouetteScores silhouette_scores(const CellMatrix& matrix, const Labels& labels, const Labels* batches) {
  if (labels.count() < 2)
    throw DataError("silhouette: all cells have the label '{}'; at least two labels are needed",
                    labels.count() == 1 ? labels.names[0] : "");
  const Groups groups = make_groups(labels, batches);
  const GroupDistances distances = group_distances(matrix, groups.joint);
  SilhouetteScores out;
  out.samples = silhouettes(distances, groups, groups.label_of);
  out.label = mean_of(out.samples);
  out.label_scaled = (out.label + 1) / 2;
  out.batch = out.isolated_label = kNone;
  if (batches != nullptr) {
    out.batch = batch_score(distances, groups, labels);
    add_isolated(groups, labels, out);
  }
  return out;
}

}  // namespace scrna::eval
