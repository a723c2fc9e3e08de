// One pre-LayerNorm encoder block:  x += dropout(attention(LN(x)));  x += dropout(feed_forward(LN(x))).
// The residual stream stays in fp32; matrix products and attention run in the compute type.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "lib/model/context.h"
#include "lib/model/linear.h"
#include "lib/model/model_config.h"
#include "lib/ops/attention.h"

namespace scrna::model {

/// The attention that a configuration asks for: sigmoid with bias -log n, or softmax, scaled by 1 / sqrt(K).
ops::AttentionOptions attention_options(const ModelConfig& config);

struct Block {
  LayerNorm attention_norm;
  Linear qkv_projection;    // [3D, D]: Q, K and V of all heads in one product
  Linear attention_output;  // [D, D]
  LayerNorm feed_forward_norm;
  Linear feed_forward_in;   // [F, D]
  Linear feed_forward_out;  // [D, F]

  /// x [T, D] fp32 -> [T, D] fp32. `index` is the block's position, for dropout streams and the score probe.
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, const TokenTensors& input, int64_t index,
                                      const ModelConfig& config, ForwardContext& context) const;
};

}  // namespace scrna::model
