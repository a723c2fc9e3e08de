#include "lib/dist/gradient_buckets.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/ranks.h"

namespace scrna::dist {
namespace {

constexpr int64_t kElements = 4000;
constexpr int64_t kBytes = 4;

// From the end of the buffer to its beginning, 500 elements each; the last two come late.
std::vector<GradientPiece> pieces() {
  std::vector<GradientPiece> result;
  for (int64_t end = kElements; end > 0; end -= 500) result.push_back({end - 500, end, end <= 1000 ? 1 : 0});
  return result;
}

TEST(GradientBuckets, ABucketClosesWhenItIsFullAndAtAPhase) {
  Communicator alone;
  const at::Tensor flat = at::rand({kElements});
  EXPECT_EQ(GradientBuckets(alone, flat, pieces(), 1000 * kBytes, GradientType::kFp32).num_buckets(), 4U);
  EXPECT_EQ(GradientBuckets(alone, flat, pieces(), 1 << 20, GradientType::kFp32).num_buckets(), 2U);
  EXPECT_EQ(GradientBuckets(alone, flat, pieces(), 1, GradientType::kFp32).num_buckets(), 8U);
  EXPECT_EQ(GradientBuckets(alone, flat, pieces(), 1, GradientType::kBf16).bytes_per_step(), 2 * kElements);
}

TEST(GradientBuckets, SumsWhateverTheOrderInWhichPiecesAreReadyOnARank) {
  for (const int64_t bucket_bytes : {1L, 1000 * kBytes, 1L << 20}) {
    test::run_good_ranks(3, [&](Communicator& communicator) {
      const at::Tensor flat = at::arange(kElements, at::kFloat).add_(communicator.rank());
      GradientBuckets buckets(communicator, flat, pieces(), bucket_bytes, GradientType::kFp32);
      for (int step = 0; step < 2; ++step) {
        const at::Tensor expected =
            step == 0 ? at::arange(kElements, at::kFloat).mul_(3).add_(3) : flat.mul(3);
        buckets.begin();
        // Each rank has an order of its own.
        for (std::size_t i = 0; i < 8; ++i)
          buckets.ready((i + static_cast<std::size_t>(communicator.rank()) * 3) % 8);
        buckets.finish();
        EXPECT_TRUE(at::equal(flat, expected));
      }
    });
  }
}

TEST(GradientBuckets, InBf16SumsAreThoseOfFp32ToItsRounding) {
  test::run_good_ranks(2, [&](Communicator& communicator) {
    const at::Tensor flat = at::arange(kElements, at::kFloat).mul_(0.001).add_(communicator.rank());
    const at::Tensor exact = at::arange(kElements, at::kFloat).mul_(0.002).add_(1);
    GradientBuckets buckets(communicator, flat, pieces(), 1000 * kBytes, GradientType::kBf16);
    buckets.begin();
    for (std::size_t i = 0; i < 8; ++i) buckets.ready(i);
    buckets.finish();
    // Two addends and their sum are rounded, each by at most 2^-9 of its size.
    EXPECT_LT(flat.sub(exact).abs().div(exact).max().item<double>(), 2.0 / 256);
    EXPECT_FALSE(at::equal(flat, exact));
  });
}

TEST(GradientBuckets, APieceThatIsForgottenOrReadyTwiceIsABug) {
  Communicator alone;
  GradientBuckets buckets(alone, at::rand({kElements}), pieces(), 1, GradientType::kFp32);
  EXPECT_THROW(buckets.ready(0), InternalError);
  buckets.begin();
  buckets.ready(0);
  EXPECT_TRUE(buckets.is_ready(0));
  EXPECT_FALSE(buckets.is_ready(1));
  EXPECT_THROW(buckets.ready(0), InternalError);
  EXPECT_THROW(buckets.finish(), InternalError);
  EXPECT_THROW(GradientBuckets(alone, at::rand({kElements + 1}), pieces(), 1, GradientType::kFp32),
               InternalError);
}

}  // namespace
}  // namespace scrna::dist
