// How easily chance alone splits pairs as they were split: the exact sign test (Arbuthnott 1710; McNemar's test in its
// exact form) over the pairs whose two members differ. It takes pairs as independent: pairs of one seed at neighbouring
// learning rates or widths are not quite, so that p is then too small.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include <fmt/format.h>

namespace scrna::stress {

inline constexpr double kLittleEvidence = 0.05;

/// Two-sided: probability that of `first` + `second` fair coins at least as unequal a split comes up. 1 without pairs.
inline double sign_test(int first, int second) {
  const int pairs = first + second;
  double tail = 0;
  for (int k = 0; k <= std::min(first, second); ++k)
    tail += std::exp(std::lgamma(pairs + 1.0) - std::lgamma(k + 1.0) - std::lgamma(pairs - k + 1.0) -
                     pairs * std::log(2.0));
  return std::min(1.0, 2 * tail);
}

/// In brackets, p and whether that is little evidence; nothing when no pair differs.
inline std::string sign_test_words(int first, int second) {
  if (first + second == 0) return {};
  const double p = sign_test(first, second);
  return fmt::format(" (sign test over the pairs that differ: p = {:.2g}{})", p,
                     p > kLittleEvidence ? ", little evidence" : "");
}

}  // namespace scrna::stress
