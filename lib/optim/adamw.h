// AdamW (Loshchilov & Hutter, arXiv 1711.05101) over flat fp32 buffers: one fused LibTorch kernel for the decayed
// prefix and one for the rest, instead of the nine kernels per parameter of torch::optim::AdamW.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "lib/optim/optim_config.h"

namespace scrna::optim {

class AdamW {
 public:
  /// values, gradients [N] fp32; weight decay applies to the first num_decayed elements.
  AdamW(at::Tensor values, at::Tensor gradients, int64_t num_decayed, const OptimConfig& config);
  /// One update with this learning rate; the number of updates so far drives the bias correction.
  void step(double learning_rate);

  [[nodiscard]] const at::Tensor& mean() const { return mean_; }                  // [N] exp_avg
  [[nodiscard]] const at::Tensor& squared_mean() const { return squared_mean_; }  // [N] exp_avg_sq
  [[nodiscard]] int64_t num_updates() const { return num_updates_; }
  /// For resuming: the contents of mean() and squared_mean() are restored in place by the caller.
  void set_num_updates(int64_t num_updates);

 private:
  at::Tensor values_, gradients_, mean_, squared_mean_;
  at::Tensor update_counter_;  // fp32 scalar on the device, as the fused kernel wants it
  int64_t num_decayed_;
  int64_t num_updates_ = 0;
  OptimConfig config_;
};

/// Scales gradients by clip_norm / norm when norm exceeds clip_norm; clip_norm 0 leaves them alone.
void clip_by_global_norm(const at::Tensor& gradients, double norm, double clip_norm);

}  // namespace scrna::optim
