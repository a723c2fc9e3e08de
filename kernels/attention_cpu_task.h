// What the scheduler (attention_cpu.cpp) hands to the vector code (attention_cpu_{forward,backward}.h): one
// head of one cell, and which of its queries or keys to work on. Plain numbers and pointers, since the two
// sides are compiled for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"

namespace scrna::kernels {

// Queries that are in cache together, and keys that meet them. Measured at 2,048 tokens on one core of a Zen
// 4, GFLOP/s of 118: forward, width 64 / 128: 128 x 64: 92 / 98, 64 x 128: 89 / 93, 32 x 128: 83 / 87;
// backward: all of these alike.
constexpr int kForwardQueries = 128;
constexpr int kForwardKeys = 64;
constexpr int kQueryBlock = 64;  // backward
constexpr int kKeyBlock = 128;   // backward

/// Rows of one operand of one head of one cell: row i at element i * stride, head_width contiguous elements
/// of type (fp32 or bf16).
struct HeadRows {
  void* data;
  int64_t stride;
  ElementType type;
};

/// How many blocks of queries an item of the backward pass is done with; the item with the next keys of the
/// same head follows it.
struct BlocksDone;
/// Returns when `block` is done: what was written before is visible.
void wait_for_block(const BlocksDone& done, int64_t block);
/// Blocks come in ascending order.
void block_is_done(BlocksDone& done, int64_t block);

struct HeadTask {
  HeadRows q, k, v, o, d_o, d_q, d_k, d_v;
  HeadRows d_q_sum;  // fp32; d_q itself where that is fp32
  int64_t num_queries;
  int64_t num_keys;
  int head_width;
  float scale;
  float bias;             // sigmoid: the cell's bias; softmax: 0
  const float* key_bias;  // of the cell's keys, or null
  float* new_lse;         // softmax, forward: log-sum-exp of the head's queries, or null
  const float* lse;       // softmax, backward
  bool softmax;
  double* d_bias;                 // sums of dS, one for each query block of the head, or null
  const BlocksDone* done_before;  // backward: of the item with the keys before; unused at the first key
  BlocksDone* done;               // backward: of this item; unused at the last key
};

struct Range {
  int64_t begin;
  int64_t end;
};

/// One instruction set's code.
struct CpuAttentionCode {
  size_t (*forward_scratch_floats)(int head_width);
  /// Output rows of the queries in the range, which begins at a multiple of kForwardQueries and has at most
  /// that many.
  void (*forward)(const HeadTask& task, Range queries, float* scratch);
  size_t (*backward_scratch_floats)(int head_width, int num_keys);
  /// d_k and d_v of the keys in the range, which begins at a multiple of kKeyBlock, and their part of d_q and
  /// d_bias, of all queries; the item with the keys before must be running or done.
  void (*backward)(const HeadTask& task, Range keys, float* scratch);
};

extern const CpuAttentionCode kAttentionCpuBaseline;
extern const CpuAttentionCode kAttentionCpuAvx2;
extern const CpuAttentionCode kAttentionCpuAvx512;

}  // namespace scrna::kernels
