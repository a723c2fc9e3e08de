// What attention does with its scores, watched during training on sampled query rows: how much weight a row gives out
// (sigmoid), how spread it is (entropy), and the derivative of its weights in its scores, which is where sigmoid and
// softmax differ: sigmoid's Jacobian is diagonal with entries w (1 - w) <= 1/4, softmax's is dense, diag(p) - p p^T
// (arXiv 2604.27124, A.1; 2409.04431). Both Jacobians are taken at the same scores, so one run shows both.
//
// Composed of LibTorch operators on N rows (H N T numbers at a time), not a kernel: it runs every tenth step on one
// micro-batch, and nothing waits for it. The rows are those of the score probe with the same keys.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"
#include "lib/ops/score_probe.h"

namespace scrna::ops {

/// Positions in the result of attention_statistics(). Means and maxima are over sampled rows and heads.
enum class AttentionStatistic : int64_t {
  kRowSumMean,          // sum of a row's weights; softmax: 1
  kRowSumMax,
  kEntropyMean,         // nats, of the row divided by its sum; at most log of the cell's tokens
  kSigmoidJacobianNorm, // mean Frobenius norm of d weights / d scores of a row, were it sigmoid(s + bias)
  kSigmoidJacobianMax,  // largest entry of it; at most 1/4
  kSoftmaxJacobianNorm, // the same were it softmax(s)
  kSoftmaxJacobianMax,
  kCount
};

/// q, k: [T, H, K] fp32 or bf16 (fp64 on the CPU); cu_seqlens: [B+1] int32 on the same device; scores are
/// scale * q.k. options.kind chooses the weights of the first three; options.bias_kind, kNegativeLogLength or kScalar, the
/// bias of the sigmoid (of softmax too, for its sigmoid Jacobian). Returns [kCount] fp32 (fp64 for fp64) on the device,
/// without host synchronisation and without gradient; zeros when there are no tokens, NaN when a sampled score is.
/// Throws InternalError when the tensors break this contract.
at::Tensor attention_statistics(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                                double scale, const AttentionOptions& options, const ScoreProbe& probe);

}  // namespace scrna::ops
