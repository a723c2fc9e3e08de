// How elementwise kernels with a sum per column walk a [T, F]: a block of 8 warps owns 256 columns (one octet
// per lane) and every gridDim.y-th group of 8 rows, so that its column sums stay in registers and leave as
// one partial row per block. The number of blocks depends on the shape alone: sums have the same order on
// every GPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/device/octet.h"

namespace scrna::kernels::device {

inline constexpr int kTileColumns = 256;
inline constexpr int kTileWarps = 8;
inline constexpr int64_t kTileBlocks = 3960;  // 30 per multiprocessor of an H100: ten times what is resident

inline int64_t tile_columns(int64_t width) {
  return std::max<int64_t>(1, (width + kTileColumns - 1) / kTileColumns);
}
/// Blocks along the rows: the number of partial rows.
inline int64_t tile_rows(int64_t num_rows, int64_t width) {
  const int64_t wanted = std::max<int64_t>(1, kTileBlocks / tile_columns(width));
  return std::min<int64_t>((num_rows + kTileWarps - 1) / kTileWarps, wanted);
}
inline dim3 tile_grid(int64_t num_rows, int64_t width) {
  return {static_cast<unsigned>(tile_columns(width)), static_cast<unsigned>(tile_rows(num_rows, width))};
}

/// Adds the sums of the block's 8 warps in order and writes them to row blockIdx.y of partials [rows, width].
__device__ __forceinline__ void store_column_sums(const float (&sums)[kOctet], int64_t width,
                                                  float* partials) {
  __shared__ float exchange[kTileWarps][kOctet][32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < kOctet; ++i) exchange[warp][i][lane] = sums[i];
  __syncthreads();
  const int64_t column = int64_t{blockIdx.x} * kTileColumns + threadIdx.x;
  if (column >= width) return;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kTileWarps; ++w) sum += exchange[w][threadIdx.x % kOctet][threadIdx.x / kOctet];
  partials[blockIdx.y * width + column] = sum;
}

}  // namespace scrna::kernels::device
