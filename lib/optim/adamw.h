// AdamW (Loshchilov & Hutter, arXiv 1711.05101) over the flat buffers of a ParameterSet: owner of the moments and of
// the number of updates; the arithmetic, clipping included, is ops::adamw_update, one pass that never asks the host.
// It may own a part of the buffer only (one rank of several that share the state): then it keeps moments for that part
// and updates nothing else.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "lib/core/element_range.h"
#include "lib/ops/parameters.h"
#include "lib/optim/optim_config.h"

namespace scrna::optim {

class AdamW {
 public:
  /// The parameters must outlive this object and stay on their device. own: disjoint ranges of the flat buffer, in
  /// multiples of ops::kParameterAlignment; empty: all of it.
  AdamW(ops::ParameterSet& parameters, const OptimConfig& config, std::vector<ElementRange> own = {});

  /// One update of the parameters (of the own ranges) from the gradients they hold, which stay as they are, and of their
  /// copy for products; of a part the copy is left to the caller, who must fetch the other parts first.
  /// squares: ParameterSet::squared_gradient_norm_per_layer(), whose root of the sum is clipped to clip_norm. loss: one
  /// fp32 number on the device, or undefined. Unless norm and loss are finite, nothing changes. Returns [3] fp64 on the
  /// device: norm before clipping, clipping factor, 1 if applied or 0. Does not wait for a GPU.
  at::Tensor step(double learning_rate, const at::Tensor& squares, const at::Tensor& loss);

  /// Whether it owns all of the buffer.
  [[nodiscard]] bool is_whole() const { return own_.empty(); }
  // [N], or the own ranges one after another.
  [[nodiscard]] const at::Tensor& mean() const { return mean_; }                  // exp_avg
  [[nodiscard]] const at::Tensor& squared_mean() const { return squared_mean_; }  // exp_avg_sq
  /// Updates applied so far: they drive the bias correction. Waits for the device.
  [[nodiscard]] int64_t num_updates() const;
  /// For resuming.
  void set_num_updates(int64_t num_updates);
  /// Moments of the elements from `begin` of the flat buffer on, 1-d fp32 of any device; those not owned are passed over.
  void set_moments(int64_t begin, const at::Tensor& mean, const at::Tensor& squared_mean);

 private:
  ops::ParameterSet& parameters_;
  OptimConfig config_;
  std::vector<ElementRange> own_;  // empty: everything
  at::Tensor mean_, squared_mean_;
  at::Tensor num_updates_;  // 0-d int64 on the device
};

}  // namespace scrna::optim
