// Lengths of synthetic cells: numbers of expressed genes as in CELLxGENE, log2-normal(10.75, 1.25), median
// 1,722.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace scrna::bench {

/// A draw from [0, 1) that is the same with every standard library.
inline double uniform(std::mt19937_64& generator) {
  return static_cast<double>(generator() >> 11) * 0x1.0p-53;
}

inline double normal(std::mt19937_64& generator) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform(generator)));
  return radius * std::cos(2.0 * M_PI * uniform(generator));
}

/// One cell: from 200 to 8,192 genes, cut to `longest`.
inline int32_t cellxgene_length(std::mt19937_64& generator, double longest = 8192.0) {
  const double length = std::clamp(std::exp2(10.75 + 1.25 * normal(generator)), 200.0, 8192.0);
  return static_cast<int32_t>(std::min(length, longest));
}

inline std::vector<int32_t> cellxgene_lengths(int64_t num_cells, uint64_t seed, double longest = 8192.0) {
  std::mt19937_64 generator(seed);
  std::vector<int32_t> lengths;
  for (int64_t i = 0; i < num_cells; ++i) lengths.push_back(cellxgene_length(generator, longest));
  return lengths;
}

}  // namespace scrna::bench
