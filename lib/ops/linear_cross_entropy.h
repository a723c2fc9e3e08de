// The output head and its loss as one operation that never holds all logits: sum over rows of the
// cross-entropy of softmax(hidden W^T + bias). For M = 10,000 masked tokens and V = 43,804 genes the logits
// would be 0.9 GB in bf16 and as much again for their gradients. Here a chunk of rows goes through one reused
// buffer: logits by a matrix product (the bias in its epilogue), loss and the logits' gradients in place
// (kernels/cross_entropy_cuda.h), then the chunk's products with W and hidden, while the buffer still holds
// them. So the gradients are made in the forward pass, and no product is repeated.
//
// Extra memory: the buffer, rows_per_chunk x round_up(V, 64) x 2 bytes in bf16 (359 MB for 4,096 rows of
// 43,840), W in the compute type unless it is given so (67 MB at width 768), and the gradients themselves.
// Small chunks cost time: each reads and writes the whole gradient of W once (270 MB). The buffer's rows have
// a multiple of 64 columns because products with 43,804 columns run at a third of the speed (measured on an
// H200).
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"

namespace scrna::ops {

struct LinearCrossEntropyOptions {
  /// Type of W and hidden in products, and of logits. Sums over rows (gradients of W and bias, loss) are
  /// fp32.
  at::ScalarType compute_type = at::kBFloat16;
  int64_t rows_per_chunk = 4096;
  /// Rows of W from here on are padding: masked out of the softmax, with zero gradients. 0: W has no padding.
  int64_t num_classes = 0;
  Implementation implementation = Implementation::kAuto;
};

struct LinearCrossEntropyInputs {
  at::Tensor hidden;  // [M, D] any floating-point type
  at::Tensor
      weight;  // [V', D] fp32 or the compute type; without a copy if it is that and V' is a multiple of 64
  at::Tensor bias;     // [V'] like weight
  at::Tensor targets;  // [M] int64 or int32, in [0, num_classes); others make the loss NaN on a GPU and throw
                       // on the CPU
};

/// Where gradients go; undefined ones are not computed.
struct LinearCrossEntropyGradients {
  at::Tensor d_hidden;  // [M, D] like hidden, overwritten
  at::Tensor d_weight;  // [V', D] fp32, contiguous, added to (fp64 with compute type fp64)
  at::Tensor d_bias;    // [V'] like d_weight, added to
};

/// Sum of the losses, 0-d fp32 (fp64 with fp64), differentiable in hidden, weight and bias. Throws
/// ConfigError when the kernel is asked for and cannot serve, InternalError when the tensors break the
/// contract.
at::Tensor linear_cross_entropy(const LinearCrossEntropyInputs& inputs,
                                const LinearCrossEntropyOptions& options);

/// The same without autograd: returns the sum of the losses and adds `scale` times its gradients where
/// `gradients` says, for a step that knows its number of masked tokens beforehand and owns flat gradient
/// buffers.
at::Tensor linear_cross_entropy_with_gradients(const LinearCrossEntropyInputs& inputs, double scale,
                                               const LinearCrossEntropyGradients& gradients,
                                               const LinearCrossEntropyOptions& options);

}  // namespace scrna::ops
