// One AdamW update over flat fp32 buffers that never asks the host: norm, clipping factor, bias corrections
// and whether the step is applied at all stay on the device. On CUDA by the kernels of kernels/adamw_cuda.h,
// which also write the bf16 copy of the weights that the next forward pass multiplies with; elsewhere by the
// composed twin, which wraps LibTorch's _fused_adamw_.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/core/element_range.h"
#include "lib/ops/attention.h"

namespace scrna::ops {

struct AdamWBuffers {
  at::Tensor values, gradients;     // [N] fp32; gradients are only read
  at::Tensor mean, squared_mean;    // [N] fp32, or with `ranges` as many elements as these hold, in their order
  at::Tensor compute_copy;                           // [N] bf16 copy of values, or undefined
  int64_t num_decayed = 0;                           // weight decay applies to the first elements
  at::Tensor num_updates;                            // 0-d int64 on the same device: updates applied so far
  std::vector<ElementRange> ranges;                  // only these are updated; none given: all
};

struct AdamWUpdate {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double clip_norm = 0;  // scale gradients down to this global L2 norm; 0: never clip
};

/// Updates the buffers and num_updates unless the norm (or `loss`, 0-d fp32, if defined) is not finite: then
/// nothing changes. squares: [layers] fp64, their sum is the square of the global gradient norm
/// (ParameterSet::squared_gradient_norm_per_layer). Returns [3] fp64 on the device: norm before clipping,
/// clipping factor, 1 if applied or 0. The kernel takes N, num_decayed and ranges in multiples of 1,024, as
/// ParameterSet makes them. Throws ConfigError when the kernel is asked for and cannot serve, InternalError
/// when the tensors break the contract.
at::Tensor adamw_update(const AdamWBuffers& buffers, const at::Tensor& squares, const at::Tensor& loss,
                        const AdamWUpdate& update, Implementation implementation = Implementation::kAuto);

}  // namespace scrna::ops
