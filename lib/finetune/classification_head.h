// The classification head: a linear map from a cell's embedding, standardised by mean and deviation of the
// training cells, to one number for each class, and its cross-entropy. Linear, because what a cell is should
// be in the embedding; standardised, so that one learning rate fits columns of any scale and models of any
// kind. The standardisation is measured once, before the first step, and is part of the head from then on.
// Gradients are closed forms (tests/finetune/classification_head_test.cpp compares them with autograd in
// fp64); the pooling before the head is embed's, eval::pool_cells().
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include <ATen/core/Tensor.h>

#include "lib/ops/parameters.h"

namespace scrna::finetune {

/// The head's numbers by themselves, fp32 on the CPU: what is saved, and what predicts.
struct HeadWeights {
  at::Tensor mean;       // [D] of the training cells' embeddings
  at::Tensor deviation;  // [D] above 0
  at::Tensor weight;     // [C, D]
  at::Tensor bias;       // [C]

  /// Probabilities [B, C] fp32 of rows [B, D] fp32 on the CPU, computed in fp64: what stands beside a row
  /// shows in the last bit of fp32 at most. A row of NaN gives NaN.
  [[nodiscard]] at::Tensor probabilities(const at::Tensor& rows_BD) const;
};

/// Mean and deviation [D] of rows [B, D], for the standardisation. Deviations below a hundredth of their mean
/// are raised to it: a column that hardly differs between cells must not be blown up to noise. All 0: 1.
std::pair<at::Tensor, at::Tensor> standardisation_of(const at::Tensor& rows_BD);

class ClassificationHead {
 public:
  /// Weights drawn by (seed), bias 0. mean, deviation: [D].
  ClassificationHead(const at::Tensor& mean, const at::Tensor& deviation, int64_t num_classes, uint64_t seed,
                     at::Device device);
  ClassificationHead(const ClassificationHead&) = delete;
  ClassificationHead& operator=(const ClassificationHead&) = delete;

  /// Logits [B, C] fp32 of pooled [B, D] fp32.
  [[nodiscard]] at::Tensor logits(const at::Tensor& pooled_BD) const;

  struct Loss {
    at::Tensor sum;          // 0-d fp64 on the device: weighted cross-entropy in nats, not scaled
    at::Tensor d_pooled_BD;  // fp32: `scale` times its gradient
  };
  /// targets [B] int64, weights [B] fp32 of the cells, on the device. Adds `scale` times the gradients of the
  /// sum to the parameters'. Does not wait for a GPU.
  Loss loss_with_gradients(const at::Tensor& pooled_BD, const at::Tensor& targets_B,
                           const at::Tensor& weights_B, double scale);

  [[nodiscard]] ops::ParameterSet& parameters() { return *parameters_; }
  /// A copy.
  [[nodiscard]] HeadWeights weights() const;

 private:
  [[nodiscard]] at::Tensor standardised(const at::Tensor& pooled_BD) const;

  at::Tensor mean_, inverse_deviation_;  // [D] on the device
  at::Tensor deviation_;                 // [D] on the CPU
  at::Tensor weight_, bias_;             // [C, D], [C]
  std::unique_ptr<ops::ParameterSet> parameters_;
};

/// The gradient of pooled rows [B, D] spread over the tokens [T, D] whose mean they are
/// (eval::Pooling::kMean; <cls>, where has_cls, gets none), in `type`. cu_seqlens_host [B+1] int32.
at::Tensor spread_over_tokens(const at::Tensor& d_pooled_BD, const at::Tensor& cu_seqlens_host, bool has_cls,
                              at::ScalarType type);

}  // namespace scrna::finetune
