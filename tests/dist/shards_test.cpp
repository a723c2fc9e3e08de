#include "lib/dist/shards.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/ranks.h"

namespace scrna::dist {
namespace {

constexpr int64_t kRow = 8;
// In the order in which they leave: from the end. 7, 1, 12 and 4 rows.
const std::vector<ElementRange> kBuckets = {{136, 192}, {128, 136}, {32, 128}, {0, 32}};
constexpr int64_t kElements = 192;

TEST(Shards, EveryElementIsOwnedOnceOrByAllAndCountedOnce) {
  for (const int64_t num_ranks : {1, 2, 3, 4, 5}) {
    std::mutex mutex;
    std::vector<int64_t> num_owners(kElements), num_counts(kElements);
    std::vector<int64_t> sizes;
    test::run_good_ranks(num_ranks, [&](Communicator& communicator) {
      const Shards shards(communicator, kBuckets, kRow);
      const std::scoped_lock lock(mutex);
      int64_t num_own = 0;
      for (const ElementRange& range : shards.own()) {
        EXPECT_EQ(range.begin % kRow, 0);
        for (int64_t i = range.begin; i < range.end; ++i) ++num_owners[static_cast<std::size_t>(i)];
        num_own += range.size();
      }
      for (const ElementRange& range : shards.counted())
        for (int64_t i = range.begin; i < range.end; ++i) ++num_counts[static_cast<std::size_t>(i)];
      EXPECT_EQ(shards.num_own(), num_own);
      sizes.push_back(num_own);
    });
    EXPECT_EQ(std::ranges::count(num_counts, 1), kElements) << num_ranks;
    for (const int64_t owners : num_owners) EXPECT_TRUE(owners == 1 || owners == num_ranks) << num_ranks;
    // Equal shares, whatever does not divide included: fewer rows than ranks of each of the four buckets.
    EXPECT_EQ(std::ranges::min(sizes), std::ranges::max(sizes));
    EXPECT_LE(sizes[0], kElements / num_ranks + 4 * (num_ranks - 1) * kRow);
  }
}

TEST(Shards, SpreadGivesAllTheSameBufferAndCollectGivesItToTheFirst) {
  for (const int64_t num_ranks : {1, 2, 3, 4, 5}) {
    test::run_good_ranks(num_ranks, [&](Communicator& communicator) {
      const Shards shards(communicator, kBuckets, kRow);
      const at::Tensor expected = at::arange(kElements, at::kFloat);
      const at::Tensor flat = at::full({kElements}, -1.0);
      std::vector<at::Tensor> parts;
      for (const ElementRange& range : shards.own()) {
        parts.push_back(expected.narrow(0, range.begin, range.size()));
        flat.narrow(0, range.begin, range.size()).copy_(parts.back());
      }
      shards.spread(flat);
      EXPECT_TRUE(at::equal(flat, expected)) << communicator.rank() << " of " << num_ranks;
      const at::Tensor whole = shards.collect(at::cat(parts));
      ASSERT_EQ(whole.defined(), communicator.is_first());
      if (whole.defined()) {
        EXPECT_TRUE(at::equal(whole, expected)) << num_ranks;
      }
    });
  }
}

TEST(Shards, ABufferOfAnotherLengthIsABug) {
  Communicator alone;
  const Shards shards(alone, kBuckets, kRow);
  EXPECT_THROW(shards.spread(at::full({kElements + 8}, 0.0)), InternalError);
  EXPECT_THROW((void)shards.collect(at::full({kElements - 8}, 0.0)), InternalError);
  EXPECT_THROW((void)Shards(alone, {{0, 12}}, kRow), InternalError);
}

}  // namespace
}  // namespace scrna::dist
