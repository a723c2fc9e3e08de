// What the forward and the backward pass of the CPU attention share: the blocks of a head that lie in cache.
// Operands are copied there from the caller's strided views, padded with zero rows and columns, so that the
// inner loops have no edges; zero rows of K, V, Q and dO make padding contribute exactly nothing. Rows have
// an odd number of cache lines, because token strides of 4 KiB would put a whole tile into one cache set;
// operands that a product needs transposed are packed in panels instead (attention_cpu_vector.h: Right).
//
// This file is compiled once per instruction set (attention_cpu_{baseline,avx2,avx512}.cpp): see the rule at
// the top of attention_cpu_vector.h.
#pragma once

#include "kernels/attention_cpu_task.h"
#include "kernels/attention_cpu_vector.h"

namespace scrna::kernels {
namespace {

/// Head width in the cache blocks.
struct Width {
  int used;        // K
  int padded;      // columns of products: a multiple of kLanes
  int row_stride;  // odd number of 64-byte lines
};
Width width_of(int head_width) {
  const int padded = round_up(head_width, kLanes);
  const int lines = round_up(padded, 16) / 16;
  return {head_width, padded, (lines | 1) * 16};
}

/// Carves 64-byte aligned arrays out of the thread's scratch.
struct Arena {
  float* next;
  float* take(size_t floats) {
    float* begin = next;
    next += (floats + 15) / 16 * 16;
    return begin;
  }
};

template <class Element>
void copy_rows_of(const Element* row, int64_t stride, int count, Width width, float factor, float* to) {
  for (int i = 0; i < count; ++i, row += stride, to += width.row_stride) {
    int d = 0;
    for (; d + kLanes <= width.used; d += kLanes) store(to + d, factor * load(row + d));
    for (; d < width.used; ++d) to[d] = factor * widened(row[d]);
    for (; d < width.padded; ++d) to[d] = 0.0F;
  }
}

/// factor times rows [begin, begin + count) of `from`, then zero rows up to padded_count; zero columns up to
/// the padded width.
void copy_rows(HeadRows from, int64_t begin, int count, int padded_count, Width width, float factor,
               float* to) {
  if (from.type == ElementType::kBFloat16)
    copy_rows_of(static_cast<const uint16_t*>(from.data) + begin * from.stride, from.stride, count, width,
                 factor, to);
  else
    copy_rows_of(static_cast<const float*>(from.data) + begin * from.stride, from.stride, count, width,
                 factor, to);
  for (int i = count; i < padded_count; ++i)
    for (int d = 0; d < width.padded; d += kLanes) store(to + i * width.row_stride + d, Vector{});
}

/// Floats of `rows` rows packed by pack_transposed.
size_t packed_floats(int rows, Width width) {
  return static_cast<size_t>(round_up(rows, kPanel)) * static_cast<size_t>(width.used);
}

/// The rows of a cache block as columns, then zero columns up to a whole panel: the right
/// operand of a product over the head width.
void pack_transposed(const float* from, int rows, Width width, float* to) {
  for (int first = 0; first < rows; first += kPanel, to += width.used * kPanel)
    for (int d0 = 0; d0 < width.used; d0 += 16) {
      const int d1 = d0 + 16 < width.used ? d0 + 16 : width.used;
      for (int i = 0; i < kPanel; ++i) {
        const float* row = from + (first + i) * width.row_stride;
        for (int d = d0; d < d1; ++d) to[d * kPanel + i] = first + i < rows ? row[d] : 0.0F;
      }
    }
}
Right packed(const float* data, Width width) { return {data, kPanel, ptrdiff_t{width.used} * kPanel}; }

template <class Element>
void write_rows_of(const float* from, int count, Width width, float factor, Element* row, int64_t stride) {
  for (int i = 0; i < count; ++i, row += stride, from += width.row_stride)
    for (int d = 0; d < width.used; ++d) narrow(factor * from[d], row + d);
}

void write_rows(const float* from, int count, Width width, float factor, HeadRows to, int64_t begin) {
  if (to.type == ElementType::kBFloat16)
    write_rows_of(from, count, width, factor, static_cast<uint16_t*>(to.data) + begin * to.stride, to.stride);
  else
    write_rows_of(from, count, width, factor, static_cast<float*>(to.data) + begin * to.stride, to.stride);
}

void zero(float* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = 0.0F;
}

}  // namespace
}  // namespace scrna::kernels
