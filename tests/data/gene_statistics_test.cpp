#include "lib/data/gene_statistics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/random.h"

namespace scrna::data {
namespace {

double exact_median(std::vector<float> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (double{values[n / 2 - 1]} + double{values[n / 2]}) / 2;
}

TEST(MedianSketch, IsExactForFewValues) {
  MedianSketch sketch;
  EXPECT_THROW((void)sketch.median(), InternalError);
  std::vector<float> values;
  for (int64_t i = 0; i < MedianSketch::kExactValues; ++i) {
    values.push_back(
        static_cast<float>(RandomStream(1, RandomPurpose::kInit).uniform(static_cast<uint64_t>(i))));
    sketch.add(values.back());
    if (i < 10 || i + 2 > MedianSketch::kExactValues) {
      EXPECT_EQ(sketch.median(), exact_median(values)) << i;
    }
  }
  EXPECT_TRUE(sketch.is_exact());
}

TEST(MedianSketch, IsWithinHalfAPercentForManyValues) {
  for (const double spread : {0.01, 0.3, 1.0, 3.0}) {
    const RandomStream stream(7, RandomPurpose::kInit);
    MedianSketch sketch;
    std::vector<float> values;
    for (uint64_t i = 0; i < 20000; ++i) {
      values.push_back(static_cast<float>(std::exp(spread * (stream.uniform(i) * 2 - 0.7))));
      sketch.add(values.back());
    }
    EXPECT_FALSE(sketch.is_exact());
    const double exact = exact_median(values);
    EXPECT_NEAR(sketch.median(), exact, MedianSketch::kRelativeError * exact) << spread;
  }
}

TEST(MedianSketch, TwoClustersAveragedOverTheGapKeepTheBound) {
  MedianSketch sketch;
  std::vector<float> values;
  for (int i = 0; i < 5000; ++i) {
    for (const float value : {0.2F, 300.0F}) {
      values.push_back(value);
      sketch.add(value);
    }
  }
  EXPECT_NEAR(sketch.median(), exact_median(values), MedianSketch::kRelativeError * exact_median(values));
}

TEST(MedianSketch, ValuesBeyondTheEndsCountAsTheEnds) {
  MedianSketch low, high;
  for (int i = 0; i < 3000; ++i) {
    low.add(1e-9F);
    high.add(1e9F);
  }
  EXPECT_NEAR(low.median(), MedianSketch::kSmallest, 0.006 * MedianSketch::kSmallest);
  EXPECT_NEAR(high.median(), MedianSketch::kLargest, 0.011 * MedianSketch::kLargest);
}

}  // namespace
}  // namespace scrna::data
