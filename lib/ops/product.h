// Gradients of weights added straight into fp32 buffers: what the operations with matrix products share.
#pragma once

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"

namespace scrna::ops {

/// sum += a b without a tensor in between: a [M, K], b [K, N] of one type, any strides; sum [M, N] of that
/// type, or fp32 with bf16 operands (on a GPU one product with fp32 output, on the CPU one in fp32).
void add_product(const at::Tensor& sum_MN, const at::Tensor& a_MK, const at::Tensor& b_KN);

/// sum [N] fp32 (fp64 with x in fp64) += sum over the rows of x [T, N] contiguous. By a kernel on CUDA for N
/// a multiple of 8, fp32 and bf16, bitwise equal from run to run; elsewhere by LibTorch. Throws ConfigError
/// when the kernel is asked for and cannot serve, InternalError when the tensors break the contract.
void add_column_sums(const at::Tensor& sum_N, const at::Tensor& x_TN,
                     Implementation implementation = Implementation::kAuto);

}  // namespace scrna::ops
