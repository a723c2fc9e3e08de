// Architecture of the encoder: the `model` section of a run's configuration. The defaults are the 160M model
// of arXiv 2604.27124, Table 2. What the paper does not say (rank positions as learned embeddings, an untied
// output head, biases everywhere, no <cls>) follows the parameter count it states; notes in
// configs/README.md.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "lib/config/bound.h"
#include "lib/core/error.h"

namespace scrna::model {

enum class Attention { kSigmoid, kSoftmax };
constexpr auto enum_names(Attention) {
  return std::array{std::pair{std::string_view("sigmoid"), Attention::kSigmoid},
                    std::pair{std::string_view("softmax"), Attention::kSoftmax}};
}

enum class AttentionKernel { kAuto, kComposed, kFused };
constexpr auto enum_names(AttentionKernel) {
  return std::array{std::pair{std::string_view("auto"), AttentionKernel::kAuto},
                    std::pair{std::string_view("composed"), AttentionKernel::kComposed},
                    std::pair{std::string_view("fused"), AttentionKernel::kFused}};
}

/// Of the sigmoid in our CUDA kernels (kernels::SigmoidPrecision, kernels/attention.h).
enum class AttentionPrecision { kExact, kFast };
constexpr auto enum_names(AttentionPrecision) {
  return std::array{std::pair{std::string_view("exact"), AttentionPrecision::kExact},
                    std::pair{std::string_view("fast"), AttentionPrecision::kFast}};
}

/// Of GELU in a bf16 pass on a GPU that records no gradients.
enum class GeluPrecision { kExact, kFast };
constexpr auto enum_names(GeluPrecision) {
  return std::array{std::pair{std::string_view("exact"), GeluPrecision::kExact},
                    std::pair{std::string_view("fast"), GeluPrecision::kFast}};
}

/// Of the residual stream in a pass that computes in bf16.
enum class ResidualPrecision { kFp32, kBf16 };
constexpr auto enum_names(ResidualPrecision) {
  return std::array{std::pair{std::string_view("fp32"), ResidualPrecision::kFp32},
                    std::pair{std::string_view("bf16"), ResidualPrecision::kBf16}};
}

/// What is added to the scores of sigmoid attention before the sigmoid.
enum class AttentionBias { kNegativeLogLength, kZero };
constexpr auto enum_names(AttentionBias) {
  return std::array{std::pair{std::string_view("negative_log_length"), AttentionBias::kNegativeLogLength},
                    std::pair{std::string_view("zero"), AttentionBias::kZero}};
}

/// Of queries and keys, per head, before their product (Henry et al., arXiv 2010.04245; Dehghani et al., 2302.05442).
enum class QkNorm { kNone, kLayerNorm, kRmsNorm };
constexpr auto enum_names(QkNorm) {
  return std::array{std::pair{std::string_view("none"), QkNorm::kNone},
                    std::pair{std::string_view("layer_norm"), QkNorm::kLayerNorm},
                    std::pair{std::string_view("rms_norm"), QkNorm::kRmsNorm}};
}

struct ModelConfig {
  Attention attention = Attention::kSigmoid;
  AttentionBias attention_bias = AttentionBias::kNegativeLogLength;
  QkNorm qk_norm = QkNorm::kNone;
  int64_t num_layers = 12;            // L
  int64_t width = 768;                // D
  int64_t num_heads = 12;             // H
  int64_t feed_forward_width = 3072;  // F
  double dropout = 0.02;
  double layer_norm_epsilon = 1e-5;
  double initializer_range = 0.02;
  AttentionKernel attention_kernel = AttentionKernel::kAuto;
  AttentionPrecision attention_precision = AttentionPrecision::kExact;
  bool attention_deterministic = false;
  ResidualPrecision residual_precision = ResidualPrecision::kFp32;
  GeluPrecision gelu_precision = GeluPrecision::kExact;

  template <class V>
  void visit(V&& v) {
    v("attention", attention,
      "sigmoid: sigmoid(QK/sqrt(K) - log n) V, n = tokens of the cell; softmax: the usual");
    v("attention_bias", attention_bias,
      "of sigmoid attention: negative_log_length, -log of the cell's tokens; zero, every token attends to half of all others "
      "at first, which the paper warns of. Softmax has none");
    v("qk_norm", qk_norm,
      "normalises each head's queries and keys before their product, with learned gains (layer_norm: and offsets): bounds the "
      "scores. By LibTorch's operations: slower, and takes memory. none: as the paper");
    v("num_layers", num_layers, "encoder blocks", config::between(1, 256));
    v("width", width, "hidden width D, a multiple of num_heads", config::between(8, 65536));
    v("num_heads", num_heads, "attention heads", config::between(1, 1024));
    v("feed_forward_width", feed_forward_width, "inner width of the feed-forward layers",
      config::between(8, 262144));
    v("dropout", dropout, "probability of zeroing an activation, on embeddings and on each residual branch",
      config::from_to_below(0, 1));
    v("layer_norm_epsilon", layer_norm_epsilon, "added to the variance in LayerNorm", config::above(0));
    v("initializer_range", initializer_range, "standard deviation of the initial weights", config::above(0));
    v("attention_kernel", attention_kernel,
      "auto: our kernel where this device has one for this kind of attention, LibTorch's FlashAttention-2 "
      "for "
      "softmax on a GPU (a type or head width that either does not take is an error), otherwise composed; "
      "composed: plain LibTorch operations; fused: our kernel or an error");
    v("attention_precision", attention_precision,
      "of the sigmoid in our CUDA kernels. exact: every attention weight right to the rounding of bf16; "
      "fast: the "
      "GPU's tanh.approx, up to 4e-6 off, attention up to a tenth faster. The CPU, composed and softmax "
      "attention "
      "are always exact");
    v("attention_deterministic", attention_deterministic,
      "on a GPU: gradients of attention summed in a fixed order, so that a run done again, resumed or with "
      "other "
      "train.recompute has the same bits; attention's backward pass takes up to half as long again. The "
      "CPU's always are");
    v("residual_precision", residual_precision,
      "of the residual stream between blocks where train.precision is bf16. fp32: as PyTorch's autocast; "
      "bf16: each "
      "branch's sum is rounded, a step is some percent faster and takes a tenth less memory");
    v("gelu_precision", gelu_precision,
      "of GELU where a GPU computes in bf16 without gradients: embedding, evaluation, held-out losses. fast: the "
      "approximation by tanh, up to 5e-4 off, inside the matrix product, and so without a pass over memory. "
      "Training steps, fp32 and the CPU are always exact");
  }

  [[nodiscard]] int64_t head_width() const { return width / num_heads; }

  void validate(const std::string& path) const {
    if (width % num_heads != 0) {
      throw ConfigError(
          "{}.width: {} is not a multiple of {}.num_heads = {}; every head has width / num_heads columns",
          path, width, path, num_heads);
    }
  }
};

}  // namespace scrna::model
