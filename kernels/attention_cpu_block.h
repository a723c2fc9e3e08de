// The vector code of the CPU attention. A block of queries (as columns) meets blocks of keys (as rows), so
// that
//   S^T = K Q^T         [keys, queries]   keys are broadcast, queries are vector lanes: row maxima, sums and
//   statistics
//                                         of softmax are elementwise over lanes, nothing is ever reduced
//                                         across lanes
//   O  += P V           [queries, K]      P^T is read column-major by broadcasts: it is used as it was made
//   dV += P^T dO,  dK += dS^T Q           [keys, K]
//   dQ += dS K          [queries, K]
// Only Q and dO are transposed, once per block of queries. Operands are first copied into cache blocks padded
// with zero rows and columns, so the inner loops have no edges; rows have an odd number of cache lines,
// because token strides of 4 KiB would put a whole tile into one cache set. Zero rows of K, V, Q and dO make
// padding contribute exactly nothing.
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

/// Rows [begin, begin + count) of `from`, then zero rows up to padded_count; zero columns up to the padded
/// width.
void copy_rows(HeadRows from, int64_t begin, int count, int padded_count, Width width, float* to) {
  for (int i = 0; i < padded_count; ++i, to += width.row_stride) {
    const float* row = from.data + (begin + i) * from.stride;
    int d = 0;
    if (i < count) {
      for (; d + kLanes <= width.used; d += kLanes) store(to + d, load(row + d));
      for (; d < width.used; ++d) to[d] = row[d];
    }
    for (; d < width.padded; ++d) to[d] = 0.0F;
  }
}

/// to[d * kQueryBlock + i] = factor * from[i][d] for the rows of a cache block.
void transpose(const float* from, int rows, Width width, float factor, float* to) {
  for (int d0 = 0; d0 < width.used; d0 += 16) {
    const int d1 = d0 + 16 < width.used ? d0 + 16 : width.used;
    for (int i = 0; i < rows; ++i)
      for (int d = d0; d < d1; ++d) to[d * kQueryBlock + i] = factor * from[i * width.row_stride + d];
  }
}

void write_rows(const float* from, int count, Width width, float factor, HeadRows to, int64_t begin) {
  for (int i = 0; i < count; ++i) {
    float* row = to.data + (begin + i) * to.stride;
    for (int d = 0; d < width.used; ++d) row[d] = factor * from[i * width.row_stride + d];
  }
}

void zero(float* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = 0.0F;
}

/// The keys of one block, in cache.
struct KeyBlock {
  float* k;     // [kKeyBlock, row_stride]
  float* v;     // [kKeyBlock, row_stride]
  float* bias;  // [kKeyBlock] everything that is added to the scores of a key
  int count;

  static KeyBlock carve(Arena& arena, Width width) {
    const auto rows = static_cast<size_t>(kKeyBlock) * static_cast<size_t>(width.row_stride);
    return {arena.take(rows), arena.take(rows), arena.take(kKeyBlock), 0};
  }
  void load_from(const HeadTask& task, int64_t begin, int64_t end, Width width) {
    count = static_cast<int>(end - begin < kKeyBlock ? end - begin : kKeyBlock);
    copy_rows(task.k, begin, count, round_up(count, kTileRows), width, k);
    copy_rows(task.v, begin, count, round_up(count, kTileRows), width, v);
    for (int j = 0; j < count; ++j)
      bias[j] = task.key_bias == nullptr ? task.bias : task.bias + task.key_bias[begin + j];
  }
};

/// S^T of a block of queries (columns of q_t) and a block of keys, without bias.
void score(const KeyBlock& keys, const float* q_t, int columns, Width width, float* scores) {
  multiply<Left::kRowMajor, false>(round_up(keys.count, kTileRows), columns, width.used, keys.k,
                                   width.row_stride, q_t, kQueryBlock, scores, kQueryBlock);
}

// ----------------------------------------------------------------------------------------------------------
// forward

void sigmoid_weights(const KeyBlock& keys, int columns, float* scores) {
  for (int j = 0; j < keys.count; ++j)
    for (int i = 0; i < columns; i += kLanes) {
      float* s = scores + j * kQueryBlock + i;
      store(s, sigmoid(load(s) + keys.bias[j]).p);
    }
}

/// Online softmax (Milakov and Gimelshein, arXiv 1805.02867): running maximum and sum of every query; earlier
/// sums and outputs shrink by exp(old maximum - new maximum).
struct RunningSoftmax {
  float* max;     // [kQueryBlock]
  float* sum;     // [kQueryBlock]
  float* shrink;  // [kQueryBlock] factor for what was summed before the newest block

  static RunningSoftmax carve(Arena& arena) {
    return {arena.take(kQueryBlock), arena.take(kQueryBlock), arena.take(kQueryBlock)};
  }
  void reset() {
    for (int i = 0; i < kQueryBlock; ++i) {
      max[i] = -__builtin_inff();
      sum[i] = 0.0F;
    }
  }
  void add_block(const KeyBlock& keys, int columns, float* scores) {
    for (int i = 0; i < columns; i += kLanes) {
      const Vector old_max = load(max + i);
      Vector new_max = old_max;
      for (int j = 0; j < keys.count; ++j) {
        float* s = scores + j * kQueryBlock + i;
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
        float* s = scores + j * kQueryBlock + i;
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
  return 2 * kKeyBlock * stride + kKeyBlock + kQueryBlock * (2 * stride + static_cast<size_t>(width.used)) +
         kKeyBlock * kQueryBlock + 3 * kQueryBlock + 256;
}

void forward(const HeadTask& task, Range queries, float* scratch) {
  const Width width = width_of(task.head_width);
  const auto stride = static_cast<size_t>(width.row_stride);
  Arena arena{scratch};
  KeyBlock keys = KeyBlock::carve(arena, width);
  float* q = arena.take(kQueryBlock * stride);
  float* q_t = arena.take(kQueryBlock * static_cast<size_t>(width.used));
  float* scores = arena.take(size_t{kKeyBlock} * kQueryBlock);
  float* out = arena.take(kQueryBlock * stride);
  RunningSoftmax softmax = RunningSoftmax::carve(arena);

  const int count = static_cast<int>(queries.end - queries.begin);
  const int columns = round_up(count, kLanes);
  copy_rows(task.q, queries.begin, count, columns, width, q);
  transpose(q, columns, width, task.scale, q_t);
  zero(out, kQueryBlock * stride);
  softmax.reset();
  for (int64_t begin = 0; begin < task.num_keys; begin += kKeyBlock) {
    keys.load_from(task, begin, task.num_keys, width);
    score(keys, q_t, columns, width, scores);
    if (task.softmax) {
      softmax.add_block(keys, columns, scores);
      if (begin > 0) softmax.shrink_rows(out, count, width);
    } else {
      sigmoid_weights(keys, columns, scores);
    }
    multiply<Left::kColumnMajor, true>(round_up(count, kTileRows), width.padded, keys.count, scores,
                                       kQueryBlock, keys.v, width.row_stride, out, width.row_stride);
  }
  if (!task.softmax) return write_rows(out, count, width, 1.0F, task.o, queries.begin);
  for (int i = 0; i < count; ++i) {
    const float sum = softmax.sum[i];
    write_rows(out + i * width.row_stride, 1, width, sum == 0.0F ? 0.0F : 1.0F / sum, task.o,
               queries.begin + i);
    if (task.new_lse != nullptr) task.new_lse[queries.begin + i] = softmax.max[i] + __builtin_logf(sum);
  }
}

// ---------------------------------------------------------------------------------------------------------
// backward

/// The queries of one block, in cache: rows and, as the right operands of scores, columns.
struct QueryBlock {
  float* q;      // [kQueryBlock, row_stride]
  float* q_t;    // [K, kQueryBlock], times scale
  float* d_o;    // [kQueryBlock, row_stride]
  float* d_o_t;  // [K, kQueryBlock]
  float* lse;    // [kQueryBlock] softmax
  float* delta;  // [kQueryBlock] softmax: sum of dO O over the row
  int count;
  int columns;

  static QueryBlock carve(Arena& arena, Width width) {
    const size_t rows = static_cast<size_t>(kQueryBlock) * static_cast<size_t>(width.row_stride);
    const size_t columns = static_cast<size_t>(kQueryBlock) * static_cast<size_t>(width.used);
    return {arena.take(rows),
            arena.take(columns),
            arena.take(rows),
            arena.take(columns),
            arena.take(kQueryBlock),
            arena.take(kQueryBlock),
            0,
            0};
  }
  void load_from(const HeadTask& task, int64_t begin, int64_t end, Width width) {
    count = static_cast<int>(end - begin < kQueryBlock ? end - begin : kQueryBlock);
    columns = round_up(count, kLanes);
    copy_rows(task.q, begin, count, columns, width, q);
    copy_rows(task.d_o, begin, count, columns, width, d_o);
    transpose(q, columns, width, task.scale, q_t);
    transpose(d_o, columns, width, 1.0F, d_o_t);
    if (!task.softmax) return;
    for (int i = 0; i < columns; ++i) {
      float sum = 0.0F;
      const float* o = task.o.data + (begin + i) * task.o.stride;
      for (int d = 0; i < count && d < width.used; ++d) sum += d_o[i * width.row_stride + d] * o[d];
      delta[i] = sum;
      lse[i] = i < count ? task.lse[begin + i] : 0.0F;
      if (lse[i] == -__builtin_inff()) lse[i] = 0.0F;  // every score was -inf: every weight is 0
    }
  }
};

/// scores: S^T -> P^T; d_scores: dP^T -> dS^T. Returns the sum of dS.
double sigmoid_gradients(const KeyBlock& keys, int columns, float* scores, float* d_scores) {
  Vector total{};
  for (int j = 0; j < keys.count; ++j)
    for (int i = 0; i < columns; i += kLanes) {
      float* s = scores + j * kQueryBlock + i;
      float* d_s = d_scores + j * kQueryBlock + i;
      const Sigmoid weight = sigmoid(load(s) + keys.bias[j]);
      const Vector gradient = weight.p * (weight.exp_neg * weight.p) * load(d_s);
      store(s, weight.p);
      store(d_s, gradient);
      total += gradient;
    }
  double sum = 0.0;
  for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(total[lane]);
  return sum;
}

void softmax_gradients(const KeyBlock& keys, const QueryBlock& queries, float* scores, float* d_scores) {
  for (int j = 0; j < keys.count; ++j)
    for (int i = 0; i < queries.columns; i += kLanes) {
      float* s = scores + j * kQueryBlock + i;
      float* d_s = d_scores + j * kQueryBlock + i;
      const Vector p = exp_or_zero(load(s) + keys.bias[j] - load(queries.lse + i));
      store(s, p);
      store(d_s, p * (load(d_s) - load(queries.delta + i)));
    }
}

size_t backward_scratch_floats(int head_width, int64_t num_keys) {
  const Width width = width_of(head_width);
  const auto stride = static_cast<size_t>(width.row_stride);
  const auto keys = static_cast<size_t>(num_keys + kTileRows);
  return 2 * kKeyBlock * stride + kKeyBlock +
         kQueryBlock * (3 * stride + 2 * static_cast<size_t>(width.used) + 2) + 2 * kKeyBlock * kQueryBlock +
         2 * keys * stride + 512;
}

void backward(const HeadTask& task, Range query_range, Range key_range, bool want_query, bool want_key,
              float* scratch) {
  const Width width = width_of(task.head_width);
  const int row_stride = width.row_stride;
  const auto stride = static_cast<size_t>(row_stride);
  Arena arena{scratch};
  KeyBlock keys = KeyBlock::carve(arena, width);
  QueryBlock queries = QueryBlock::carve(arena, width);
  float* scores = arena.take(size_t{kKeyBlock} * kQueryBlock);
  float* d_scores = arena.take(size_t{kKeyBlock} * kQueryBlock);
  float* d_q = arena.take(kQueryBlock * stride);
  const int64_t num_keys = key_range.end - key_range.begin;
  const size_t d_key_floats = want_key ? static_cast<size_t>(num_keys + kTileRows) * stride : 0;
  float* d_k = arena.take(d_key_floats);
  float* d_v = arena.take(d_key_floats);
  zero(d_k, d_key_floats);
  zero(d_v, d_key_floats);

  for (int64_t query = query_range.begin; query < query_range.end; query += kQueryBlock) {
    queries.load_from(task, query, query_range.end, width);
    if (want_query) zero(d_q, kQueryBlock * stride);
    double d_bias = 0.0;
    for (int64_t key = key_range.begin; key < key_range.end; key += kKeyBlock) {
      keys.load_from(task, key, key_range.end, width);
      const int key_rows = round_up(keys.count, kTileRows);
      score(keys, queries.q_t, queries.columns, width, scores);
      multiply<Left::kRowMajor, false>(key_rows, queries.columns, width.used, keys.v, row_stride,
                                       queries.d_o_t, kQueryBlock, d_scores, kQueryBlock);
      if (task.softmax)
        softmax_gradients(keys, queries, scores, d_scores);
      else
        d_bias += sigmoid_gradients(keys, queries.columns, scores, d_scores);
      if (want_key) {
        float* d_k_block = d_k + static_cast<size_t>(key - key_range.begin) * stride;
        float* d_v_block = d_v + static_cast<size_t>(key - key_range.begin) * stride;
        multiply<Left::kRowMajor, true>(key_rows, width.padded, queries.count, scores, kQueryBlock,
                                        queries.d_o, row_stride, d_v_block, row_stride);
        multiply<Left::kRowMajor, true>(key_rows, width.padded, queries.count, d_scores, kQueryBlock,
                                        queries.q, row_stride, d_k_block, row_stride);
      }
      if (want_query)
        multiply<Left::kColumnMajor, true>(round_up(queries.count, kTileRows), width.padded, keys.count,
                                           d_scores, kQueryBlock, keys.k, row_stride, d_q, row_stride);
    }
    if (want_query) {
      write_rows(d_q, queries.count, width, task.scale, task.d_q, query);
      if (task.d_bias != nullptr) task.d_bias[query / kQueryBlock] = d_bias;
    }
  }
  if (!want_key) return;
  for (int64_t key = 0; key < num_keys; key += kKeyBlock) {
    const int count = static_cast<int>(num_keys - key < kKeyBlock ? num_keys - key : kKeyBlock);
    write_rows(d_k + static_cast<size_t>(key) * stride, count, width, task.scale, task.d_k,
               key_range.begin + key);
    write_rows(d_v + static_cast<size_t>(key) * stride, count, width, 1.0F, task.d_v, key_range.begin + key);
  }
}

}  // namespace
}  // namespace scrna::kernels
