// The step between two branches of a pre-LayerNorm block, in one pass forward and one backward:
//
//   h_out = h + dropout(x);   y = LayerNorm(h_out) = (h_out - mean) rstd gamma + beta
//
// x is what the branch before produced, h the residual stream. Statistics are fp32 and of h_out as it is
// stored. The backward pass reads dy, dh_out, h_out and writes
//
//   dh = dh_out + rstd (g - mean(g) - xhat mean(g xhat)), g = dy gamma;   dx = dropout(dh)
//   dgamma = sum over rows of dy xhat;   dbeta = sum over rows of dy
//
// The sums go through one partial row per block and kernels/column_sums_cuda.h. Bytes per element, stream and
// branch in bf16: 8 forward (h, x, h_out, y), 10 backward (dy, dh_out, h_out, dh, dx).
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/dropout.h"

namespace scrna::kernels {

inline constexpr int64_t kMaxResidualNormWidth = 4096;

struct ResidualNormShape {
  int64_t num_rows = 0;                             // T
  int64_t width = 0;                                // D, a multiple of 8 up to kMaxResidualNormWidth
  ElementType stream_type = ElementType::kFloat32;  // of h, h_out and their gradients: fp32 or bf16
  ElementType branch_type =
      ElementType::kFloat32;  // of x, y and their gradients: bf16, or fp32 as the stream
  DropoutMask mask;           // of x
};

struct ResidualNormForward {
  ResidualNormShape shape;
  const void* h = nullptr;       // [T, D]
  const void* x = nullptr;       // [T, D]; null: y = LayerNorm(h), and h_out is not written
  const float* gamma = nullptr;  // [D]
  const float* beta = nullptr;   // [D]
  float epsilon = 1e-5F;
  void* h_out = nullptr;  // [T, D]; may be h
  void* y = nullptr;      // [T, D]
  float* mean = nullptr;  // [T]
  float* rstd = nullptr;  // [T] 1 / sqrt(variance + epsilon)
};

struct ResidualNormBackward {
  ResidualNormShape shape;
  const void* d_y = nullptr;      // [T, D]
  const void* d_h_out = nullptr;  // [T, D]; null: zero
  const void* h_out = nullptr;    // [T, D] of the forward pass
  const float* gamma = nullptr;   // [D]
  const float* mean = nullptr;    // [T]
  const float* rstd = nullptr;    // [T]
  void* d_h = nullptr;            // [T, D]; may be d_h_out
  void* d_x = nullptr;            // [T, D]; null: there was no x
  float* d_gamma = nullptr;       // [D], overwritten
  float* d_beta = nullptr;        // [D], overwritten
  float* partials = nullptr;      // residual_norm_workspace_bytes(shape)
};

/// Null: these kernels serve the shape; otherwise why not. Rows must begin at multiples of 16 bytes.
const char* residual_norm_unsupported(const ResidualNormShape& shape);
size_t residual_norm_workspace_bytes(const ResidualNormShape& shape);

/// Asynchronous on `stream`; no allocation, no synchronisation.
cudaError_t residual_norm_forward_cuda(const ResidualNormForward& call, cudaStream_t stream);
cudaError_t residual_norm_backward_cuda(const ResidualNormBackward& call, cudaStream_t stream);

}  // namespace scrna::kernels
