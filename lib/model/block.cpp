#include "lib/model/block.h"

#include <cmath>

#include <ATen/ops/gelu.h>

#include "lib/ops/dropout.h"
#include "lib/ops/score_probe.h"

namespace scrna::model {
namespace {

// Dropout sites inside a block; the embeddings use site 0 of layer L (encoder.cpp).
constexpr uint32_t kAttentionSite = 0;
constexpr uint32_t kFeedForwardSite = 1;

at::Tensor drop(const at::Tensor& x, const TokenTensors& input, int64_t layer, uint32_t site,
                const ModelConfig& config, const ForwardContext& context) {
  if (!context.training || config.dropout == 0) return x;
  return ops::dropout(x, input.cu_seqlens, input.cell_ids,
                      {.seed = context.seed,
                       .step = context.step,
                       .layer = static_cast<uint32_t>(layer),
                       .site = site,
                       .probability = config.dropout});
}

}  // namespace

ops::AttentionOptions attention_options(const ModelConfig& config) {
  ops::AttentionOptions options;
  options.kind = config.attention == Attention::kSigmoid ? kernels::AttentionKind::kSigmoid
                                                         : kernels::AttentionKind::kSoftmax;
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

at::Tensor Block::operator()(const at::Tensor& x, const TokenTensors& input, int64_t index,
                             const ModelConfig& config, ForwardContext& context) const {
  const int64_t num_tokens = x.size(0);
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.head_width()));
  const at::Tensor qkv_T3HK = qkv_projection(attention_norm(x), context.compute_type)
                                  .view({num_tokens, 3, config.num_heads, config.head_width()});
  if (context.probe_queries > 0) {
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
  const at::Tensor attended = ops::attention_qkv(qkv_T3HK, input.cu_seqlens, input.max_cell_tokens, options)
                                  .reshape({num_tokens, config.width});
  const at::Tensor after_attention = x.add(
      drop(attention_output(attended, context.compute_type), input, index, kAttentionSite, config, context));
  const at::Tensor inner =
      at::gelu(feed_forward_in(feed_forward_norm(after_attention), context.compute_type));
  return after_attention.add(
      drop(feed_forward_out(inner, context.compute_type), input, index, kFeedForwardSite, config, context));
}

}  // namespace scrna::model
