#include "lib/model/block.h"

#include <cmath>

#include "lib/ops/gelu.h"
#include "lib/ops/recompute.h"
#include "lib/ops/score_probe.h"

namespace scrna::model {
namespace {

using torch::autograd::variable_list;

// Dropout sites inside a block; the embeddings use site 0 of layer L (encoder.cpp).
constexpr uint32_t kAttentionSite = 0;
constexpr uint32_t kFeedForwardSite = 1;

}  // namespace

ops::AttentionOptions attention_options(const ModelConfig& config) {
  ops::AttentionOptions options;
  options.kind = config.attention == Attention::kSigmoid ? kernels::AttentionKind::kSigmoid
                                                         : kernels::AttentionKind::kSoftmax;
  options.precision = config.attention_precision == AttentionPrecision::kFast
                          ? kernels::SigmoidPrecision::kFast
                          : kernels::SigmoidPrecision::kExact;
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

at::Tensor Block::attention_branch(const at::Tensor& y, const TokenTensors& input, int64_t index,
                                   const ModelConfig& config, ForwardContext& context) const {
  const int64_t num_tokens = y.size(0);
  const at::Tensor qkv_T3HK =
      ops::linear(y, qkv_projection).view({num_tokens, 3, config.num_heads, config.head_width()});
  if (context.probe_queries > 0) {
    const double scale = 1.0 / std::sqrt(static_cast<double>(config.head_width()));
    context.max_scores.push_back(ops::max_abs_score(qkv_T3HK.select(1, 0), qkv_T3HK.select(1, 1),
                                                    input.cu_seqlens, scale,
                                                    {.seed = context.seed,
                                                     .step = context.step,
                                                     .micro_batch = context.micro_batch,
                                                     .layer = index,
                                                     .num_queries = context.probe_queries}));
  }
  ops::AttentionOptions options = attention_options(config);
  options.cu_seqlens_host = input.cu_seqlens_host;
  const at::Tensor attended = ops::attention_qkv(qkv_T3HK, input.cu_seqlens, input.max_cell_tokens, options);
  return ops::linear(attended.view({num_tokens, config.width}), attention_output);
}

at::Tensor Block::feed_forward_branch(const at::Tensor& y, Recompute recompute) const {
  const auto inner = [this](const at::Tensor& x) {
    return ops::bias_gelu(linear_without_bias(x, feed_forward_in), feed_forward_in.bias);
  };
  return recompute == Recompute::kFeedForward ? ops::linear_of_recomputed(inner, y, feed_forward_out)
                                              : ops::linear(inner(y), feed_forward_out);
}

Stream Block::run(const Stream& in, const TokenTensors& input, int64_t index, const ModelConfig& config,
                  ForwardContext& context) const {
  const ops::ResidualNorm before_attention = add_and_normalise(in, attention_norm, compute_type());
  const Stream between{before_attention.h,
                       attention_branch(before_attention.y, input, index, config, context),
                       dropout_at(index, kAttentionSite, input, config, context)};
  const ops::ResidualNorm before_feed_forward = add_and_normalise(between, feed_forward_norm, compute_type());
  const at::Tensor branch = feed_forward_branch(before_feed_forward.y, context.recompute);
  return {before_feed_forward.h, branch, dropout_at(index, kFeedForwardSite, input, config, context)};
}

Stream Block::run_twice(const Stream& in, const TokenTensors& input, int64_t index, const ModelConfig& config,
                        ForwardContext& context) const {
  ForwardContext inner = context;
  inner.max_scores.clear();
  const auto segment = [this, input, index, config, dropout = in.dropout, inner](
                           const at::Tensor& h, const at::Tensor& branch) mutable {
    const Stream end = run({h, branch, dropout}, input, index, config, inner);
    variable_list results{end.h, end.branch};
    results.insert(results.end(), inner.max_scores.begin(), inner.max_scores.end());
    inner.max_scores.clear();
    inner.probe_queries = 0;  // the second pass measures nothing
    return results;
  };
  const variable_list results = ops::recomputed(segment, in.h, in.branch);
  for (std::size_t i = 2; i < results.size(); ++i) context.max_scores.push_back(results[i].detach());
  return {results[0], results[1], dropout_at(index, kFeedForwardSite, input, config, context)};
}

Stream Block::operator()(const Stream& in, const TokenTensors& input, int64_t index,
                         const ModelConfig& config, ForwardContext& context) const {
  return context.recompute == Recompute::kBlock ? run_twice(in, input, index, config, context)
                                                : run(in, input, index, config, context);
}

}  // namespace scrna::model
