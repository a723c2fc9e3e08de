// AdamW (Loshchilov & Hutter, arXiv 1711.05101) over the flat buffers of a ParameterSet: owner of the moments and of
// the number of updates; the arithmetic, clipping included, is ops::adamw_update, one pass that never asks the host.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "lib/ops/parameters.h"
#include "lib/optim/optim_config.h"

namespace scrna::optim {

class AdamW {
 public:
  /// The parameters must outlive this object and stay on their device.
  AdamW(ops::ParameterSet& parameters, const OptimConfig& config);

  /// One update of the parameters and of their copy for products from the gradients they hold, which stay as they are.
  /// squares: ParameterSet::squared_gradient_norm_per_layer(), whose root of the sum is clipped to clip_norm. loss: one
  /// fp32 number on the device, or undefined. Unless norm and loss are finite, nothing changes. Returns [3] fp64 on the
  /// device: norm before clipping, clipping factor, 1 if applied or 0. Does not wait for a GPU.
  at::Tensor step(double learning_rate, const at::Tensor& squares, const at::Tensor& loss);

  [[nodiscard]] const at::Tensor& mean() const { return mean_; }                  // [N] exp_avg
  [[nodiscard]] const at::Tensor& squared_mean() const { return squared_mean_; }  // [N] exp_avg_sq
  /// Updates applied so far: they drive the bias correction. Waits for the device.
  [[nodiscard]] int64_t num_updates() const;
  /// For resuming: the contents of mean() and squared_mean() are restored in place by the caller.
  void set_num_updates(int64_t num_updates);

 private:
  ops::ParameterSet& parameters_;
  OptimConfig config_;
  at::Tensor mean_, squared_mean_;
  at::Tensor num_updates_;  // 0-d int64 on the device
};

}  // namespace scrna::optim
