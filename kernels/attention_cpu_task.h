// What the scheduler (attention_cpu.cpp) hands to the vector code (attention_cpu_block.h): one head of one
// cell, and which of its queries and keys to work on. Plain numbers and pointers, since the two sides are
// compiled for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace scrna::kernels {

constexpr int kQueryBlock = 64;  // queries that are in cache together
constexpr int kKeyBlock = 128;   // keys that meet them

/// Rows of one operand of one head of one cell: row i at data + i * stride, head_width contiguous floats.
struct HeadRows {
  float* data;
  int64_t stride;
};

struct HeadTask {
  HeadRows q, k, v, o, d_o, d_q, d_k, d_v;
  int64_t num_queries;
  int64_t num_keys;
  int head_width;
  float scale;
  float bias;             // sigmoid: the cell's bias; softmax: 0
  const float* key_bias;  // of the cell's keys, or null
  float* new_lse;         // softmax, forward: log-sum-exp of the head's queries, or null
  const float* lse;       // softmax, backward
  bool softmax;
  double* d_bias;  // sums of dS, one for each query block of the head, or null
};

struct Range {
  int64_t begin;
  int64_t end;
};

/// One instruction set's code.
struct CpuAttentionCode {
  size_t (*forward_scratch_floats)(int head_width);
  /// Output rows of the queries in the range, which begins at a multiple of kQueryBlock and has at most that
  /// many.
  void (*forward)(const HeadTask& task, Range queries, float* scratch);
  size_t (*backward_scratch_floats)(int head_width, int64_t num_keys);
  /// With want_query: d_q of the queries in the range (which needs keys = all keys), and d_bias.
  /// With want_key: d_k and d_v of the keys in the range (which needs queries = all queries).
  /// Both ranges begin at multiples of their blocks.
  void (*backward)(const HeadTask& task, Range queries, Range keys, bool want_query, bool want_key,
                   float* scratch);
};

extern const CpuAttentionCode kAttentionCpuBaseline;
extern const CpuAttentionCode kAttentionCpuAvx2;
extern const CpuAttentionCode kAttentionCpuAvx512;

}  // namespace scrna::kernels
