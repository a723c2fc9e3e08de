// The forward pass of the CPU attention. A block of queries (as columns) meets one block of keys (as rows)
// after the other:
//   S^T = K Q^T         [keys, queries]   keys are broadcast, queries are vector lanes: row maxima and sums
//   of softmax are
//                                         elementwise over lanes, nothing is ever reduced across lanes
//   O  += P V           [queries, K]      P^T is read column-major by broadcasts: it is used as it was made
// Only Q is transposed, once per block of queries.
#pragma once

#include "kernels/attention_cpu_block.h"

namespace scrna::kernels {
namespace {

/// The keys of one block, in cache.
struct KeyBlock {
  float* k;     // [kForwardKeys, row_stride]
  float* v;     // [kForwardKeys, row_stride]
  float* bias;  // [kForwardKeys] everything that is added to the scores of a key
  int count;

  static KeyBlock carve(Arena& arena, Width width) {
    const auto rows = static_cast<size_t>(kForwardKeys) * static_cast<size_t>(width.row_stride);
    return {arena.take(rows), arena.take(rows), arena.take(kForwardKeys), 0};
  }
  void load_from(const HeadTask& task, int64_t begin, Width width) {
    count = static_cast<int>(task.num_keys - begin < kForwardKeys ? task.num_keys - begin : kForwardKeys);
    copy_rows(task.k, begin, count, round_up(count, kTileRows), width, 1.0F, k);
    copy_rows(task.v, begin, count, round_up(count, kTileRows), width, 1.0F, v);
    for (int j = 0; j < count; ++j)
      bias[j] = task.key_bias == nullptr ? task.bias : task.bias + task.key_bias[begin + j];
  }
};

void sigmoid_weights(const KeyBlock& keys, int columns, float* scores) {
  for (int j = 0; j < keys.count; ++j)
    for (int i = 0; i < columns; i += kLanes) {
      float* s = scores + j * kForwardQueries + i;
      store(s, sigmoid(load(s) + keys.bias[j]).p);
    }
}

/// Online softmax (Milakov and Gimelshein, arXiv 1805.02867): running maximum and sum of every query; earlier
/// sums and outputs shrink by exp(old maximum - new maximum).
struct RunningSoftmax {
  float* max;     // [kForwardQueries]
  float* sum;     // [kForwardQueries]
  float* shrink;  // [kForwardQueries] factor for what was summed before the newest block

  static RunningSoftmax carve(Arena& arena) {
    return {arena.take(kForwardQueries), arena.take(kForwardQueries), arena.take(kForwardQueries)};
  }
  void reset() {
    for (int i = 0; i < kForwardQueries; ++i) {
      max[i] = -__builtin_inff();
      sum[i] = 0.0F;
    }
  }
  void add_block(const KeyBlock& keys, int columns, float* scores) {
    for (int i = 0; i < columns; i += kLanes) {
      const Vector old_max = load(max + i);
      Vector new_max = old_max;
      for (int j = 0; j < keys.count; ++j) {
        float* s = scores + j * kForwardQueries + i;
        const Vector x = load(s) + keys.bias[j];
        store(s, x);
        new_max = new_max < x ? x : new_max;
      }
      // Every score so far may be -inf (a key bias that masks): then nothing is subtracted and every weight
      // is 0.
      const Vector subtracted = new_max == -__builtin_inff() ? Vector{} : new_max;
      const Vector factor = exp_or_zero(old_max - subtracted);
      Vector total = load(sum + i) * factor;
      for (int j = 0; j < keys.count; ++j) {
        float* s = scores + j * kForwardQueries + i;
        const Vector p = exp_or_zero(load(s) - subtracted);
        store(s, p);
        total += p;
      }
      store(max + i, new_max);
      store(sum + i, total);
      store(shrink + i, factor);
    }
  }
  void shrink_rows(float* out, int count, Width width) const {
    for (int i = 0; i < count; ++i)
      for (int d = 0; d < width.padded; d += kLanes) {
        float* o = out + i * width.row_stride + d;
        store(o, load(o) * shrink[i]);
      }
  }
};

size_t forward_scratch_floats(int head_width) {
  const Width width = width_of(head_width);
  const auto stride = static_cast<size_t>(width.row_stride);
  return 2 * kForwardKeys * stride + kForwardKeys + kForwardQueries * 2 * stride +
         packed_floats(kForwardQueries, width) + kForwardKeys * kForwardQueries + 3 * kForwardQueries + 256;
}

void forward(const HeadTask& task, Range queries, float* scratch) {
  const Width width = width_of(task.head_width);
  const auto stride = static_cast<size_t>(width.row_stride);
  Arena arena{scratch};
  KeyBlock keys = KeyBlock::carve(arena, width);
  float* q = arena.take(kForwardQueries * stride);
  float* q_t = arena.take(packed_floats(kForwardQueries, width));
  float* scores = arena.take(size_t{kForwardKeys} * kForwardQueries);
  float* out = arena.take(kForwardQueries * stride);
  RunningSoftmax softmax = RunningSoftmax::carve(arena);

  const int count = static_cast<int>(queries.end - queries.begin);
  const int columns = round_up(count, kLanes);
  copy_rows(task.q, queries.begin, count, columns, width, task.scale, q);
  pack_transposed(q, columns, width, q_t);
  zero(out, kForwardQueries * stride);
  softmax.reset();
  for (int64_t begin = 0; begin < task.num_keys; begin += kForwardKeys) {
    keys.load_from(task, begin, width);
    multiply<Left::kRowMajor, false>(round_up(keys.count, kTileRows), columns, width.used, keys.k,
                                     width.row_stride, packed(q_t, width), scores, kForwardQueries);
    if (task.softmax) {
      softmax.add_block(keys, columns, scores);
      if (begin > 0) softmax.shrink_rows(out, count, width);
    } else {
      sigmoid_weights(keys, columns, scores);
    }
    multiply<Left::kColumnMajor, true>(round_up(count, kTileRows), width.padded, keys.count, scores,
                                       kForwardQueries, row_major(keys.v, width.row_stride), out,
                                       width.row_stride);
  }
  if (!task.softmax) return write_rows(out, count, width, 1.0F, task.o, queries.begin);
  for (int i = 0; i < count; ++i) {
    const float sum = softmax.sum[i];
    write_rows(out + i * width.row_stride, 1, width, sum == 0.0F ? 0.0F : 1.0F / sum, task.o,
               queries.begin + i);
    if (task.new_lse != nullptr) task.new_lse[queries.begin + i] = softmax.max[i] + __builtin_logf(sum);
  }
}

}  // namespace
}  // namespace scrna::kernels
