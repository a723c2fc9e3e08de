#include "lib/report/spike.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <vector>

namespace scrna::report {
namespace {

constexpr double kDefaultWindow = 100;
constexpr std::size_t kFewestSteps = 5;  // of a median

// The last `size` numbers, and their median.
class RunningMedian {
 public:
  explicit RunningMedian(std::size_t size) : size_(size) {}
  void add(double value) {
    order_.push_back(value);
    sorted_.insert(std::ranges::upper_bound(sorted_, value), value);
    if (order_.size() <= size_) return;
    sorted_.erase(std::ranges::lower_bound(sorted_, order_.front()));
    order_.pop_front();
  }
  [[nodiscard]] std::size_t count() const { return sorted_.size(); }
  [[nodiscard]] double median() const { return sorted_[sorted_.size() / 2]; }

 private:
  std::size_t size_;
  std::deque<double> order_;
  std::vector<double> sorted_;
};

}  // namespace

Spike largest_spike(const RunData& run) {
  Spike spike{.ratio = std::numeric_limits<double>::quiet_NaN()};
  const Curve* norms = run.find("grad_norm");
  if (norms == nullptr) return spike;
  const Curve* applied = run.find("applied");
  if (applied != nullptr && applied->values.size() != norms->values.size()) applied = nullptr;
  const double window = run.number("monitor.explosion_window_steps");
  const auto size = static_cast<std::size_t>(window >= 5 ? window : kDefaultWindow);
  RunningMedian before(size);
  double last = std::numeric_limits<double>::quiet_NaN();  // not yet part of the median
  for (std::size_t i = 0; i < norms->values.size(); ++i) {
    const double norm = norms->values[i];
    if (before.count() >= kFewestSteps && before.median() > 0) {
      const double ratio =
          std::isfinite(norm) ? norm / before.median() : std::numeric_limits<double>::infinity();
      if (!(ratio <= spike.ratio)) spike = {ratio, static_cast<int64_t>(norms->steps[i]), norm};
    }
    if (std::isfinite(last)) before.add(last);
    const bool is_applied = applied == nullptr || applied->values[i] != 0;
    last = is_applied ? norm : std::numeric_limits<double>::quiet_NaN();
  }
  return spike;
}

}  // namespace scrna::report
