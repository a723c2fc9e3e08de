#include "lib/data/packing.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/masking.h"
#include "lib/data/vocabulary.h"

namespace scrna::data {
namespace {

std::vector<int32_t> cell_of(int32_t num_tokens, int32_t first = 100) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < num_tokens; ++i) tokens.push_back(first + i);
  return tokens;
}

// Packs cells of these lengths and returns the lengths in each pack.
std::vector<std::vector<int32_t>> pack(const std::vector<int32_t>& lengths, int64_t limit) {
  Packer packer(limit, 0.15);
  std::vector<std::vector<int32_t>> packs;
  const auto take = [&] {
    const PackedMicroBatch pack = packer.take();
    std::vector<int32_t> sizes;
    for (std::size_t cell = 0; cell + 1 < pack.cu_seqlens.size(); ++cell)
      sizes.push_back(pack.cu_seqlens[cell + 1] - pack.cu_seqlens[cell]);
    packs.push_back(sizes);
  };
  for (const int32_t length : lengths) {
    if (packer.is_full_for(length)) take();
    packer.add(cell_of(length), 1, heldout_mask_stream(1));
  }
  if (!packer.is_empty()) take();
  return packs;
}

TEST(Packer, TakesWholeCellsInTheirOrderUpToTheLimit) {
  EXPECT_EQ(pack({3, 4, 3, 5, 5, 1}, 10), (std::vector<std::vector<int32_t>>{{3, 4, 3}, {5, 5}, {1}}));
}

TEST(Packer, ACellLongerThanTheLimitMakesAPackOfItsOwn) {
  EXPECT_EQ(pack({2, 25, 2, 3}, 10), (std::vector<std::vector<int32_t>>{{2}, {25}, {2, 3}}));
  EXPECT_EQ(pack({25}, 10), (std::vector<std::vector<int32_t>>{{25}}));
}

TEST(Packer, APackDescribesItself) {
  Packer packer(100, 0.3);
  packer.add(cell_of(7, 50), 11, heldout_mask_stream(11));
  std::vector<int32_t> with_cls = cell_of(10, 80);
  with_cls.insert(with_cls.begin(), Vocabulary::kCls);
  packer.add(with_cls, 12, heldout_mask_stream(12));
  const PackedMicroBatch pack = packer.take();
  EXPECT_TRUE(packer.is_empty());
  EXPECT_EQ(pack.cu_seqlens, (std::vector<int32_t>{0, 7, 18}));
  EXPECT_EQ(pack.cell_ids, (std::vector<uint64_t>{11, 12}));
  EXPECT_EQ(pack.max_cell_tokens, 11);
  EXPECT_EQ(pack.num_masked(), num_masked_tokens(7, 0.3) + num_masked_tokens(10, 0.3));
  EXPECT_TRUE(std::is_sorted(pack.masked_positions.begin(), pack.masked_positions.end()));
  std::vector<int32_t> restored = pack.tokens;
  for (std::size_t i = 0; i < pack.masked_positions.size(); ++i) {
    int32_t& token = restored[static_cast<std::size_t>(pack.masked_positions[i])];
    EXPECT_EQ(token, Vocabulary::kMask);
    token = pack.masked_targets[i];
  }
  std::vector<int32_t> expected = cell_of(7, 50), ranks;
  expected.insert(expected.end(), with_cls.begin(), with_cls.end());
  EXPECT_EQ(restored, expected) << "targets put back where they were give the cells";
  for (const int32_t length : {7, 11})
    for (int32_t i = 0; i < length; ++i) ranks.push_back(i);
  EXPECT_EQ(pack.ranks, ranks);
  EXPECT_EQ(restored[7], Vocabulary::kCls) << "a special token is never masked";
}

TEST(Packer, ACellWithoutTokensIsOurOwnMistake) {
  Packer packer(10, 0.15);
  EXPECT_THROW(packer.add({}, 1, heldout_mask_stream(1)), InternalError);
}

}  // namespace
}  // namespace scrna::data
