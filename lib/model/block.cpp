#include "lib/model/block.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linalg_vector_norm.h>

#include "lib/ops/gelu.h"
#include "lib/ops/recompute.h"
#include "lib/ops/score_probe.h"

namespace scrna::model {
namespace {

using torch::autograd::variable_list;

// Dropout sites inside a block; the embeddings use site 0 of layer L (encoder.cpp).
constexpr uint32_t kAttentionSite = 0;
constexpr uint32_t kFeedForwardSite = 1;

at::Tensor root_mean_square(const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const at::Tensor norm = at::linalg_vector_norm(x, 2, at::OptionalIntArrayRef(), false, at::kFloat);
  return norm.div_(std::sqrt(static_cast<double>(std::max<int64_t>(1, x.numel())))).view({1});
}

}  // namespace

ops::AttentionOptions attention_options(const ModelConfig& config) {
  ops::AttentionOptions options;
  options.kind = config.attention == Attention::kSigmoid ? kernels::AttentionKind::kSigmoid
                                                         : kernels::AttentionKind::kSoftmax;
  options.precision = config.attention_precision == AttentionPrecision::kFast
                          ? kernels::SigmoidPrecision::kFast
                          : kernels::SigmoidPrecision::kExact;
  if (config.attention == Attention::kSigmoid && config.attention_bias == AttentionBias::kZero) {
    options.bias_kind = kernels::BiasKind::kScalar;
    options.scalar_bias = 0;
  }
  options.deterministic = config.attention_deterministic;
  switch (config.attention_kernel) {
    case AttentionKernel::kAuto:
      options.implementation = ops::Implementation::kAuto;
      break;
    case AttentionKernel::kComposed:
      options.implementation = ops::Implementation::kComposed;
      break;
    case AttentionKernel::kFused:
      options.implementation = ops::Implementation::kKernel;
      break;
  }
  return options;
}

ops::ResidualNorm add_and_normalise(const Stream& in, const LayerNorm& norm, at::ScalarType compute_type) {
  return ops::residual_norm(in.h, in.branch, norm, compute_type, in.dropout);
}

std::optional<ops::CellDropout> dropout_at(int64_t layer, uint32_t site, const TokenTensors& input,
                                           const ModelConfig& config, const ForwardContext& context) {
  if (!context.training || config.dropout == 0) return std::nullopt;
  return ops::CellDropout{.cu_seqlens = input.cu_seqlens,
                          .cell_ids = input.cell_ids,
                          .site = {.seed = context.seed,
                                   .step = context.step,
                                   .layer = static_cast<uint32_t>(layer),
                                   .site = site,
                                   .probability = config.dropout}};
}

at::Tensor normalise_heads(const at::Tensor& x_THK, const LayerNorm& norm, const ModelConfig& config) {
  const at::Tensor x = x_THK.to(at::kFloat);
  if (config.qk_norm == QkNorm::kLayerNorm) {
    return at::layer_norm(x, {x.size(-1)}, norm.gamma, norm.beta, norm.epsilon).to(x_THK.scalar_type());
  }
  const at::Tensor inverse_rms = x.square().mean(-1, /*keepdim=*/true).add(norm.epsilon).rsqrt();
  return x.mul(inverse_rms).mul(norm.gamma).to(x_THK.scalar_type());
}

// Attention with what is measured of its queries and keys.
at::Tensor Block::attend(const at::Tensor& qkv_T3HK, const TokenTensors& input, int64_t index,
                         const ModelConfig& config, ForwardContext& context) const {
  const bool is_normalised = config.qk_norm != QkNorm::kNone;
  const auto part = [&](int64_t which, const LayerNorm& norm) {
    const at::Tensor x = qkv_T3HK.select(1, which);
    return is_normalised ? normalise_heads(x, norm, config) : x;
  };
  const at::Tensor q = part(0, query_norm), k = part(1, key_norm);
  ops::AttentionOptions options = attention_options(config);
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.head_width()));
  ops::ScoreProbe probe{.seed = context.seed, .step = context.step, .micro_batch = context.micro_batch, .layer = index};
  if (context.probe_queries > 0) {
    probe.num_queries = context.probe_queries;
    context.max_scores.push_back(ops::max_abs_score(q, k, input.cu_seqlens, scale, probe));
  }
  if (context.statistics_queries > 0) {
    probe.num_queries = context.statistics_queries;
    const at::Tensor statistics = ops::attention_statistics(q, k, input.cu_seqlens, scale, options, probe);
    const at::Tensor exact =
        context.exact_scores
            ? ops::exact_max_abs_score(q, k, input.cu_seqlens, input.cu_seqlens_host, scale).view({1})
            : at::full({1}, std::numeric_limits<double>::quiet_NaN(), statistics.options());
    context.layer_statistics.push_back(at::cat({statistics, exact}));
  }
  options.cu_seqlens_host = input.cu_seqlens_host;
  return is_normalised
             ? ops::attention(q, k, qkv_T3HK.select(1, 2), input.cu_seqlens, input.max_cell_tokens, options)
             : ops::attention_qkv(qkv_T3HK, input.cu_seqlens, input.max_cell_tokens, options);
}

at::Tensor Block::attention_branch(const at::Tensor& y, const TokenTensors& input, int64_t index,
                                   const ModelConfig& config, ForwardContext& context) const {
  const int64_t num_tokens = y.size(0);
  const at::Tensor qkv_T3HK =
      ops::linear(y, qkv_projection).view({num_tokens, 3, config.num_heads, config.head_width()});
  const at::Tensor attended = attend(qkv_T3HK, input, index, config, context);
  return ops::linear(attended.view({num_tokens, config.width}), attention_output);
}

at::Tensor Block::feed_forward_branch(const at::Tensor& y, const ModelConfig& config,
                                      const ForwardContext& context) const {
  if (config.gelu_precision == GeluPrecision::kFast && !context.is_recorded && y.is_cuda() &&
      y.scalar_type() == at::kBFloat16) {
    return ops::linear(ops::linear_with_tanh_gelu(y, feed_forward_in), feed_forward_out);
  }
  const auto inner = [this](const at::Tensor& x) {
    return ops::bias_gelu(linear_without_bias(x, feed_forward_in), feed_forward_in.bias);
  };
  return context.recompute == Recompute::kFeedForward ? ops::linear_of_recomputed(inner, y, feed_forward_out)
                                                      : ops::linear(inner(y), feed_forward_out);
}

Stream Block::run(const Stream& in, const TokenTensors& input, int64_t index, const ModelConfig& config,
                  ForwardContext& context) const {
  const ops::ResidualNorm before_attention = add_and_normalise(in, attention_norm, compute_type());
  const Stream between{before_attention.h,
                       attention_branch(before_attention.y, input, index, config, context),
                       dropout_at(index, kAttentionSite, input, config, context)};
  const ops::ResidualNorm before_feed_forward = add_and_normalise(between, feed_forward_norm, compute_type());
  const at::Tensor branch = feed_forward_branch(before_feed_forward.y, config, context);
  if (context.statistics_queries > 0) {
    at::Tensor& statistics = context.layer_statistics.back();  // those of attention
    statistics = at::cat({root_mean_square(before_attention.h), root_mean_square(between.branch),
                          root_mean_square(branch), statistics});
  }
  return {before_feed_forward.h, branch, dropout_at(index, kFeedForwardSite, input, config, context)};
}

Stream Block::run_twice(const Stream& in, const TokenTensors& input, int64_t index, const ModelConfig& config,
                        ForwardContext& context) const {
  ForwardContext inner = context;
  inner.max_scores.clear();
  inner.layer_statistics.clear();
  const auto segment = [this, input, index, config, dropout = in.dropout, inner](
                           const at::Tensor& h, const at::Tensor& branch) mutable {
    const Stream end = run({h, branch, dropout}, input, index, config, inner);
    variable_list results{end.h, end.branch};
    results.insert(results.end(), inner.max_scores.begin(), inner.max_scores.end());
    results.insert(results.end(), inner.layer_statistics.begin(), inner.layer_statistics.end());
    inner.max_scores.clear();
    inner.layer_statistics.clear();
    inner.probe_queries = inner.statistics_queries = 0;  // the second pass measures nothing
    return results;
  };
  const variable_list results = ops::recomputed(segment, in.h, in.branch);
  const std::size_t num_scores = context.probe_queries > 0 ? 1 : 0;
  for (std::size_t i = 2; i < results.size(); ++i) {
    (i < 2 + num_scores ? context.max_scores : context.layer_statistics).push_back(results[i].detach());
  }
  return {results[0], results[1], dropout_at(index, kFeedForwardSite, input, config, context)};
}

Stream Block::operator()(const Stream& in, const TokenTensors& input, int64_t index,
                         const ModelConfig& config, ForwardContext& context) const {
  return context.recompute == Recompute::kBlock ? run_twice(in, input, index, config, context)
                                                : run(in, input, index, config, context);
}

}  // namespace scrna::model
