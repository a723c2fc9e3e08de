#include "lib/model/encoder.h"

#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include "lib/core/error.h"
#include "lib/model/initialisation.h"
#include "lib/ops/embedding.h"

namespace scrna::model {
namespace {

constexpr const char* kEmbeddingLayer = "embedding";
constexpr const char* kHeadLayer = "head";
// Products with 43,804 columns run at a third of the speed of those with 43,840
// (lib/ops/linear_cross_entropy.h).
constexpr int64_t kHeadRowMultiple = 64;

int64_t padded_head_rows(int64_t vocabulary_size) {
  return (vocabulary_size + kHeadRowMultiple - 1) / kHeadRowMultiple * kHeadRowMultiple;
}

// Declares parameters one after another; ParameterSet packs them afterwards.
class Declarer {
 public:
  Declarer(const ModelConfig& config, uint64_t seed) : config_(config), seed_(seed) {}

  at::Tensor matrix(const std::string& name, const std::string& layer, int64_t rows, int64_t columns) {
    return add(name, layer, normal_values({rows, columns}, config_.initializer_range, seed_, name), true);
  }
  Linear linear(const std::string& name, const std::string& layer, int64_t out, int64_t in,
                int64_t reserved_rows = 0) {
    Linear result;
    result.weight = matrix(name + ".weight", layer, out, in);
    parameters_.back().reserved_rows = reserved_rows;
    result.bias = add(name + ".bias", layer, at::zeros({out}), false);
    parameters_.back().reserved_rows = reserved_rows;
    return result;
  }
  LayerNorm layer_norm(const std::string& name, const std::string& layer) {
    return {add(name + ".weight", layer, at::ones({config_.width}), false),
            add(name + ".bias", layer, at::zeros({config_.width}), false), config_.layer_norm_epsilon};
  }
  /// Of queries and keys, where the configuration has them.
  void head_norms(const std::string& name, const std::string& layer, Block& block) {
    if (config_.qk_norm == QkNorm::kNone) return;
    for (const auto& [norm, suffix] : {std::pair{&block.query_norm, ".query_norm"}, {&block.key_norm, ".key_norm"}}) {
      norm->gamma = add(name + suffix + ".weight", layer, at::ones({config_.head_width()}), false);
      if (config_.qk_norm == QkNorm::kLayerNorm) {
        norm->beta = add(name + suffix + ".bias", layer, at::zeros({config_.head_width()}), false);
      }
      norm->epsilon = config_.layer_norm_epsilon;
    }
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

at::ScalarType residual_type(const ModelConfig& config, at::ScalarType compute_type) {
  return config.residual_precision == ResidualPrecision::kBf16 ? compute_type : at::kFloat;
}

std::string layer_name(int64_t index) { return fmt::format("layer_{:02}", index); }

Encoder::Encoder(const ModelConfig& config, int64_t vocabulary_size, int64_t max_tokens, uint64_t seed,
                 at::Device device, at::ScalarType compute_type)
    : config_(config), vocabulary_size_(vocabulary_size), max_tokens_(max_tokens) {
  Declarer declare(config, seed);
  gene_embedding_ = declare.matrix("embedding.gene.weight", kEmbeddingLayer, vocabulary_size, config.width);
  rank_embedding_ = declare.matrix("embedding.rank.weight", kEmbeddingLayer, max_tokens, config.width);
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const std::string layer = layer_name(index);
    Block block;
    block.attention_norm = declare.layer_norm(layer + ".attention.norm", layer);
    block.qkv_projection = declare.linear(layer + ".attention.qkv", layer, 3 * config.width, config.width);
    declare.head_norms(layer + ".attention", layer, block);
    block.attention_output = declare.linear(layer + ".attention.output", layer, config.width, config.width);
    block.feed_forward_norm = declare.layer_norm(layer + ".feed_forward.norm", layer);
    block.feed_forward_in =
        declare.linear(layer + ".feed_forward.in", layer, config.feed_forward_width, config.width);
    block.feed_forward_out =
        declare.linear(layer + ".feed_forward.out", layer, config.width, config.feed_forward_width);
    blocks_.push_back(std::move(block));
  }
  final_norm_ = declare.layer_norm("head.norm", kHeadLayer);
  head_ = declare.linear("head.output", kHeadLayer, vocabulary_size, config.width,
                         padded_head_rows(vocabulary_size));
  // The tensors above are handles: packing and moving re-points them at the flat buffers.
  parameters_ = std::make_unique<ops::ParameterSet>(declare.take());
  parameters_->to(device);
  parameters_->set_compute_type(compute_type);
  for (Block& block : blocks_) {
    for (Linear* layer :
         {&block.qkv_projection, &block.attention_output, &block.feed_forward_in, &block.feed_forward_out}) {
      use_compute_values(*layer, *parameters_);
    }
  }
}

at::Device Encoder::device() const { return parameters_->values().device(); }

at::Tensor Encoder::embed(const TokenTensors& input, const std::optional<ops::CellDropout>& dropout) const {
  if (input.max_cell_tokens > max_tokens_) {
    throw ConfigError("a cell has {} tokens, but the model has {} rank positions; lower tokenizer.max_tokens",
                      input.max_cell_tokens, max_tokens_);
  }
  const at::NoGradGuard no_grad;
  return ops::embed({gene_embedding_, input.tokens}, {rank_embedding_, input.ranks},
                    residual_type(config_, compute_type()), dropout);
}

at::Tensor Encoder::hidden_after_blocks(const at::Tensor& embedding, const TokenTensors& input,
                                        ForwardContext& context) const {
  context.max_scores.clear();
  context.layer_statistics.clear();
  context.is_recorded = embedding.requires_grad();
  Stream stream{embedding, {}, std::nullopt};
  for (std::size_t index = 0; index < blocks_.size(); ++index) {
    stream = blocks_[index](stream, input, static_cast<int64_t>(index), config_, context);
  }
  return add_and_normalise(stream, final_norm_, compute_type()).y;
}

at::Tensor Encoder::hidden_states(const TokenTensors& input, ForwardContext& context) const {
  const at::NoGradGuard no_grad;
  const at::Tensor embedding = embed(input, dropout_at(config_.num_layers, 0, input, config_, context));
  return hidden_after_blocks(embedding, input, context).to(at::kFloat);
}

at::Tensor Encoder::hidden_states_after(int64_t num_blocks, const TokenTensors& input,
                                        ForwardContext& context) const {
  SCRNA_CHECK(num_blocks >= 0 && num_blocks <= config_.num_layers, "{} of {} blocks", num_blocks,
              config_.num_layers);
  const at::NoGradGuard no_grad;
  const at::Tensor embedding = embed(input, dropout_at(config_.num_layers, 0, input, config_, context));
  if (num_blocks == config_.num_layers) return hidden_after_blocks(embedding, input, context);
  context.is_recorded = false;
  Stream stream{embedding, {}, std::nullopt};
  for (int64_t index = 0; index < num_blocks; ++index) {
    stream = blocks_[static_cast<std::size_t>(index)](stream, input, index, config_, context);
  }
  // The block's last branch has not been added; the norm that comes with the sum is not used.
  return num_blocks == 0 ? stream.h : add_and_normalise(stream, final_norm_, compute_type()).h;
}

at::Tensor Encoder::head_weight(const at::Tensor& flat) const {
  return parameters_->with_reserve(flat, parameters_->index_of(head_.weight));
}

at::Tensor Encoder::head_bias(const at::Tensor& flat) const {
  return parameters_->with_reserve(flat, parameters_->index_of(head_.bias));
}

ops::LinearCrossEntropyOptions Encoder::head_options() const {
  return {.compute_type = compute_type(), .num_classes = vocabulary_size_};
}

at::Tensor Encoder::masked_loss_sum(const TokenTensors& input, ForwardContext& context) const {
  const at::NoGradGuard no_grad;
  const at::Tensor embedding = embed(input, dropout_at(config_.num_layers, 0, input, config_, context));
  const at::Tensor hidden_TD = hidden_after_blocks(embedding, input, context);
  const at::Tensor& values = parameters_->compute_values();
  return ops::linear_cross_entropy({.hidden = ops::select_rows(hidden_TD, input.masked_positions),
                                    .weight = head_weight(values),
                                    .bias = head_bias(values),
                                    .targets = input.masked_targets},
                                   head_options());
}

TrainingPass Encoder::forward_for_training(const TokenTensors& input, double scale, ForwardContext& context) {
  const at::AutoGradMode recorded(true);  // also when the caller's code records nothing
  TrainingPass pass;
  pass.encoder_ = this;
  pass.input_ = input;
  pass.embedding_dropout_ = dropout_at(config_.num_layers, 0, input, config_, context);
  pass.embedding_TD_ = embed(input, pass.embedding_dropout_).requires_grad_();
  pass.masked_MD_ =
      ops::select_rows(hidden_after_blocks(pass.embedding_TD_, input, context), input.masked_positions);
  pass.d_masked_MD_ = at::empty_like(pass.masked_MD_);
  const at::Tensor &values = parameters_->compute_values(), &gradients = parameters_->gradients();
  pass.loss_sum_ = ops::linear_cross_entropy_with_gradients(
      {.hidden = pass.masked_MD_.detach(),
       .weight = head_weight(values),
       .bias = head_bias(values),
       .targets = input.masked_targets},
      scale,
      {.d_hidden = pass.d_masked_MD_, .d_weight = head_weight(gradients), .d_bias = head_bias(gradients)},
      head_options());
  return pass;
}

void TrainingPass::backward() {
  torch::autograd::backward({masked_MD_}, {d_masked_MD_});
  masked_MD_.reset();
  d_masked_MD_.reset();
  encoder_->add_embedding_gradients(input_, embedding_TD_.grad(), embedding_dropout_);
  embedding_TD_.reset();
}

void Encoder::add_embedding_gradients(const TokenTensors& input, const at::Tensor& d_embedding_TD,
                                      const std::optional<ops::CellDropout>& dropout) const {
  ops::add_embedding_gradient(gene_embedding_.grad(), input.tokens, d_embedding_TD, dropout);
  ops::add_embedding_gradient(rank_embedding_.grad(), input.ranks, d_embedding_TD, dropout);
}

HiddenPass Encoder::hidden_for_training(const TokenTensors& input, ForwardContext& context) const {
  const at::AutoGradMode recorded(true);  // also when the caller's code records nothing
  HiddenPass pass;
  pass.encoder_ = this;
  pass.input_ = input;
  pass.embedding_dropout_ = dropout_at(config_.num_layers, 0, input, config_, context);
  pass.embedding_TD_ = embed(input, pass.embedding_dropout_).requires_grad_();
  pass.hidden_TD_ = hidden_after_blocks(pass.embedding_TD_, input, context);
  return pass;
}

at::Tensor HiddenPass::hidden() const { return hidden_TD_.detach(); }

void HiddenPass::backward(const at::Tensor& d_hidden) {
  torch::autograd::backward({hidden_TD_}, {d_hidden});
  hidden_TD_.reset();
  encoder_->add_embedding_gradients(input_, embedding_TD_.grad(), embedding_dropout_);
  embedding_TD_.reset();
}

GradientMoment Encoder::gradient_moment(std::size_t parameter) const {
  const at::Tensor& value = parameters_->all().at(parameter).value;
  if (value.is_same(head_.weight) || value.is_same(head_.bias)) return GradientMoment::kForward;
  if (value.is_same(gene_embedding_) || value.is_same(rank_embedding_)) return GradientMoment::kEnd;
  return GradientMoment::kBackward;
}

std::string Encoder::describe_attention() const {
  const auto name_of = [](ops::Implementation implementation) {
    switch (implementation) {
      case ops::Implementation::kKernel:
        return "own kernel";
      case ops::Implementation::kFlash:
        return "LibTorch's flash attention";
      default:
        return "composed of LibTorch operations";
    }
  };
  const ops::AttentionChoice choice =
      ops::choose_attention(device(), compute_type(), config_.head_width(), attention_options(config_));
  const bool is_sigmoid = config_.attention == Attention::kSigmoid;
  const bool has_fast_form =
      is_sigmoid && device().is_cuda() && choice.implementation == ops::Implementation::kKernel;
  const bool is_fast = has_fast_form && config_.attention_precision == AttentionPrecision::kFast;
  return fmt::format("{}{} attention, head width {}: {} ({})",
                     is_sigmoid ? (is_fast ? "fast " : "exact ") : "", is_sigmoid ? "sigmoid" : "softmax",
                     config_.head_width(), name_of(choice.implementation), choice.reason);
}

}  // namespace scrna::model
