// From numbers to places along an axis, linear or logarithmic, with ticks at round numbers.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace scrna::report {

enum class ScaleKind { kLinear, kLog };

class Scale {
 public:
  /// Maps [low, high] to [from, to]. An empty or single-valued range is widened; a logarithmic one must be above 0.
  Scale(ScaleKind kind, double low, double high, double from, double to);
  /// NaN for what the axis cannot show: no number, or not above 0 on a logarithmic one. Beyond its ends it goes on.
  [[nodiscard]] double operator()(double value) const;
  /// The same, held within the axis.
  [[nodiscard]] double clamped(double value) const;
  /// About `count` round numbers within the range, ascending.
  [[nodiscard]] std::vector<double> ticks(int count) const;
  [[nodiscard]] double low() const { return low_; }
  [[nodiscard]] double high() const { return high_; }

 private:
  ScaleKind kind_;
  double low_, high_, from_, to_;
};

/// Smallest and largest finite value (above 0 for kLog) of all, or {0, 1} (kLog: {1, 10}) without any.
std::pair<double, double> range_of(std::span<const std::vector<double>> values, ScaleKind kind);

/// "1,200", "0.25", "3×10⁻⁵": for ticks and labels.
std::string short_number(double value);

}  // namespace scrna::report
