#include "lib/eval/seed_groups.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace scrna::eval {

MeanDeviation mean_deviation(const std::vector<double>& values) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  MeanDeviation out{0, kNone, kNone};
  double sum = 0, squares = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    sum += value;
    ++out.runs;
  }
  if (out.runs == 0) return out;
  out.mean = sum / static_cast<double>(out.runs);
  if (out.runs == 1) return out;
  for (const double value : values)
    if (std::isfinite(value)) squares += (value - out.mean) * (value - out.mean);
  out.deviation = std::sqrt(squares / static_cast<double>(out.runs - 1));
  return out;
}

MeanDeviation SeedGroup::over(const std::function<double(const Evaluation&)>& value) const {
  std::vector<double> values;
  for (const Evaluation* member : members) values.push_back(value(*member));
  return mean_deviation(values);
}

std::vector<SeedGroup> seed_groups(const std::vector<Evaluation>& evaluations) {
  std::vector<SeedGroup> groups;
  for (const Evaluation& evaluation : evaluations) {
    if (evaluation.group.empty()) continue;
    auto found = std::find_if(groups.begin(), groups.end(), [&](const SeedGroup& group) { return group.name == evaluation.group; });
    if (found == groups.end()) found = groups.insert(groups.end(), {evaluation.group, {}});
    found->members.push_back(&evaluation);
  }
  return groups;
}

const std::vector<MetricRow>& grouped_rows() {
  static const std::vector<MetricRow> rows = [] {
    std::vector<MetricRow> out = metric_rows();
    out.push_back({"masked_loss", "masked loss, nats (smaller is better)", masked_loss_of});
    return out;
  }();
  return rows;
}

}  // namespace scrna::eval
