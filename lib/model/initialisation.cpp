#include "lib/model/initialisation.h"

#include <cmath>
#include <numbers>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "lib/core/random.h"

namespace scrna::model {
namespace {

// FNV-1a: stable across compilers, unlike std::hash.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ULL;
  return hash;
}

// Open interval (0, 1): the logarithm of the Box-Muller transform needs a positive number.
double open_uniform(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1.0p-32; }

}  // namespace

at::Tensor normal_values(const std::vector<int64_t>& shape, double standard_deviation, uint64_t seed,
                         std::string_view name) {
  at::Tensor values = at::empty(shape, at::kFloat);
  float* out = values.mutable_data_ptr<float>();
  const int64_t count = values.numel();
  const RandomStream stream(seed, RandomPurpose::kInit, hash_name(name));
  // One Philox call makes two Box-Muller pairs, that is four normals.
  at::parallel_for(0, (count + 3) / 4, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const auto words = stream.words(static_cast<uint64_t>(group));
      for (std::size_t pair = 0; pair < 2; ++pair) {
        const double radius = standard_deviation * std::sqrt(-2.0 * std::log(open_uniform(words[2 * pair])));
        const double angle = 2.0 * std::numbers::pi * open_uniform(words[2 * pair + 1]);
        const int64_t first = 4 * group + 2 * static_cast<int64_t>(pair);
        if (first < count) out[first] = static_cast<float>(radius * std::cos(angle));
        if (first + 1 < count) out[first + 1] = static_cast<float>(radius * std::sin(angle));
      }
    }
  });
  return values;
}

}  // namespace scrna::model
