// The step between two branches of a pre-LayerNorm block, h_out = h + dropout(x) and y = LayerNorm(h_out), as
// one operation with autograd: on CUDA a kernel each way (kernels/residual_norm_cuda.h), elsewhere the
// composed twin, LibTorch operators. Saved for the backward pass: h_out, which the next step holds anyway,
// and two fp32 numbers a row.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"
#include "lib/ops/dropout.h"

namespace scrna::ops {

/// The kernel's widest rows.
inline constexpr int64_t kMaxFusedNormWidth = 4096;

struct LayerNormWeights {
  at::Tensor gamma;  // [D] fp32
  at::Tensor beta;   // [D] fp32
  double epsilon = 1e-5;
};

struct ResidualNorm {
  at::Tensor h;  // [T, D] of h's type: the residual stream with x added
  at::Tensor y;  // [T, D] of the branches' type: its LayerNorm
};

/// h, x: [T, D] contiguous on one device; x undefined: nothing is added, and the result's h is h itself.
/// `branch_type` is the type of y and, for the kernel, of x. The kernel takes h in fp32 or bf16, branches in
/// bf16 (or all in fp32), D a multiple of 8 up to 4,096; other calls take the twin (fp64 too, without
/// dropout). Statistics are fp32. Throws ConfigError when the kernel is asked for and cannot serve,
/// InternalError when the tensors break the contract.
ResidualNorm residual_norm(const at::Tensor& h_TD, const at::Tensor& x_TD, const LayerNormWeights& weights,
                           at::ScalarType branch_type,
                           const std::optional<CellDropout>& dropout = std::nullopt,
                           Implementation implementation = Implementation::kAuto);

}  // namespace scrna::ops
