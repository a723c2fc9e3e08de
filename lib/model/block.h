// One pre-LayerNorm encoder block:  h += dropout(attention(LN(h)));  h += dropout(feed_forward(LN(h))).
// The residual stream h is fp32 (in bf16 it would lose what small branches add to it, and save a tenth of the
// activations); everything else has the compute type. Adding a branch and the LayerNorm that reads the sum
// are one operation (lib/ops/residual_norm.h), also across the border of two blocks: so a block hands on its
// last branch without having added it.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "lib/model/context.h"
#include "lib/model/linear.h"
#include "lib/model/model_config.h"
#include "lib/ops/attention.h"
#include "lib/ops/dropout.h"

namespace scrna::model {

/// The attention that a configuration asks for: sigmoid with bias -log n, or softmax, scaled by 1 / sqrt(K).
ops::AttentionOptions attention_options(const ModelConfig& config);

/// What flows from block to block: the residual stream is h + dropout(branch).
struct Stream {
  at::Tensor h;                             // [T, D] fp32
  at::Tensor branch;                        // [T, D] of the compute type; undefined: nothing to add
  std::optional<ops::CellDropout> dropout;  // of the branch
};

struct Block {
  LayerNorm attention_norm;
  Linear qkv_projection;    // [3D, D]: Q, K and V of all heads in one product
  LayerNorm query_norm, key_norm;  // [K] each; undefined without qk_norm, beta undefined with rms_norm
  Linear attention_output;  // [D, D]
  LayerNorm feed_forward_norm;
  Linear feed_forward_in;   // [F, D]
  Linear feed_forward_out;  // [D, F]

  /// `index` is the block's position, for dropout streams and the score probe. What is saved for the backward
  /// pass depends on context.recompute.
  [[nodiscard]] Stream operator()(const Stream& in, const TokenTensors& input, int64_t index,
                                  const ModelConfig& config, ForwardContext& context) const;

 private:
  [[nodiscard]] at::ScalarType compute_type() const {
    return qkv_projection.compute_weight.defined() ? qkv_projection.compute_weight.scalar_type() : at::kFloat;
  }
  [[nodiscard]] Stream run(const Stream& in, const TokenTensors& input, int64_t index,
                           const ModelConfig& config, ForwardContext& context) const;
  [[nodiscard]] Stream run_twice(const Stream& in, const TokenTensors& input, int64_t index,
                                 const ModelConfig& config, ForwardContext& context) const;
  [[nodiscard]] at::Tensor attention_branch(const at::Tensor& y, const TokenTensors& input, int64_t index,
                                            const ModelConfig& config, ForwardContext& context) const;
  [[nodiscard]] at::Tensor attend(const at::Tensor& qkv_T3HK, const TokenTensors& input, int64_t index,
                                  const ModelConfig& config, ForwardContext& context) const;
  [[nodiscard]] at::Tensor feed_forward_branch(const at::Tensor& y, const ModelConfig& config,
                                               const ForwardContext& context) const;
};

/// x [T, H, K] normalised over K in fp32 as qk_norm says, in x's type. config.qk_norm must not be kNone.
at::Tensor normalise_heads(const at::Tensor& x_THK, const LayerNorm& norm, const ModelConfig& config);

/// The stream with its branch added, and its LayerNorm.
ops::ResidualNorm add_and_normalise(const Stream& in, const LayerNorm& norm, at::ScalarType compute_type);

/// Dropout of the application `site` in block `layer`, or none outside training.
std::optional<ops::CellDropout> dropout_at(int64_t layer, uint32_t site, const TokenTensors& input,
                                           const ModelConfig& config, const ForwardContext& context);

}  // namespace scrna::model
