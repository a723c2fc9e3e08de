#include "lib/ops/attention_statistics.h"

#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/xlogy.h>
#include <ATen/ops/zeros.h>

#include "lib/core/error.h"

namespace scrna::ops {

at::Tensor attention_statistics(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                                double scale, const AttentionOptions& options, const ScoreProbe& probe) {
  SCRNA_CHECK(options.bias_kind != kernels::BiasKind::kPerCell, "attention statistics: no bias per cell");
  const at::NoGradGuard no_grad;
  const at::ScalarType type = q_THK.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto count = static_cast<int64_t>(AttentionStatistic::kCount);
  if (q_THK.size(0) == 0) return at::zeros({count}, q_THK.options().dtype(type));
  const SampledScores sampled = sample_scores(q_THK, k_THK, cu_seqlens, probe);
  const at::Tensor other = sampled.other_cell.unsqueeze(0);                      // [1, N, T]
  const at::Tensor scores = sampled.products.to(type).mul_(scale);               // [H, N, T]
  const at::Tensor bias = options.bias_kind == kernels::BiasKind::kScalar
                              ? at::full({1, 1, 1}, options.scalar_bias, scores.options())
                              : sampled.lengths.to(type).log_().neg_().view({1, -1, 1});  // [1, N, 1]

  const at::Tensor sigmoid = at::sigmoid(scores + bias).masked_fill_(other, 0);
  const at::Tensor softmax =
      at::log_softmax(scores.masked_fill(other, -std::numeric_limits<double>::infinity()), -1).exp_();
  const at::Tensor& weights = options.kind == kernels::AttentionKind::kSigmoid ? sigmoid : softmax;
  const at::Tensor row_sum = weights.sum(-1);  // [H, N]
  const at::Tensor shares = weights / row_sum.unsqueeze(-1);
  const at::Tensor entropy = at::xlogy(shares, shares).sum(-1).neg();

  // Sigmoid: diagonal w (1 - w). Softmax: p_i (1 - p_i) on the diagonal and -p_i p_j beside it; the sum of squares of
  // all of them is sum p^2 - 2 sum p^3 + (sum p^2)^2, and no entry beside the diagonal is larger than those on it.
  const at::Tensor sigmoid_diagonal = sigmoid * (1 - sigmoid);
  const at::Tensor squares = softmax.square().sum(-1);
  const at::Tensor softmax_norm =
      (squares - 2 * softmax.pow(3).sum(-1) + squares.square()).clamp_min_(0).sqrt_();
  return at::stack({row_sum.mean(), row_sum.max(), entropy.mean(),
                    sigmoid_diagonal.square().sum(-1).sqrt().mean(), sigmoid_diagonal.max(),
                    softmax_norm.mean(), (softmax * (1 - softmax)).max()});
}

}  // namespace scrna::ops
