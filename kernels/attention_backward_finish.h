// The fp32 workspace in which the backward pass adds up dQ, and what follows it: rounding dQ to the operand
// type, and the sum of the cells' bias gradients.
//
// Blocks of 64 queries never cross a cell. Packed cell b with tokens from t has the blocks from t / 64 + b
// on: a block more than needed here and there, but no table. Per block, head and octet of columns 512 sums,
// 128 for each 16 rows, in the order in which a warp holds an accumulator (device/wgmma.h, device/mma.h):
// lane by lane on Hopper, whose threads write 16 bytes side by side; value by value for the portable kernels,
// whose threads add 4 bytes at a time.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/attention.h"
#include "kernels/attention_plan.h"

namespace scrna::kernels {

struct QueryGradient {
  static constexpr int kRows = 64;
  static constexpr int kPieceFloats = kRows * 64;

  static constexpr int kOctetFloats = kRows * 8;

  float* pieces;
  int32_t blocks_per_cell;  // padded layout; 0: packed
  int32_t num_heads;
  int32_t num_octets;  // of a head
  int64_t num_blocks;  // upper bound

  [[nodiscard]] size_t bytes() const {
    return static_cast<size_t>(num_blocks * num_heads * num_octets) * kOctetFloats * sizeof(float);
  }

#ifdef __CUDACC__
  __device__ int first_block(int first_token, int cell) const {
    return blocks_per_cell > 0 ? cell * blocks_per_cell : first_token / kRows + cell;
  }
  __device__ float* octet(int64_t block, int head, int octet) const {
    return pieces + ((block * num_heads + head) * num_octets + octet) * kOctetFloats;
  }
  __device__ float* piece(int64_t block, int head, int panel) const { return octet(block, head, panel * 8); }
  __device__ int64_t block_stride() const { return int64_t{num_heads} * num_octets * kOctetFloats; }
  /// Of the four values that thread `thread` of the warpgroup holds for columns 8 octet ... 8 octet + 7.
  __device__ static constexpr int offset(int octet, int thread) { return (octet * 128 + thread) * 4; }
#endif
};

/// The layout for this shape; pieces is null.
QueryGradient query_gradient(const AttentionShape& shape);

enum class SumOrder : uint8_t { kByLane, kByValue };
/// d_q = scale * sum, zeros in padding.
cudaError_t round_query_gradient(const QueryGradient& sums, SumOrder order, const AttentionBackward& call,
                                 cudaStream_t stream);

/// One partial sum of dS per warp of the key groups and tile.
inline constexpr int kBiasPartialsPerTile = 8;
/// d_cell_bias[cell] = the sum of its tiles' partials, in one fixed order.
cudaError_t sum_bias_gradient(const Plan& plan, const float* partials, float* d_cell_bias,
                              cudaStream_t stream);

}  // namespace scrna::kernels
