// Asynchronous matrix products of a warpgroup (PTX wgmma), 64 x N x 16 with N = 64 or 128, bf16 or fp16
// operands and fp32 accumulators. Only the two widths the attention kernels use, spelled out by macros: the
// alternative, CUTLASS, brings 690 thousand lines of headers for these four instructions.
//
// Accumulator of thread t of the warpgroup (warp w, lane l): rows 16 w + l / 4 and + 8, columns 8 i + 2 (l %
// 4) and + 1; d[4 i .. 4 i + 3] = (row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1).
// The A operand of step k in registers is the pairwise rounding of d[8 k .. 8 k + 7] of an earlier product,
// in order.
//
// Operands in shared memory lie in panels of 64 elements (128 bytes) per row with the 128-byte swizzle:
// 16-byte chunk c of row r is at r * 128 + ((c ^ (r % 8)) << 4); panels begin at multiples of 1,024 bytes.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>

#include "kernels/device/mbarrier.h"

namespace scrna::kernels::device {

/// kInner: the product's inner dimension is contiguous (within rows of a panel). kOuter: M or N is.
enum class Major : int { kInner = 0, kOuter = 1 };

/// Descriptor of panels at `pointer`. kOuter operands whose outer size exceeds one panel: distance to the
/// next panel. Addresses inside are in units of 16 bytes: add (bytes >> 4) to move.
__device__ __forceinline__ uint64_t panel_descriptor(const void* pointer, uint32_t next_panel_bytes = 16) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{1024 >> 4} << 32;
  return ((shared_address(pointer) & 0x3FFFF) >> 4) | (uint64_t{next_panel_bytes >> 4} << 16) | kEightRows |
         kSwizzle128;
}

/// Before the first product, and whenever other instructions touched accumulators or A registers.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Closes a group of products.
__device__ __forceinline__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until at most kPending groups are in flight.
template <int kPending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Keeps the compiler from moving accesses of these registers across this point: it does not know that
/// products run on.
template <int kSize>
__device__ __forceinline__ void pin(float (&registers)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int kSize>
__device__ __forceinline__ void pin(uint32_t (&registers)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

#define SCRNA_OUT8(d, i)                                                                          \
  "+f"((d)[(i)]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3]), "+f"((d)[(i) + 4]), \
      "+f"((d)[(i) + 5]), "+f"((d)[(i) + 6]), "+f"((d)[(i) + 7])
#define SCRNA_OUT32(d, i) \
  SCRNA_OUT8(d, i), SCRNA_OUT8(d, (i) + 8), SCRNA_OUT8(d, (i) + 16), SCRNA_OUT8(d, (i) + 24)
#define SCRNA_NAMES_0_31                                                                                   \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27," \
  "%28,%29,%30,%31"
#define SCRNA_NAMES_32_63                                                                                    \
  "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
  "%58,%59,%60,%61,%62,%63"
// The three trailing names are the operands after the accumulators: A (one descriptor or four registers), B,
// and so on.
#define SCRNA_PRODUCT(n, type, names, a, b, accumulate, majors)                            \
  "{\n.reg .pred p;\nsetp.ne.b32 p, " accumulate                                           \
  ", 0;\n"                                                                                 \
  "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" names "}, " a ", " b \
  ", p, 1, 1, " majors ";\n}\n"

/// acc (+)= A B for one step of 16: kN columns; `accumulate` false overwrites. A and B by descriptor, or A in
/// registers (then its inner dimension is the register order).
template <class Element, int kN, Major kMajorA, Major kMajorB>
struct Product;

template <class Element, Major kMajorA, Major kMajorB>
struct Product<Element, 64, kMajorA, kMajorB> {
  static constexpr int kA = static_cast<int>(kMajorA);
  static constexpr int kB = static_cast<int>(kMajorB);
  __device__ __forceinline__ static void shared(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
    if constexpr (std::is_same_v<Element, __nv_bfloat16>)
      asm volatile(SCRNA_PRODUCT("64", "bf16", SCRNA_NAMES_0_31, "%32", "%33", "%34", "%35, %36")
                   : SCRNA_OUT32(d, 0)
                   : "l"(a), "l"(b), "r"(accumulate), "n"(kA), "n"(kB));
    else
      asm volatile(SCRNA_PRODUCT("64", "f16", SCRNA_NAMES_0_31, "%32", "%33", "%34", "%35, %36")
                   : SCRNA_OUT32(d, 0)
                   : "l"(a), "l"(b), "r"(accumulate), "n"(kA), "n"(kB));
  }
  __device__ __forceinline__ static void registers(float (&d)[32], const uint32_t* a, uint64_t b,
                                                   int accumulate) {
    if constexpr (std::is_same_v<Element, __nv_bfloat16>)
      asm volatile(SCRNA_PRODUCT("64", "bf16", SCRNA_NAMES_0_31, "{%32,%33,%34,%35}", "%36", "%37", "%38")
                   : SCRNA_OUT32(d, 0)
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kB));
    else
      asm volatile(SCRNA_PRODUCT("64", "f16", SCRNA_NAMES_0_31, "{%32,%33,%34,%35}", "%36", "%37", "%38")
                   : SCRNA_OUT32(d, 0)
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kB));
  }
};

template <class Element, Major kMajorA, Major kMajorB>
struct Product<Element, 128, kMajorA, kMajorB> {
  static constexpr int kB = static_cast<int>(kMajorB);
  __device__ __forceinline__ static void registers(float (&d)[64], const uint32_t* a, uint64_t b,
                                                   int accumulate) {
    if constexpr (std::is_same_v<Element, __nv_bfloat16>)
      asm volatile(SCRNA_PRODUCT("128", "bf16", SCRNA_NAMES_0_31 "," SCRNA_NAMES_32_63, "{%64,%65,%66,%67}",
                                 "%68", "%69", "%70")
                   : SCRNA_OUT32(d, 0), SCRNA_OUT32(d, 32)
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kB));
    else
      asm volatile(SCRNA_PRODUCT("128", "f16", SCRNA_NAMES_0_31 "," SCRNA_NAMES_32_63, "{%64,%65,%66,%67}",
                                 "%68", "%69", "%70")
                   : SCRNA_OUT32(d, 0), SCRNA_OUT32(d, 32)
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kB));
  }
};

#undef SCRNA_OUT8
#undef SCRNA_OUT32
#undef SCRNA_NAMES_0_31
#undef SCRNA_NAMES_32_63
#undef SCRNA_PRODUCT

}  // namespace scrna::kernels::device
