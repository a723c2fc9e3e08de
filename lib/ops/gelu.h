// The exact GELU behind a linear layer, with the layer's bias, as one operation with autograd: on CUDA a
// kernel each way (kernels/gelu_cuda.h), elsewhere the composed twin, LibTorch operators. The backward pass
// sums the bias's gradient while it makes that of z. Saved for it: z alone.
#pragma once

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"

namespace scrna::ops {

/// gelu(z + bias). z: [T, F] contiguous; bias: [F] fp32 (fp64 with z in fp64), or undefined when z has it
/// already. The kernel takes fp32 and bf16 with F a multiple of 8 and adds the bias in fp32; other calls take
/// the twin, which adds it in z's type. Throws ConfigError when the kernel is asked for and cannot serve,
/// InternalError when the tensors break the contract.
at::Tensor bias_gelu(const at::Tensor& z_TF, const at::Tensor& bias_F,
                     Implementation implementation = Implementation::kAuto);

}  // namespace scrna::ops
