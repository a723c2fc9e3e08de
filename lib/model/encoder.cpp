#include "lib/model/encoder.h"

#include <utility>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "lib/core/error.h"
#include "lib/model/initialisation.h"
#include "lib/ops/dropout.h"

namespace scrna::model {
namespace {

constexpr const char* kEmbeddingLayer = "embedding";
constexpr const char* kHeadLayer = "head";

// Declares parameters one after another; ParameterSet packs them afterwards.
class Declarer {
 public:
  Declarer(const ModelConfig& config, uint64_t seed) : config_(config), seed_(seed) {}

  at::Tensor matrix(const std::string& name, const std::string& layer, int64_t rows, int64_t columns) {
    return add(name, layer, normal_values({rows, columns}, config_.initializer_range, seed_, name), true);
  }
  Linear linear(const std::string& name, const std::string& layer, int64_t out, int64_t in) {
    return {matrix(name + ".weight", layer, out, in), add(name + ".bias", layer, at::zeros({out}), false)};
  }
  LayerNorm layer_norm(const std::string& name, const std::string& layer) {
    return {add(name + ".weight", layer, at::ones({config_.width}), false),
            add(name + ".bias", layer, at::zeros({config_.width}), false), config_.layer_norm_epsilon};
  }
  std::vector<ops::Parameter> take() { return std::move(parameters_); }

 private:
  at::Tensor add(const std::string& name, const std::string& layer, at::Tensor value, bool weight_decay) {
    value.requires_grad_(true);
    parameters_.push_back({name, value, layer, weight_decay});
    return value;
  }
  const ModelConfig& config_;
  uint64_t seed_;
  std::vector<ops::Parameter> parameters_;
};

}  // namespace

std::string layer_name(int64_t index) { return fmt::format("layer_{:02}", index); }

Encoder::Encoder(const ModelConfig& config, int64_t vocabulary_size, int64_t max_tokens, uint64_t seed,
                 at::Device device)
    : config_(config), vocabulary_size_(vocabulary_size), max_tokens_(max_tokens) {
  Declarer declare(config, seed);
  gene_embedding_ = declare.matrix("embedding.gene.weight", kEmbeddingLayer, vocabulary_size, config.width);
  rank_embedding_ = declare.matrix("embedding.rank.weight", kEmbeddingLayer, max_tokens, config.width);
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const std::string layer = layer_name(index);
    Block block;
    block.attention_norm = declare.layer_norm(layer + ".attention.norm", layer);
    block.qkv_projection = declare.linear(layer + ".attention.qkv", layer, 3 * config.width, config.width);
    block.attention_output = declare.linear(layer + ".attention.output", layer, config.width, config.width);
    block.feed_forward_norm = declare.layer_norm(layer + ".feed_forward.norm", layer);
    block.feed_forward_in =
        declare.linear(layer + ".feed_forward.in", layer, config.feed_forward_width, config.width);
    block.feed_forward_out =
        declare.linear(layer + ".feed_forward.out", layer, config.width, config.feed_forward_width);
    blocks_.push_back(std::move(block));
  }
  final_norm_ = declare.layer_norm("head.norm", kHeadLayer);
  head_ = declare.linear("head.output", kHeadLayer, vocabulary_size, config.width);
  // The tensors above are handles: packing and moving re-points them at the flat buffers.
  parameters_ = std::make_unique<ops::ParameterSet>(declare.take());
  parameters_->to(device);
}

at::Device Encoder::device() const { return parameters_->values().device(); }

at::Tensor Encoder::hidden_states(const TokenTensors& input, ForwardContext& context) const {
  if (input.max_cell_tokens > max_tokens_) {
    throw ConfigError("a cell has {} tokens, but the model has {} rank positions; lower tokenizer.max_tokens",
                      input.max_cell_tokens, max_tokens_);
  }
  context.max_scores.clear();
  at::Tensor x =
      at::embedding(gene_embedding_, input.tokens).add(at::embedding(rank_embedding_, input.ranks));
  if (context.training && config_.dropout > 0) {
    x = ops::dropout(x, input.cu_seqlens, input.cell_ids,
                     {.seed = context.seed,
                      .step = context.step,
                      .layer = static_cast<uint32_t>(config_.num_layers),
                      .site = 0,
                      .probability = config_.dropout});
  }
  for (std::size_t index = 0; index < blocks_.size(); ++index) {
    x = blocks_[index](x, input, static_cast<int64_t>(index), config_, context);
  }
  return final_norm_(x);
}

at::Tensor Encoder::masked_loss_sum(const TokenTensors& input, ForwardContext& context) const {
  const at::Tensor masked_MD = at::index_select(hidden_states(input, context), 0, input.masked_positions);
  const at::Tensor logits_MG = head_(masked_MD, context.compute_type).to(at::kFloat);
  return at::cross_entropy_loss(logits_MG, input.masked_targets, /*weight=*/{}, at::Reduction::Sum);
}

std::string Encoder::describe_attention(at::ScalarType compute_type) const {
  const ops::AttentionChoice choice =
      ops::choose_attention(device(), compute_type, config_.head_width(), attention_options(config_));
  return fmt::format("{} attention, head width {}: {} ({})",
                     config_.attention == Attention::kSigmoid ? "sigmoid" : "softmax", config_.head_width(),
                     choice.implementation == ops::Implementation::kKernel
                         ? "own kernel"
                         : "composed of LibTorch operations",
                     choice.reason);
}

}  // namespace scrna::model
