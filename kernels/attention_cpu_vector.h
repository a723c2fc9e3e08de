// Vector arithmetic of the CPU attention, in GCC's vector types: exp, sigmoid, and the one matrix-product
// tile that all products of forward and backward are made of. The width follows the instruction set the
// including file is compiled for. Everything has internal linkage and nothing of the standard library is
// used: a function that the linker merged with another file's could carry AVX-512 code into the path of a
// machine without it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace scrna::kernels {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kTileRows = 8;  // 8 x 2 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kTileRows = 4;  // 4 x 2 accumulators of 16 registers
#else
constexpr int kLanes = 4;
constexpr int kTileRows = 4;
#endif

using Vector = float __attribute__((vector_size(kLanes * 4)));
using IntVector = int32_t __attribute__((vector_size(kLanes * 4)));
using Unaligned = float __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

#define SCRNA_INLINE inline __attribute__((always_inline))

SCRNA_INLINE Vector load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
SCRNA_INLINE void store(float* p, Vector x) { *reinterpret_cast<Unaligned*>(p) = x; }
SCRNA_INLINE Vector broadcast(float x) { return x - Vector{}; }

/// bf16 in memory is the upper half of an fp32: widening is exact, narrowing rounds to nearest, ties to even,
/// and makes every NaN the same.
using Halves = uint16_t __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));
SCRNA_INLINE Vector load(const uint16_t* p) {
  return reinterpret_cast<Vector>(__builtin_convertvector(*reinterpret_cast<const Halves*>(p), IntVector)
                                  << 16);
}
SCRNA_INLINE float widened(uint16_t x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16); }
SCRNA_INLINE float widened(float x) { return x; }
SCRNA_INLINE void narrow(float x, uint16_t* to) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
  *to = static_cast<uint16_t>(x != x ? 0x7FC0U : rounded);
}
SCRNA_INLINE void narrow(float x, float* to) { *to = x; }

/// Both keep a NaN of x.
SCRNA_INLINE Vector at_least(Vector x, Vector low) { return x < low ? low : x; }
SCRNA_INLINE Vector at_most(Vector x, Vector high) { return x > high ? high : x; }

/// The lanes of x, added pairwise.
SCRNA_INLINE float sum_of_lanes(Vector x) {
  float lanes[kLanes];
  store(lanes, x);
#pragma GCC unroll 16
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

/// exp(x) stays a normal number, and its reciprocal too, for |x| up to this.
constexpr float kExpLimit = 87.3F;

/// exp(x) for |x| <= kExpLimit, NaN for NaN; error below 1 ulp (test: KernelMath). x = n ln 2 + r with |r| <=
/// ln 2 / 2, exp(r) = 1 + r + r^2 g(r), g the minimax polynomial of degree 4 (relative error of
/// exp(r): 3.1e-9), times 2^n.
SCRNA_INLINE Vector exp_in_range(Vector x) {
  const Vector magic =
      broadcast(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const Vector shifted = x * 1.44269504F + magic;
  const Vector n = shifted - magic;
  const Vector r = (x - n * 0.693359375F) + n * 2.12194440e-4F;  // ln 2 in two parts, the first exact times n
  Vector g = r * 0x1.6a2434p-10F + 0x1.1239e2p-7F;
  g = g * r + 0x1.5558f2p-5F;
  g = g * r + 0x1.555492p-3F;
  g = g * r + 0x1.fffffcp-2F;
  const Vector exp_r = (g * (r * r) + r) + 1.0F;
  const IntVector exponent = (reinterpret_cast<IntVector>(shifted) - (0x4B400000 - 127)) << 23;
  return exp_r * reinterpret_cast<Vector>(exponent);
}

/// exp(x) for x <= 0 (and slightly above): 0 below -kExpLimit, NaN for NaN.
SCRNA_INLINE Vector exp_or_zero(Vector x) {
  const Vector y = exp_in_range(at_least(x, broadcast(-kExpLimit)));
  return x < -kExpLimit ? Vector{} : y;
}

struct Sigmoid {
  Vector p;        // 1 / (1 + exp(-x)); exactly 0 below -kExpLimit
  Vector exp_neg;  // exp(-x): 1 - p = exp_neg * p without cancellation
};
SCRNA_INLINE Sigmoid sigmoid(Vector x) {
  const Vector limit = broadcast(kExpLimit);
  const Vector e = exp_in_range(at_most(at_least(-x, -limit), limit));
  const Vector p = 1.0F / (1.0F + e);
  return {x < -limit ? Vector{} : p, e};
}

/// How the left operand of a product lies in memory: element (row, depth) at row * kRowStride + depth *
/// kDepthStride, one of which is 1 and the other a leading dimension.
enum class Left { kRowMajor, kColumnMajor };

/// C[kTileRows, kVectors * kLanes] = (kAdd ? C : 0) + A B, depth in ascending order with one fused
/// multiply-add (where the machine has it) for each term: the result does not depend on how a product is cut
/// into tiles or depth blocks.
template <Left kLeft, bool kAdd, int kVectors>
SCRNA_INLINE void multiply_tile(const float* a, ptrdiff_t lda, const float* b, ptrdiff_t ldb, int depth,
                                float* c, ptrdiff_t ldc) {
  Vector sum[kTileRows][kVectors];
#pragma GCC unroll 16
  for (int m = 0; m < kTileRows; ++m)
#pragma GCC unroll 16
    for (int n = 0; n < kVectors; ++n) sum[m][n] = kAdd ? load(c + m * ldc + n * kLanes) : Vector{};
  for (int d = 0; d < depth; ++d) {
    Vector row[kVectors];
#pragma GCC unroll 16
    for (int n = 0; n < kVectors; ++n) row[n] = load(b + n * kLanes);
#pragma GCC unroll 16
    for (int m = 0; m < kTileRows; ++m) {
      const float left = kLeft == Left::kRowMajor ? a[m * lda] : a[m];
#pragma GCC unroll 16
      for (int n = 0; n < kVectors; ++n) sum[m][n] += left * row[n];
    }
    a += kLeft == Left::kRowMajor ? 1 : lda;
    b += ldb;
  }
#pragma GCC unroll 16
  for (int m = 0; m < kTileRows; ++m)
#pragma GCC unroll 16
    for (int n = 0; n < kVectors; ++n) store(c + m * ldc + n * kLanes, sum[m][n]);
}

/// Columns of a tile.
constexpr int kPanel = 2 * kLanes;

/// The right operand of a product, in panels of kPanel columns: element (depth, column) at column / kPanel *
/// panel + depth * stride + column % kPanel. Row-major: panel = kPanel. Packed: stride = kPanel, panel =
/// depth * kPanel; a tile then reads one line of memory after the other, which no stride can make collide in
/// the cache.
struct Right {
  const float* data;
  ptrdiff_t stride;
  ptrdiff_t panel;
};
SCRNA_INLINE Right row_major(const float* data, ptrdiff_t stride) { return {data, stride, kPanel}; }

/// C[rows, columns] = (kAdd ? C : 0) + A B. rows: a multiple of kTileRows; columns: a multiple of kLanes.
template <Left kLeft, bool kAdd>
void multiply(int rows, int columns, int depth, const float* a, ptrdiff_t lda, Right b, float* c,
              ptrdiff_t ldc) {
  const ptrdiff_t row_step = kLeft == Left::kRowMajor ? lda : 1;
  const float* panel = b.data;
  int n = 0;
  for (; n + kPanel <= columns; n += kPanel, panel += b.panel)
    for (int m = 0; m < rows; m += kTileRows)
      multiply_tile<kLeft, kAdd, 2>(a + m * row_step, lda, panel, b.stride, depth, c + m * ldc + n, ldc);
  if (n < columns)
    for (int m = 0; m < rows; m += kTileRows)
      multiply_tile<kLeft, kAdd, 1>(a + m * row_step, lda, panel, b.stride, depth, c + m * ldc + n, ldc);
}

constexpr int round_up(int x, int step) { return (x + step - 1) / step * step; }

}  // namespace
}  // namespace scrna::kernels
