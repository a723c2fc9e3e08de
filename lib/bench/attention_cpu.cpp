// Attention on the CPU as columns of `bench attention`: what a training step calls, through autograd.
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/generated/variable_factories.h>

#include "lib/bench/attention_forms.h"
#include "lib/ops/attention.h"

namespace scrna::bench {
namespace {

using Attention = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

/// Forward alone records nothing, as in evaluation.
AttentionPasses passes(const AttentionProblem& problem, const Attention& attention) {
  const auto forward = [problem, attention] {
    const at::NoGradGuard no_grad;
    return attention(problem.part(0), problem.part(1), problem.part(2));
  };
  const auto both = [problem, attention] {
    std::vector<at::Tensor> operands;
    for (int64_t i = 0; i < 3; ++i) operands.push_back(problem.part(i).detach().requires_grad_());
    attention(operands[0], operands[1], operands[2]).backward(problem.d_o);
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& x : operands) gradients.push_back(x.grad());
    return gradients;
  };
  return {.forward = forward, .backward = both};
}

/// Cells of one length as one batch, others one after the other: LibTorch has no ragged form for the CPU.
at::Tensor libtorch(const AttentionRow& row, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto batched = [](const at::Tensor& x, int64_t begin, int64_t cells, int64_t length) {
    return x.narrow(0, begin, cells * length).unflatten(0, {cells, length}).transpose(1, 2);
  };
  const auto run = [&](int64_t begin, int64_t cells, int64_t length) {
    return at::scaled_dot_product_attention(batched(q, begin, cells, length),
                                            batched(k, begin, cells, length),
                                            batched(v, begin, cells, length))
        .transpose(1, 2)
        .flatten(0, 1);
  };
  if (row.has_equal_lengths()) return run(0, static_cast<int64_t>(row.lengths.size()), row.lengths.front());
  std::vector<at::Tensor> cells;
  int64_t begin = 0;
  for (const int32_t length : row.lengths) {
    cells.push_back(run(begin, 1, length));
    begin += length;
  }
  return at::cat(cells);
}

}  // namespace

AttentionForm our_cpu_attention(kernels::AttentionKind kind) {
  const bool sigmoid = kind == kernels::AttentionKind::kSigmoid;
  return {.key = sigmoid ? "sigmoid_exact" : "our_softmax",
          .title = sigmoid ? "our sigmoid" : "our softmax",
          .kind = sigmoid ? "sigmoid" : "softmax",
          .what = sigmoid ? "our sigmoid attention, exact" : "our softmax attention",
          .missing = {},
          .prepare = [kind](const AttentionProblem& problem) {
            const auto attention = [kind, problem](const at::Tensor& q, const at::Tensor& k,
                                                   const at::Tensor& v) {
              ops::AttentionOptions options;
              options.kind = kind;
              options.implementation = ops::Implementation::kKernel;
              return ops::attention(q, k, v, problem.cu_seqlens, problem.max_length, options);
            };
            return passes(problem, attention);
          }};
}

AttentionForm libtorch_cpu_attention() {
  return {.key = "libtorch_sdpa",
          .title = "LibTorch softmax",
          .kind = "softmax",
          .what = "LibTorch's scaled_dot_product_attention; cells of several lengths one after the other",
          .missing = {},
          .prepare = [](const AttentionProblem& problem) {
            const auto attention = [row = problem.row](const at::Tensor& q, const at::Tensor& k,
                                                       const at::Tensor& v) {
              return libtorch(row, q, k, v);
            };
            return passes(problem, attention);
          }};
}

}  // namespace scrna::bench
