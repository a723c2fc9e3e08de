#include "lib/core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace scrna {
namespace {

// Known answers of Random123's kat_vectors for philox4x32 with 10 rounds.
TEST(Random, PhiloxMatchesTheKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0}, {0, 0, 0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, StreamsOfDifferentStepsCellsAndPurposesDiffer) {
  const RandomStream base(42, RandomPurpose::kMask, 1, 2);
  EXPECT_NE(base.bits(0), RandomStream(42, RandomPurpose::kMask, 2, 1).bits(0));
  EXPECT_NE(base.bits(0), RandomStream(42, RandomPurpose::kDropout, 1, 2).bits(0));
  EXPECT_NE(base.bits(0), RandomStream(43, RandomPurpose::kMask, 1, 2).bits(0));
  EXPECT_EQ(base.bits(7), RandomStream(42, RandomPurpose::kMask, 1, 2).bits(7));
}

TEST(Random, BelowIsUniformOverItsRange) {
  // Chi-square of 64,000 draws over 64 bins: mean 63, standard deviation 11.2; 150 is 7.7 sigma away.
  const RandomStream stream(7, RandomPurpose::kShuffle);
  std::vector<int> bins(64);
  for (uint64_t i = 0; i < 64000; ++i) ++bins[stream.below(64, i)];
  double chi_square = 0;
  for (const int count : bins) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 150.0);
  EXPECT_GT(chi_square, 15.0);
}

}  // namespace
}  // namespace scrna
