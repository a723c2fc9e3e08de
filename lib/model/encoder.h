// The bidirectional encoder over ragged packs of gene tokens, with its masked-gene head. Pre-LayerNorm
// blocks, gene and rank-position embeddings, final LayerNorm, untied output head (arXiv 2604.27124; see
// model_config.h). Everything runs on the T packed tokens of a micro-batch; there is no padding to mask.
//
// Weights, gradients and sums over tokens are fp32. Products and attention have the compute type; in bf16
// they read a copy of the weights (ParameterSet::compute_values). Autograd records the blocks alone: the
// embeddings' and the head's gradients are added straight into the flat buffer, and those of the head are
// made during the forward pass, while its logits exist (lib/ops/linear_cross_entropy.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/model/block.h"
#include "lib/model/context.h"
#include "lib/model/model_config.h"
#include "lib/ops/linear_cross_entropy.h"
#include "lib/ops/parameters.h"

namespace scrna::model {

class Encoder;

/// A forward pass whose backward pass has yet to run. The encoder and its weights must stay as they are until
/// then.
class TrainingPass {
 public:
  /// 0-d fp32 on the device: sum over the masked tokens of the cross-entropy in nats.
  [[nodiscard]] const at::Tensor& loss_sum() const { return loss_sum_; }
  /// Adds the rest of the gradients to the encoder's. To be called once.
  void backward();

 private:
  friend class Encoder;
  const Encoder* encoder_ = nullptr;
  TokenTensors input_;
  std::optional<ops::CellDropout> embedding_dropout_;
  at::Tensor embedding_TD_;             // leaf that the blocks' backward pass ends at
  at::Tensor masked_MD_, d_masked_MD_;  // hidden rows of the masked tokens and their gradient
  at::Tensor loss_sum_;
};

/// A recorded forward pass up to the tokens of the last layer, for a loss that is not the masked-gene one: a
/// classification head (lib/finetune). As above, the encoder and its weights must stay until backward() has run.
class HiddenPass {
 public:
  /// [T, D] of the compute type, after the final LayerNorm; no part of a graph.
  [[nodiscard]] at::Tensor hidden() const;
  /// d_hidden [T, D] of the same type: the gradient of the loss. Adds that of every parameter but the output head's
  /// to the encoder's. To be called once.
  void backward(const at::Tensor& d_hidden);

 private:
  friend class Encoder;
  const Encoder* encoder_ = nullptr;
  TokenTensors input_;
  std::optional<ops::CellDropout> embedding_dropout_;
  at::Tensor embedding_TD_;  // leaf that the blocks' backward pass ends at
  at::Tensor hidden_TD_;
};

/// When the gradient of a parameter has received its last contribution of a micro-batch.
enum class GradientMoment {
  kForward,   // when forward_for_training() returns: the output head's, made while its logits exist
  kBackward,  // when autograd has visited the parameter, during backward(): the blocks' and the final
              // LayerNorm's
  kEnd        // when backward() returns: the embeddings'
};

class Encoder {
 public:
  /// vocabulary_size: G, specials included; max_tokens: longest cell, the number of rank positions.
  /// Weights are drawn on the CPU (same seed, same model) and moved to `device`. compute_type: fp32 or bf16.
  Encoder(const ModelConfig& config, int64_t vocabulary_size, int64_t max_tokens, uint64_t seed,
          at::Device device, at::ScalarType compute_type = at::kFloat);
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  /// Contextual embedding of every token: [T, D] fp32, after the final LayerNorm; computed in the compute
  /// type, without gradients. Throws ConfigError when a cell is longer than max_tokens.
  [[nodiscard]] at::Tensor hidden_states(const TokenTensors& input, ForwardContext& context) const;
  /// The same after `num_blocks` blocks, from 0 (the embeddings) to L, without a copy to fp32: after all
  /// blocks the final LayerNorm's result in the compute type, before that the residual stream in its own
  /// type. Throws InternalError for another number.
  [[nodiscard]] at::Tensor hidden_states_after(int64_t num_blocks, const TokenTensors& input,
                                               ForwardContext& context) const;

  /// Sum over the masked tokens of the cross-entropy in nats: 0-d fp32 on the device, without gradients.
  /// Divide by the masked tokens of the global batch for the mean. Throws as hidden_states().
  [[nodiscard]] at::Tensor masked_loss_sum(const TokenTensors& input, ForwardContext& context) const;

  /// The same loss, recorded. After backward() on the result, `scale` times its gradient has been added to
  /// that of every parameter. Nothing waits for a GPU. Throws as hidden_states().
  [[nodiscard]] TrainingPass forward_for_training(const TokenTensors& input, double scale,
                                                  ForwardContext& context);

  /// The tokens of the last layer, recorded, without the output head. Nothing waits for a GPU. Throws as
  /// hidden_states().
  [[nodiscard]] HiddenPass hidden_for_training(const TokenTensors& input, ForwardContext& context) const;

  /// After values changed without ops::adamw_update, call refresh_compute_values() on it.
  [[nodiscard]] ops::ParameterSet& parameters() { return *parameters_; }
  [[nodiscard]] const ops::ParameterSet& parameters() const { return *parameters_; }
  /// Of parameters().all()[parameter].
  [[nodiscard]] GradientMoment gradient_moment(std::size_t parameter) const;
  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] int64_t vocabulary_size() const { return vocabulary_size_; }
  [[nodiscard]] int64_t max_tokens() const { return max_tokens_; }
  [[nodiscard]] at::Device device() const;
  /// Type of matrix products and attention.
  [[nodiscard]] at::ScalarType compute_type() const { return parameters_->compute_type(); }
  /// Which attention implementation runs, and why: one line for the log.
  [[nodiscard]] std::string describe_attention() const;

 private:
  friend class TrainingPass;
  friend class HiddenPass;
  void add_embedding_gradients(const TokenTensors& input, const at::Tensor& d_embedding_TD,
                               const std::optional<ops::CellDropout>& dropout) const;
  [[nodiscard]] at::Tensor embed(const TokenTensors& input,
                                 const std::optional<ops::CellDropout>& dropout) const;
  [[nodiscard]] at::Tensor hidden_after_blocks(const at::Tensor& embedding, const TokenTensors& input,
                                               ForwardContext& context) const;
  /// The head as linear_cross_entropy takes it: rows up to a multiple of 64, from a flat buffer of the
  /// parameters.
  [[nodiscard]] at::Tensor head_weight(const at::Tensor& flat) const;
  [[nodiscard]] at::Tensor head_bias(const at::Tensor& flat) const;
  [[nodiscard]] ops::LinearCrossEntropyOptions head_options() const;

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

/// Type of the residual stream: fp32 unless the configuration asks for bf16 and the compute type is bf16.
at::ScalarType residual_type(const ModelConfig& config, at::ScalarType compute_type);

}  // namespace scrna::model
