// The range a configuration value must lie in, declared beside the field:
//   visitor("steps", steps, "optimizer steps to train for", at_least(1));
// Structs that declare fields include this header only; reading and dumping live in the rest of lib/config.
#pragma once

#include <limits>

namespace scrna::config {

struct Bound {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_is_excluded = false;
  bool high_is_excluded = false;
};

constexpr Bound at_least(double low) { return {.low = low}; }
constexpr Bound above(double low) { return {.low = low, .low_is_excluded = true}; }
constexpr Bound between(double low, double high) { return {.low = low, .high = high}; }
/// low <= value < high
constexpr Bound from_to_below(double low, double high) { return {.low = low, .high = high, .high_is_excluded = true}; }

}  // namespace scrna::config
