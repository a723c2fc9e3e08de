// The fp32 workspace in which the backward pass adds up dQ, and what follows it: rounding dQ to the operand
// type, and the sum of the cells' bias gradients.
//
// Blocks of 64 queries never cross a cell. Packed cell b with tokens from t has the blocks from t / 64 + b
// on: a block more than needed here and there, but no table. Per block and head one piece of 64 x 64 per
// panel of 64 columns, in the order in which a warpgroup holds an accumulator (device/wgmma.h), so that
// threads write 16 bytes side by side.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/attention.h"
#include "kernels/attention_plan.h"

namespace scrna::kernels {

struct QueryGradient {
  static constexpr int kRows = 64;
  static constexpr int kPieceFloats = kRows * 64;

  float* pieces;
  int32_t blocks_per_cell;  // padded layout; 0: packed
  int32_t num_heads;
  int32_t num_panels;
  int64_t num_blocks;  // upper bound

#ifdef __CUDACC__
  __device__ int first_block(int first_token, int cell) const {
    return blocks_per_cell > 0 ? cell * blocks_per_cell : first_token / kRows + cell;
  }
  __device__ int64_t index(int64_t block, int head) const { return block * num_heads + head; }
  __device__ float* piece(int64_t block, int head, int panel) const {
    return pieces + (index(block, head) * num_panels + panel) * kPieceFloats;
  }
  __device__ int64_t block_stride() const { return int64_t{num_heads} * num_panels * kPieceFloats; }
  /// Of the four values that thread `thread` of the warpgroup holds for columns 8 octet ... 8 octet + 7.
  __device__ static constexpr int offset(int octet, int thread) { return (octet * 128 + thread) * 4; }
#endif
};

/// The layout for this shape; pieces is null.
QueryGradient query_gradient(const AttentionShape& shape);

/// d_q = scale * sum, zeros in padding.
cudaError_t round_query_gradient(const QueryGradient& sums, const AttentionBackward& call,
                                 cudaStream_t stream);

/// One partial sum of dS per warp of the key groups and tile.
inline constexpr int kBiasPartialsPerTile = 8;
/// d_cell_bias[cell] = the sum of its tiles' partials, in one fixed order.
cudaError_t sum_bias_gradient(const Plan& plan, const float* partials, float* d_cell_bias,
                              cudaStream_t stream);

}  // namespace scrna::kernels
