// Matrix products of one warp (PTX mma.sync m16n8k16, compute capability 8.0 and later), bf16 or fp16
// operands and fp32 accumulators, operands from swizzled tiles in shared memory.
//
// Accumulator of lane l for 16 x N: rows l / 4 and + 8, columns 8 i + 2 (l % 4) and + 1; d[4 i .. 4 i + 3] =
// (row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1): a quarter of the wgmma
// accumulator, so the stores of fragment.h serve both. The pairwise rounding of d[8 k .. 8 k + 7] is the A
// operand of step k of a later product.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>

#include "kernels/device/fragment.h"

namespace scrna::kernels::device {

/// d[0 .. 3] += A B, 16 x 8 x 16.
template <class Element>
__device__ __forceinline__ void multiply(float* d, const uint32_t* a, uint32_t b_low, uint32_t b_high) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}

/// As load_tiles, each 8 x 8 tile transposed.
__device__ __forceinline__ void load_tiles_transposed(uint32_t address, uint32_t* tiles) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void store_word(uint32_t address, uint32_t word) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}

/// Rows of kWidth elements, without gaps. Their 16-byte chunks are exchanged so that the same chunk of eight
/// neighbouring rows lies in eight different groups of banks, for widths that are no multiple of 128 bytes
/// too.
template <int kWidth>
struct SharedTile {
  static constexpr int kChunks = kWidth / 8;
  static constexpr int kRowBytes = kWidth * 2;
  static constexpr int kGroup = kChunks % 8 == 0 ? 8 : 4;  // chunks that change places among each other
  static_assert(kChunks % kGroup == 0);

  __device__ static constexpr uint32_t offset(int row, int chunk) {
    const int mask = kGroup == 8 ? row % 8 : row / 2 % 4;
    return row * kRowBytes + ((chunk ^ mask) << 4);
  }
  /// What this lane addresses of 16 x 16 tiles: their four 8 x 8 tiles top left, bottom left, top right,
  /// bottom right, the order of an A operand. A register for each step within a group of chunks, in which the
  /// exclusive or is done; everything else is added, mostly by the instruction itself.
  struct Lane {
    static constexpr int kSteps = kGroup / 2;
    uint32_t addresses[kSteps];

    /// The tile at (row, 16 * step); row a multiple of 16.
    __device__ __forceinline__ uint32_t at(int row, int step) const {
      return addresses[step % kSteps] + row * kRowBytes + step / kSteps * kGroup * 16;
    }
    __device__ __forceinline__ Lane operator+(uint32_t bytes) const {
      Lane moved;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) moved.addresses[step] = addresses[step] + bytes;
      return moved;
    }
  };
  __device__ static constexpr uint32_t lane_offset(int step) {
    return offset(threadIdx.x % 16, threadIdx.x % 32 / 16) ^ (step << 5);
  }
  __device__ static Lane lane(uint32_t address) {
    Lane lane;
#pragma unroll
    for (int step = 0; step < Lane::kSteps; ++step) lane.addresses[step] = address + lane_offset(step);
    return lane;
  }
};

template <int kWidth>
using Lane = typename SharedTile<kWidth>::Lane;

/// The A operands of kRowTiles times 16 rows at `a` for one step of 16
/// columns.
template <int kWidth, int kRowTiles>
__device__ __forceinline__ void load_row_tiles(uint32_t (&tiles)[kRowTiles][4], const Lane<kWidth>& a,
                                               int step) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) load_tiles(a.at(16 * r, step), tiles[r]);
}

/// One step of out[r] += A_r B^T: B the kColumns rows at `b`.
template <class Element, int kWidth, int kRowTiles, int kColumns>
__device__ __forceinline__ void multiply_row_tiles(float (&out)[kRowTiles][kColumns / 2],
                                                   const uint32_t (&tiles)[kRowTiles][4],
                                                   const Lane<kWidth>& b, int step) {
#pragma unroll
  for (int pair = 0; pair < kColumns / 16; ++pair) {
    uint32_t b_tiles[4];
    load_tiles(b.at(16 * pair, step), b_tiles);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      multiply<Element>(&out[r][8 * pair], tiles[r], b_tiles[0], b_tiles[2]);
      multiply<Element>(&out[r][8 * pair + 4], tiles[r], b_tiles[1], b_tiles[3]);
    }
  }
}

/// out[r] += A_r B^T: A_r the r-th 16 rows at `a`, B the kColumns rows at `b`.
template <class Element, int kWidth, int kRowTiles, int kColumns>
__device__ __forceinline__ void multiply_rows(float (&out)[kRowTiles][kColumns / 2], const Lane<kWidth>& a,
                                              const Lane<kWidth>& b) {
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    uint32_t tiles[kRowTiles][4];
    load_row_tiles<kWidth, kRowTiles>(tiles, a, step);
    multiply_row_tiles<Element, kWidth, kRowTiles, kColumns>(out, tiles, b, step);
  }
}

/// out[r] += W_r B: W_r 16 x kInner in registers, rounded and packed; B the kInner rows at `b`.
template <class Element, int kWidth, int kRowTiles, int kInner>
__device__ __forceinline__ void multiply_packed(float (&out)[kRowTiles][kWidth / 2],
                                                const uint32_t (&weights)[kRowTiles][kInner / 4],
                                                const Lane<kWidth>& b) {
#pragma unroll
  for (int step = 0; step < kInner / 16; ++step) {
#pragma unroll
    for (int pair = 0; pair < kWidth / 16; ++pair) {
      uint32_t b_tiles[4];
      load_tiles_transposed(b.at(16 * step, pair), b_tiles);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        multiply<Element>(&out[r][8 * pair], &weights[r][4 * step], b_tiles[0], b_tiles[1]);
        multiply<Element>(&out[r][8 * pair + 4], &weights[r][4 * step], b_tiles[2], b_tiles[3]);
      }
    }
  }
}

/// Weights as multiply_packed takes them.
template <class Element, int kRowTiles, int kSize>
__device__ __forceinline__ void pack_weights(uint32_t (&packed)[kRowTiles][kSize / 2],
                                             const float (&weights)[kRowTiles][kSize]) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
    for (int i = 0; i < kSize / 2; ++i)
      packed[r][i] = pack<Element>(weights[r][2 * i], weights[r][2 * i + 1]);
}

}  // namespace scrna::kernels::device
