#include "lib/dist/gradient_buckets.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/dist/shards.h"
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

BucketPlan plan(int64_t bucket_bytes) { return plan_buckets(pieces(), kElements, bucket_bytes); }

TEST(GradientBuckets, ABucketClosesWhenItIsFullAndAtAPhase) {
  Communicator alone;
  const at::Tensor flat = at::rand({kElements});
  EXPECT_EQ(GradientBuckets(alone, flat, plan(1000 * kBytes), GradientType::kFp32).num_buckets(), 4U);
  EXPECT_EQ(GradientBuckets(alone, flat, plan(1 << 20), GradientType::kFp32).num_buckets(), 2U);
  EXPECT_EQ(GradientBuckets(alone, flat, plan(1), GradientType::kFp32).num_buckets(), 8U);
  EXPECT_EQ(GradientBuckets(alone, flat, plan(1), GradientType::kBf16).bytes_per_step(), 2 * kElements);
}

TEST(GradientBuckets, SumsWhateverTheOrderInWhichPiecesAreReadyOnARank) {
  for (const int64_t bucket_bytes : {1L, 1000 * kBytes, 1L << 20}) {
    test::run_good_ranks(3, [&](Communicator& communicator) {
      const at::Tensor flat = at::arange(kElements, at::kFloat).add_(communicator.rank());
      GradientBuckets buckets(communicator, flat, plan(bucket_bytes), GradientType::kFp32);
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
    GradientBuckets buckets(communicator, flat, plan(1000 * kBytes), GradientType::kBf16);
    buckets.begin();
    for (std::size_t i = 0; i < 8; ++i) buckets.ready(i);
    buckets.finish();
    // Two addends and their sum are rounded, each by at most 2^-9 of its size.
    EXPECT_LT(flat.sub(exact).abs().div(exact).max().item<double>(), 2.0 / 256);
    EXPECT_FALSE(at::equal(flat, exact));
  });
}

// 4,000 elements are 40 rows; buckets of 5, 10, 30 rows on 2, 3 and 4 ranks: parts that divide and that do not.
TEST(GradientBuckets, AShardGetsTheSumOfItsPartAndOfTheRowsThatDoNotDivide) {
  constexpr int64_t kRow = 100;
  for (const int64_t num_ranks : {1, 2, 3, 4}) {
    for (const int64_t bucket_bytes : {1L, 1000 * kBytes, 1L << 20}) {
      for (const GradientType type : {GradientType::kFp32, GradientType::kBf16}) {
        test::run_good_ranks(num_ranks, [&](Communicator& communicator) {
          // Small whole numbers: exact also in bf16.
          const at::Tensor values = at::arange(kElements, at::kFloat).remainder_(16);
          const at::Tensor flat = values.add(communicator.rank());
          const at::Tensor expected =
              values.mul(num_ranks).add_(static_cast<double>(num_ranks * (num_ranks - 1)) / 2);
          const BucketPlan buckets_plan = plan(bucket_bytes);
          const Shards shards(communicator, buckets_plan.buckets, kRow);
          GradientBuckets buckets(communicator, flat, buckets_plan, type, Summed::kShard, kRow);
          buckets.begin();
          for (std::size_t i = 0; i < 8; ++i) buckets.ready(i);
          buckets.finish();
          for (const ElementRange& range : shards.own()) {
            EXPECT_TRUE(at::equal(flat.narrow(0, range.begin, range.size()),
                                  expected.narrow(0, range.begin, range.size())))
                << range.begin << " on rank " << communicator.rank() << " of " << num_ranks;
          }
        });
      }
    }
  }
}

TEST(GradientBuckets, APieceThatIsForgottenOrReadyTwiceIsABug) {
  Communicator alone;
  GradientBuckets buckets(alone, at::rand({kElements}), plan(1), GradientType::kFp32);
  EXPECT_THROW(buckets.ready(0), InternalError);
  buckets.begin();
  buckets.ready(0);
  EXPECT_TRUE(buckets.is_ready(0));
  EXPECT_FALSE(buckets.is_ready(1));
  EXPECT_THROW(buckets.ready(0), InternalError);
  EXPECT_THROW(buckets.finish(), InternalError);
  EXPECT_THROW((void)plan_buckets(pieces(), kElements + 1, 1), InternalError);
}

}  // namespace
}  // namespace scrna::dist
