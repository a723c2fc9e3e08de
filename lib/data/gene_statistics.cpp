#include "lib/data/gene_statistics.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

std::size_t bin_of(double value) {
  static const double kInverseLogRatio = 1.0 / std::log(MedianSketch::kRatio);
  const double clamped = std::clamp(value, MedianSketch::kSmallest, MedianSketch::kLargest);
  return static_cast<std::size_t>(std::log(clamped / MedianSketch::kSmallest) * kInverseLogRatio);
}

// The geometric middle of a bin: both ends are a factor sqrt(1.01), or 0.4988 %, away.
double middle_of(std::size_t bin) {
  return MedianSketch::kSmallest * std::pow(MedianSketch::kRatio, static_cast<double>(bin) + 0.5);
}

}  // namespace

void MedianSketch::add(float value) {
  ++size_;
  if (bins_.empty() && size_ <= kExactValues) {
    values_.push_back(value);
    return;
  }
  if (bins_.empty()) spread();
  const std::size_t bin = bin_of(value);
  if (bin >= bins_.size()) bins_.resize(bin + 1);
  ++bins_[bin];
}

void MedianSketch::spread() {
  bins_.resize(1);
  for (const float value : values_) {
    const std::size_t bin = bin_of(value);
    if (bin >= bins_.size()) bins_.resize(bin + 1);
    ++bins_[bin];
  }
  values_ = {};
}

double MedianSketch::median() const {
  SCRNA_CHECK(size_ > 0, "median of no value");
  const int64_t lower = (size_ - 1) / 2, upper = size_ / 2;
  if (is_exact()) {
    std::vector<float> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    return 0.5 * (double{sorted[static_cast<std::size_t>(lower)]} +
                  double{sorted[static_cast<std::size_t>(upper)]});
  }
  double sum = 0;
  int64_t below = 0;
  for (std::size_t bin = 0; bin < bins_.size(); ++bin) {
    const int64_t up_to = below + bins_[bin];
    for (const int64_t rank : {lower, upper}) {
      if (rank >= below && rank < up_to) sum += middle_of(bin);
    }
    below = up_to;
  }
  return 0.5 * sum;
}

}  // namespace scrna::data
