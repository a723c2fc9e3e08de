// The composed twin of the attention kernels: LibTorch matrix products and elementwise operators, one cell at
// a time, query rows in chunks, so memory is bounded by one chunk of scores instead of B S^2; the backward
// pass recomputes the scores. Explicit formulas instead of recorded autograd: they bound the memory and are
// what the kernels implement too (the tests check both against fp64). On the CPU half types are computed in
// fp32; on a GPU the products take half operands, accumulate and return fp32, and weights are rounded to the
// half type before they meet V, as kernels do.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/attention.h"

namespace scrna::ops {

/// Tokens of one cell.
struct TokenRange {
  int64_t begin = 0;
  int64_t length = 0;
};

/// One call, without its operands. Host-side description: the composed form needs the lengths on the host.
struct ComposedAttention {
  std::vector<TokenRange> queries, keys;  // [B] each
  kernels::AttentionKind kind = kernels::AttentionKind::kSigmoid;
  kernels::BiasKind bias_kind = kernels::BiasKind::kNegativeLogLength;
  double scalar_bias = 0.0;
  at::Tensor cell_bias;  // [B] fp32, with kPerCell
  at::Tensor key_bias;   // [T_k] fp32 or undefined
  double scale = 1.0;
};

/// Writes o [T_q, H, K] (any strides), zero for tokens of no cell and for cells without keys. No gradients
/// are recorded.
void attention_composed_forward(const ComposedAttention& call, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v, const at::Tensor& o);
/// Writes d_q [T_q, H, K], d_k, d_v [T_k, H, K] (any strides; zero as o is) and, where defined, d_cell_bias
/// [B] fp32.
void attention_composed_backward(const ComposedAttention& call, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor& d_o, const at::Tensor& d_q,
                                 const at::Tensor& d_k, const at::Tensor& d_v, const at::Tensor& d_cell_bias);

}  // namespace scrna::ops
