#include "lib/model/token_tensors.h"

#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/packed_cells.h"

namespace scrna::model {
namespace {

template <class Value, class Given>
void expect_holds(const at::Tensor& x, const std::vector<Given>& given) {
  ASSERT_EQ(x.dim(), 1);
  ASSERT_TRUE(x.is_contiguous());
  const std::vector<Value> expected(given.begin(), given.end());
  EXPECT_EQ(std::vector<Value>(x.data_ptr<Value>(), x.data_ptr<Value>() + x.numel()), expected);
}

void expect_same(const TokenTensors& tensors, const PackedMicroBatch& pack) {
  expect_holds<int64_t>(tensors.tokens, pack.tokens);
  expect_holds<int64_t>(tensors.ranks, pack.ranks);
  expect_holds<int32_t>(tensors.cu_seqlens, pack.cu_seqlens);
  expect_holds<int32_t>(tensors.cu_seqlens_host, pack.cu_seqlens);
  expect_holds<int64_t>(tensors.cell_ids, pack.cell_ids);
  expect_holds<int64_t>(tensors.masked_positions, pack.masked_positions);
  expect_holds<int64_t>(tensors.masked_targets, pack.masked_targets);
  EXPECT_EQ(tensors.max_cell_tokens, pack.max_cell_tokens);
}

TEST(TokenTensors, HoldWhatThePackHolds) {
  const uint64_t high_id =
      std::numeric_limits<uint64_t>::max() - 5;  // its bits are those of an int64 below 0
  const PackedMicroBatch cells = test::pack({{1, 11}, {high_id, 200}, {3, 5}});
  const TokenTensors tensors = to_device(cells, at::kCPU);
  expect_same(tensors, cells);
  EXPECT_EQ(tensors.cell_ids.data_ptr<int64_t>()[1], -6);
}

TEST(TokenTensors, APackWithoutMaskedTokensIsFine) {
  const PackedMicroBatch cells = test::pack({{1, 2}});
  ASSERT_EQ(cells.num_masked(), 0);
  expect_same(to_device(cells, at::kCPU), cells);
}

TEST(TokenTensors, OutliveThePackAndShareOneBuffer) {
  TokenTensors tensors;
  const PackedMicroBatch cells = test::pack({{1, 11}, {2, 70}});
  {
    const PackedMicroBatch copy = cells;
    tensors = to_device(copy, at::kCPU);
  }
  expect_same(tensors, cells);
  for (const at::Tensor& x : {tensors.ranks, tensors.cu_seqlens, tensors.cell_ids, tensors.masked_positions,
                              tensors.masked_targets})
    EXPECT_EQ(x.storage().data(), tensors.tokens.storage().data()) << "the feeder marks one of them as used";
}

}  // namespace
}  // namespace scrna::model
