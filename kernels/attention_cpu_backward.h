// The backward pass of the CPU attention: a range of keys stays in cache, with the sums of its dK and dV, and
// meets one block of queries after the other:
//   S = Q K^T,  dP = dO V^T             [queries, keys]   keys are vector lanes
//   dV += P^T dO,  dK += dS^T Q         [keys, K]         P and dS are read column-major, as they were made
//   dQ += dS K                          [queries, K]      in the caller's memory from one range of keys to
//   the next
// Only K and V are transposed, once per range. Five products, whatever the number of ranges: the range that
// comes before in the same head must be done with a block of queries before this one adds to its dQ (and bias
// gradient), so these sums run over the keys in ascending order whoever computes them. Ranges follow each
// other through the blocks like a pipeline.
#pragma once

#include "kernels/attention_cpu_block.h"

namespace scrna::kernels {
namespace {

/// Row stride of scores: an odd number of 64-byte lines.
constexpr int kScoreStride = kKeyBlock + 16;

/// The keys of one item, in cache, and the sums of their gradients.
struct KeyRange {
  float* k;     // [keys, row_stride]
  float* k_t;   // packed
  float* v_t;   // packed
  float* bias;  // [keys] everything that is added to the scores of a key
  float* d_k;   // [keys, row_stride]
  float* d_v;   // [keys, row_stride]

  static size_t floats(int keys, Width width) {
    const auto rows = static_cast<size_t>(round_up(keys, kPanel));
    return 3 * rows * static_cast<size_t>(width.row_stride) + 2 * packed_floats(keys, width) + rows;
  }
  static KeyRange carve(Arena& arena, int keys, Width width) {
    const auto padded = static_cast<size_t>(round_up(keys, kPanel));
    const size_t rows = padded * static_cast<size_t>(width.row_stride);
    return {arena.take(rows),
            arena.take(packed_floats(keys, width)),
            arena.take(packed_floats(keys, width)),
            arena.take(padded),
            arena.take(rows),
            arena.take(rows)};
  }
  void load_from(const HeadTask& task, Range range, Width width) const {
    const int count = static_cast<int>(range.end - range.begin);
    const int padded = round_up(count, kPanel);
    const size_t rows = static_cast<size_t>(padded) * static_cast<size_t>(width.row_stride);
    copy_rows(task.v, range.begin, count, padded, width, 1.0F, k);
    pack_transposed(k, count, width, v_t);
    copy_rows(task.k, range.begin, count, padded, width, 1.0F, k);
    pack_transposed(k, count, width, k_t);
    for (int j = 0; j < padded; ++j) bias[j] = -__builtin_inff();  // keys of padding have no weight
    for (int j = 0; j < count; ++j)
      bias[j] = task.key_bias == nullptr ? task.bias : task.bias + task.key_bias[range.begin + j];
    zero(d_k, rows);
    zero(d_v, rows);
  }
};

/// The queries of one block, in cache.
struct QueryBlock {
  float* q;    // [kQueryBlock, row_stride], times scale: the scores are those of the forward pass to the bit
  float* d_o;  // [kQueryBlock, row_stride]
  float* d_q;  // [kQueryBlock, row_stride], without scale
  float* lse;  // [kQueryBlock] softmax
  float* delta;  // [kQueryBlock] softmax: sum of dO O over the row
  int count;

  static size_t floats(Width width) { return kQueryBlock * (3 * static_cast<size_t>(width.row_stride) + 2); }
  static QueryBlock carve(Arena& arena, Width width) {
    const size_t rows = static_cast<size_t>(kQueryBlock) * static_cast<size_t>(width.row_stride);
    return {arena.take(rows),        arena.take(rows),        arena.take(rows),
            arena.take(kQueryBlock), arena.take(kQueryBlock), 0};
  }
  void load_from(const HeadTask& task, int64_t begin, Width width) {
    count = static_cast<int>(task.num_queries - begin < kQueryBlock ? task.num_queries - begin : kQueryBlock);
    copy_rows(task.q, begin, count, round_up(count, kTileRows), width, task.scale, q);
    copy_rows(task.d_o, begin, count, round_up(count, kTileRows), width, 1.0F, d_o);
    if (!task.softmax) return;
    copy_rows(task.o, begin, count, count, width, 1.0F, d_q);  // d_q has no contents yet
    for (int i = 0; i < count; ++i) {
      Vector products{};
      for (int d = 0; d < width.padded; d += kLanes)
        products += load(d_o + i * width.row_stride + d) * load(d_q + i * width.row_stride + d);
      delta[i] = sum_of_lanes(products);
      lse[i] = task.lse[begin + i];
      if (lse[i] == -__builtin_inff()) lse[i] = 0.0F;  // every score was -inf: every weight is 0
    }
  }
};

/// Of one block of queries and one block of keys: scores: S -> P; d_scores: dP -> dS. Returns the sum of dS.
double sigmoid_gradients(const float* bias, int num_queries, int num_keys, float* scores, float* d_scores) {
  Vector total{};
  for (int i = 0; i < num_queries; ++i)
    for (int j = 0; j < num_keys; j += kLanes) {
      float* s = scores + i * kScoreStride + j;
      float* d_s = d_scores + i * kScoreStride + j;
      const Sigmoid weight = sigmoid(load(s) + load(bias + j));
      const Vector gradient = weight.p * (weight.exp_neg * weight.p) * load(d_s);
      store(s, weight.p);
      store(d_s, gradient);
      total += gradient;
    }
  double sum = 0.0;
  for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(total[lane]);
  return sum;
}

void softmax_gradients(const float* bias, const QueryBlock& queries, int num_keys, float* scores,
                       float* d_scores) {
  for (int i = 0; i < queries.count; ++i)
    for (int j = 0; j < num_keys; j += kLanes) {
      float* s = scores + i * kScoreStride + j;
      float* d_s = d_scores + i * kScoreStride + j;
      const Vector p = exp_or_zero(load(s) + load(bias + j) - queries.lse[i]);
      store(s, p);
      store(d_s, p * (load(d_s) - queries.delta[i]));
    }
}

size_t backward_scratch_floats(int head_width, int num_keys) {
  const Width width = width_of(head_width);
  return KeyRange::floats(num_keys, width) + QueryBlock::floats(width) +
         2 * size_t{kQueryBlock} * kScoreStride + 256;
}

void backward(const HeadTask& task, Range key_range, float* scratch) {
  const Width width = width_of(task.head_width);
  const int row_stride = width.row_stride;
  const int num_keys = static_cast<int>(key_range.end - key_range.begin);
  Arena arena{scratch};
  const KeyRange keys = KeyRange::carve(arena, num_keys, width);
  QueryBlock queries = QueryBlock::carve(arena, width);
  float* scores = arena.take(size_t{kQueryBlock} * kScoreStride);
  float* d_scores = arena.take(size_t{kQueryBlock} * kScoreStride);
  keys.load_from(task, key_range, width);
  const bool first_keys = key_range.begin == 0;
  const bool last_keys = key_range.end == task.num_keys;

  for (int64_t query = 0; query < task.num_queries; query += kQueryBlock) {
    const int64_t block = query / kQueryBlock;
    queries.load_from(task, query, width);
    const int query_rows = round_up(queries.count, kTileRows);
    double d_bias = 0.0;
    for (int key = 0; key < num_keys; key += kKeyBlock) {
      const int count = num_keys - key < kKeyBlock ? num_keys - key : kKeyBlock;
      const int columns = round_up(count, kLanes);
      const int key_rows = round_up(count, kTileRows);
      const ptrdiff_t row = ptrdiff_t{key} * row_stride;
      multiply<Left::kRowMajor, false>(query_rows, columns, width.used, queries.q, row_stride,
                                       packed(keys.k_t + key * width.used, width), scores, kScoreStride);
      multiply<Left::kRowMajor, false>(query_rows, columns, width.used, queries.d_o, row_stride,
                                       packed(keys.v_t + key * width.used, width), d_scores, kScoreStride);
      double sum = 0.0;
      if (task.softmax)
        softmax_gradients(keys.bias + key, queries, columns, scores, d_scores);
      else
        sum = sigmoid_gradients(keys.bias + key, queries.count, columns, scores, d_scores);
      multiply<Left::kColumnMajor, true>(key_rows, width.padded, queries.count, scores, kScoreStride,
                                         row_major(queries.d_o, row_stride), keys.d_v + row, row_stride);
      multiply<Left::kColumnMajor, true>(key_rows, width.padded, queries.count, d_scores, kScoreStride,
                                         row_major(queries.q, row_stride), keys.d_k + row, row_stride);
      if (key == 0) {
        if (first_keys) {
          zero(queries.d_q, static_cast<size_t>(kQueryBlock) * static_cast<size_t>(row_stride));
        } else {
          wait_for_block(*task.done_before, block);
          copy_rows(task.d_q_sum, query, queries.count, query_rows, width, 1.0F, queries.d_q);
          if (task.d_bias != nullptr) d_bias = task.d_bias[block];
        }
      }
      d_bias += sum;
      multiply<Left::kRowMajor, true>(query_rows, width.padded, count, d_scores, kScoreStride,
                                      row_major(keys.k + row, row_stride), queries.d_q, row_stride);
    }
    if (last_keys)
      write_rows(queries.d_q, queries.count, width, task.scale, task.d_q, query);
    else
      write_rows(queries.d_q, queries.count, width, 1.0F, task.d_q_sum, query);
    if (task.d_bias != nullptr) task.d_bias[block] = d_bias;
    if (!last_keys) block_is_done(*task.done, block);
  }
  write_rows(keys.d_k, num_keys, width, 1.0F, task.d_k, key_range.begin);
  write_rows(keys.d_v, num_keys, width, 1.0F, task.d_v, key_range.begin);
}

}  // namespace
}  // namespace scrna::kernels
