// LibTorch's softmax attention on a GPU as columns of `bench attention`: FlashAttention-2 and cuDNN. Cells of
// one length go in as a batch, others as a pack with cu_seqlens; neither computes padding.
#include <optional>
#include <utility>

#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>

#include "lib/bench/attention_forms.h"

namespace scrna::bench {
namespace {

/// [T, H, K] as [B, S, H, K], for cells of one length.
at::Tensor as_batch(const at::Tensor& x, const AttentionProblem& problem) {
  return x.unflatten(0, {problem.num_cells(), problem.max_length});
}

AttentionPasses prepare_flash(const AttentionProblem& problem) {
  const bool batched = problem.row.has_equal_lengths();
  const auto shaped = [&](const at::Tensor& x) { return batched ? as_batch(x, problem) : x; };
  const at::Tensor q = shaped(problem.part(0)), k = shaped(problem.part(1)), v = shaped(problem.part(2));
  const at::Tensor d_o = shaped(problem.d_o);
  const at::Tensor begins = batched ? at::Tensor() : problem.cu_seqlens;
  const int64_t longest = problem.max_length;
  const auto forward = [=] {
    const auto given = begins.defined() ? std::make_optional(begins) : std::nullopt;
    return at::_flash_attention_forward(q, k, v, given, given, longest, longest, 0.0, false, false,
                                        std::optional<double>());
  };
  const auto out = forward();
  return {.forward = [=] { return std::get<0>(forward()); },
          .backward =
              [=] {
                const auto gradients = at::_flash_attention_backward(
                    d_o, q, k, v, std::get<0>(out), std::get<1>(out), begins, begins, longest, longest, 0.0,
                    false, std::get<2>(out), std::get<3>(out));
                return std::vector{std::get<0>(gradients), std::get<1>(gradients), std::get<2>(gradients)};
              },
          .valid_tokens = [batched](const at::Tensor& x) { return batched ? x.flatten(0, 1) : x; }};
}

AttentionPasses prepare_cudnn(const AttentionProblem& problem) {
  const auto heads_first = [&](const at::Tensor& x) { return as_batch(x, problem).transpose(1, 2); };
  const at::Tensor q = heads_first(problem.part(0)), k = heads_first(problem.part(1));
  const at::Tensor v = heads_first(problem.part(2)), d_o = heads_first(problem.d_o);
  const int64_t longest = problem.max_length;
  const auto forward = [=] {
    return at::_scaled_dot_product_cudnn_attention(q, k, v, std::nullopt, /*compute_log_sumexp=*/true);
  };
  const auto out = forward();
  return {.forward = [=] { return std::get<0>(forward()); },
          .backward =
              [=] {
                const auto gradients = at::_scaled_dot_product_cudnn_attention_backward(
                    d_o, q, k, v, std::get<0>(out), std::get<1>(out), std::get<6>(out), std::get<7>(out),
                    at::Tensor(), at::Tensor(), at::Tensor(), longest, longest, 0.0, false);
                return std::vector{std::get<0>(gradients), std::get<1>(gradients), std::get<2>(gradients)};
              },
          .valid_tokens = [](const at::Tensor& x) { return x.transpose(1, 2).flatten(0, 1); }};
}

}  // namespace

AttentionForm libtorch_flash() {
  return {.key = "libtorch_flash",
          .title = "LibTorch flash",
          .kind = "softmax",
          .what = "LibTorch's flash attention (FlashAttention-2)",
          .missing = {},
          .prepare = prepare_flash};
}

AttentionForm libtorch_cudnn() {
  return {.key = "cudnn",
          .title = "cuDNN",
          .kind = "softmax",
          .what = "cuDNN's attention as LibTorch calls it",
          .missing =
              [](const AttentionRow& row) {
                return row.has_equal_lengths() ? std::string() : "LibTorch's call of it for packs is wrong";
              },
          .prepare = prepare_cudnn};
}

}  // namespace scrna::bench
