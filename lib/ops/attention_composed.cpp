#include "lib/ops/attention_composed.h"

#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace scrna::ops {
namespace {

using kernels::AttentionKind;
using kernels::BiasKind;

constexpr int64_t kMaxScoresInFlight = int64_t{1} << 25;  // 128 MiB of fp32

at::ScalarType compute_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// The tokens of one cell, heads first: [H, n, K].
at::Tensor rows_of(const at::Tensor& x_THK, const TokenRange& cell) {
  return x_THK.narrow(0, cell.begin, cell.length).transpose(0, 1);
}

/// The same in a type that product() accepts.
at::Tensor cell_of(const at::Tensor& x_THK, const TokenRange& cell) {
  const at::Tensor rows = rows_of(x_THK, cell);
  return x_THK.is_cpu() ? rows.to(compute_type(x_THK)) : rows;
}

/// a b, accumulated and returned in fp32 (fp64 for fp64 operands).
at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  const at::ScalarType out = compute_type(a);
  return a.scalar_type() == out ? at::bmm(a, b) : at::bmm(a, b, out);
}

at::Tensor transposed(const at::Tensor& x) { return x.transpose(1, 2); }

/// Weights [H, rows, n] of one cell for the query rows q [H, rows, K] against its keys k [H, n, K].
at::Tensor weights_of(const ComposedAttention& call, size_t cell, const at::Tensor& q, const at::Tensor& k) {
  const TokenRange keys = call.keys[cell];
  at::Tensor scores = product(q, transposed(k)).mul_(call.scale);
  if (call.key_bias.defined()) scores.add_(call.key_bias.narrow(0, keys.begin, keys.length));
  if (call.kind == AttentionKind::kSoftmax) return at::softmax(scores, -1);
  switch (call.bias_kind) {
    case BiasKind::kNegativeLogLength:
      scores.sub_(std::log(static_cast<double>(keys.length)));
      break;
    case BiasKind::kScalar:
      scores.add_(call.scalar_bias);
      break;
    case BiasKind::kPerCell:
      scores.add_(call.cell_bias.narrow(0, static_cast<int64_t>(cell), 1));
      break;
  }
  return scores.sigmoid_();
}

/// Query rows of a cell whose scores are held at once.
int64_t rows_in_flight(int64_t num_heads, int64_t num_queries, int64_t num_keys) {
  return std::clamp<int64_t>(kMaxScoresInFlight / (num_heads * num_keys), 1, num_queries);
}

}  // namespace

void attention_composed_forward(const ComposedAttention& call, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v, const at::Tensor& o) {
  const at::NoGradGuard no_grad;
  o.zero_();
  for (size_t cell = 0; cell < call.queries.size(); ++cell) {
    const TokenRange queries = call.queries[cell];
    const TokenRange keys = call.keys[cell];
    if (queries.length == 0 || keys.length == 0) continue;
    const at::Tensor q_cell = cell_of(q, queries);
    const at::Tensor k_cell = cell_of(k, keys);
    const at::Tensor v_cell = cell_of(v, keys);
    const at::Tensor o_cell = rows_of(o, queries);
    const int64_t step = rows_in_flight(q.size(1), queries.length, keys.length);
    for (int64_t row = 0; row < queries.length; row += step) {
      const int64_t rows = std::min(step, queries.length - row);
      const at::Tensor weights = weights_of(call, cell, q_cell.narrow(1, row, rows), k_cell);
      o_cell.narrow(1, row, rows).copy_(product(weights.to(v_cell.scalar_type()), v_cell));
    }
  }
}

// With P the weights and dP = dO V^T:  dV = P^T dO,  dS = P (1 - P) dP  (sigmoid)  or  P (dP - rowsum(P dP))
// (softmax), dQ = scale dS K,  dK = scale dS^T Q,  d bias = sum of dS over the cell and all heads.
void attention_composed_backward(const ComposedAttention& call, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor& d_o, const at::Tensor& d_q,
                                 const at::Tensor& d_k, const at::Tensor& d_v,
                                 const at::Tensor& d_cell_bias) {
  const at::NoGradGuard no_grad;
  for (const at::Tensor& gradient : {d_q, d_k, d_v}) gradient.zero_();
  if (d_cell_bias.defined()) d_cell_bias.zero_();
  for (size_t cell = 0; cell < call.queries.size(); ++cell) {
    const TokenRange queries = call.queries[cell];
    const TokenRange keys = call.keys[cell];
    if (queries.length == 0 || keys.length == 0) continue;
    const at::Tensor q_cell = cell_of(q, queries);
    const at::Tensor k_cell = cell_of(k, keys);
    const at::Tensor v_cell = cell_of(v, keys);
    const at::Tensor d_o_cell = cell_of(d_o, queries);
    const at::Tensor d_q_cell = rows_of(d_q, queries);
    const at::Tensor d_k_sum =
        at::zeros({q.size(1), keys.length, q.size(2)}, q.options().dtype(compute_type(q)));
    const at::Tensor d_v_sum = at::zeros_like(d_k_sum);
    const int64_t step = rows_in_flight(q.size(1), queries.length, keys.length);
    for (int64_t row = 0; row < queries.length; row += step) {
      const int64_t rows = std::min(step, queries.length - row);
      const at::Tensor q_rows = q_cell.narrow(1, row, rows);
      const at::Tensor d_o_rows = d_o_cell.narrow(1, row, rows);
      const at::Tensor weights = weights_of(call, cell, q_rows, k_cell);
      d_v_sum.add_(product(transposed(weights.to(q_rows.scalar_type())), d_o_rows));
      at::Tensor d_scores = product(d_o_rows, transposed(v_cell));
      if (call.kind == AttentionKind::kSoftmax) {
        const at::Tensor row_sums =
            weights.mul(d_scores).sum(at::OptionalIntArrayRef({-1}), /*keepdim=*/true);
        d_scores.sub_(row_sums).mul_(weights);
      } else {
        d_scores.mul_(weights);
        d_scores.addcmul_(d_scores, weights, -1);
      }
      if (d_cell_bias.defined()) d_cell_bias.narrow(0, static_cast<int64_t>(cell), 1).add_(d_scores.sum());
      const at::Tensor d_scores_operand = d_scores.to(q_rows.scalar_type());
      d_k_sum.add_(product(transposed(d_scores_operand), q_rows));
      d_q_cell.narrow(1, row, rows).copy_(product(d_scores_operand, k_cell).mul_(call.scale));
    }
    rows_of(d_k, keys).copy_(d_k_sum.mul_(call.scale));
    rows_of(d_v, keys).copy_(d_v_sum);
  }
}

}  // namespace scrna::ops
