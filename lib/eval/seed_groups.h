// Runs of one configuration that differ in their seed alone, told together: mean and standard deviation of each metric over
// them. A difference between two models that is smaller than these deviations is no difference.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/eval/evaluation.h"

namespace scrna::eval {

/// Mean and sample standard deviation (n - 1) over the runs that have the number; without any both are NaN, with one the
/// deviation is.
struct MeanDeviation {
  int64_t runs = 0;
  double mean = 0, deviation = 0;
};
MeanDeviation mean_deviation(const std::vector<double>& values);

struct SeedGroup {
  std::string name;
  std::vector<const Evaluation*> members;  // into the evaluations it was made of

  [[nodiscard]] MeanDeviation over(const std::function<double(const Evaluation&)>& value) const;
};

/// The groups of these evaluations, in the order of their first members; evaluations without a group are in none.
std::vector<SeedGroup> seed_groups(const std::vector<Evaluation>& evaluations);

/// metric_rows() and the masked loss (whose smaller values are better): what is averaged.
const std::vector<MetricRow>& grouped_rows();

}  // namespace scrna::eval
