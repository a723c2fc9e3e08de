// The bidirectional encoder over ragged packs of gene tokens, with its masked-gene head. Pre-LayerNorm
// blocks, gene and rank-position embeddings, final LayerNorm, untied output head (arXiv 2604.27124; see
// model_config.h). Everything runs on the T packed tokens of a micro-batch; there is no padding to mask.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/model/block.h"
#include "lib/model/context.h"
#include "lib/model/model_config.h"
#include "lib/ops/parameters.h"

namespace scrna::model {

class Encoder {
 public:
  /// vocabulary_size: G, specials included; max_tokens: longest cell, the number of rank positions.
  /// Weights are drawn on the CPU (same seed, same model) and moved to `device`.
  Encoder(const ModelConfig& config, int64_t vocabulary_size, int64_t max_tokens, uint64_t seed,
          at::Device device);

  /// Contextual embedding of every token: [T, D] fp32, after the final LayerNorm.
  [[nodiscard]] at::Tensor hidden_states(const TokenTensors& input, ForwardContext& context) const;

  /// Sum over the masked tokens of the cross-entropy in nats: 0-d fp32. Divide by the masked tokens of the
  /// global batch for the mean. Throws ConfigError when a cell is longer than max_tokens.
  [[nodiscard]] at::Tensor masked_loss_sum(const TokenTensors& input, ForwardContext& context) const;

  [[nodiscard]] ops::ParameterSet& parameters() { return *parameters_; }
  [[nodiscard]] const ops::ParameterSet& parameters() const { return *parameters_; }
  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] int64_t vocabulary_size() const { return vocabulary_size_; }
  [[nodiscard]] int64_t max_tokens() const { return max_tokens_; }
  [[nodiscard]] at::Device device() const;
  /// Which attention implementation runs, and why: one line for the log.
  [[nodiscard]] std::string describe_attention(at::ScalarType compute_type) const;

 private:
  ModelConfig config_;
  int64_t vocabulary_size_;
  int64_t max_tokens_;
  at::Tensor gene_embedding_;  // [G, D]
  at::Tensor rank_embedding_;  // [max_tokens, D]
  std::vector<Block> blocks_;
  LayerNorm final_norm_;
  Linear head_;  // [G, D]
  std::unique_ptr<ops::ParameterSet> parameters_;
};

/// Name of block `index` in parameter names and metrics: "layer_00".
std::string layer_name(int64_t index);

}  // namespace scrna::model
