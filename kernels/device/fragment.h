// Fragments of matrices in registers: rounding fp32 pairs to the operand type, moving 8 x 8 tiles between
// registers and swizzled panels in shared memory, and wide stores of accumulators.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace scrna::kernels::device {

/// Two fp32 rounded to nearest even and packed, the first in the low half.
template <class Element>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t packed;
  if constexpr (std::is_same_v<Element, __nv_bfloat16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

template <class Element>
__device__ __forceinline__ float2 unpack(uint32_t packed) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>)
    return {__uint_as_float(packed << 16), __uint_as_float(packed & 0xFFFF0000U)};
  else
    return __half22float2(*reinterpret_cast<const __half2*>(&packed));
}

/// Four 8 x 8 tiles of 16-bit elements; lane l addresses row l % 8 of tile l / 8.
__device__ __forceinline__ void store_tiles(uint32_t address, const uint32_t* tiles) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(tiles[0]), "r"(tiles[1]), "r"(tiles[2]), "r"(tiles[3])
               : "memory");
}

__device__ __forceinline__ void load_tiles(uint32_t address, uint32_t* tiles) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
               : "r"(address)
               : "memory");
}

/// Byte offset, inside a swizzled panel, of the row and the 16-byte chunk that this lane addresses when a
/// warp moves the 16 x 16 tile at (row, 16 * step): its four 8 x 8 tiles in the order of an A operand.
__device__ __forceinline__ uint32_t tile_offset(int first_row, int step) {
  const int lane = threadIdx.x % 32;
  const int row = first_row + lane % 16;
  return row * 128 + (((step * 2 + lane / 16) ^ (row % 8)) << 4);
}

/// 4 x 4 transpose of words among the four lanes of a quad: lane a receives word a of every lane, in lane
/// order.
__device__ __forceinline__ void transpose_quad(uint32_t (&words)[4]) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = (threadIdx.x & bit) != 0;
#pragma unroll
    for (int low = 0; low < 4; ++low) {
      if ((low & bit) != 0) continue;
      const int high = low | bit;
      const uint32_t received = __shfl_xor_sync(~0U, upper ? words[low] : words[high], bit);
      if (upper)
        words[low] = received;
      else
        words[high] = received;
    }
  }
}

/// Writes 16 rows per warp of a 64 x kWidth accumulator, rounded, in pieces of 16 bytes. `out` points to the
/// row of this lane's quad (16 * warp + lane / 4) in the destination; row_stride in elements. Rows from
/// num_rows on are left alone, rows from num_valid on are written as zeros, counted from the quad's first
/// row.
template <class Element, int kWidth>
__device__ __forceinline__ void store_rows(Element* out, int64_t row_stride,
                                           const float (&accumulator)[kWidth / 2], float factor,
                                           int num_valid, int num_rows) {
  const int member = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int group = 0; group < kWidth / 32; ++group) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int first = 16 * group + 4 * i + 2 * half;
        words[i] = pack<Element>(factor * accumulator[first], factor * accumulator[first + 1]);
      }
      transpose_quad(words);
      if (8 * half >= num_rows) continue;
      const bool valid = 8 * half < num_valid;
      *reinterpret_cast<uint4*>(out + 8 * half * row_stride + 32 * group + 8 * member) =
          valid ? make_uint4(words[0], words[1], words[2], words[3]) : make_uint4(0, 0, 0, 0);
    }
  }
}

}  // namespace scrna::kernels::device
