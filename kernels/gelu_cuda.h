// The exact GELU (Hendrycks & Gimpel, arXiv 1606.08415) behind a linear layer, with the layer's bias:
//
//   y = v Phi(v), v = z + bias;   dz = dy (Phi(v) + v phi(v));   dbias = sum over rows of dz
//
// Own kernels and not cuBLASLt's GELU epilogues, because those compute the approximation by tanh, while the
// model is defined with the exact form (passes without gradients may choose them: model.gelu_precision); the backward pass gains the most anyway, by summing the bias's
// gradient on the way. Phi(v) and phi(v) share one exponential: Phi(-|v|) = exp(-v^2 / 2) P(t) with t = 1 /
// (1 + q |v|), accurate also in the tail, where LibTorch's 1 + erf cancels. Bytes per element in bf16: 4
// forward, 6 backward.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

struct BiasGelu {
  int64_t num_rows = 0;                              // T
  int64_t width = 0;                                 // F, a multiple of 8
  ElementType element_type = ElementType::kFloat32;  // of z, y and their gradients: fp32 or bf16
  const void* z = nullptr;                           // [T, F]
  const float* bias = nullptr;                       // [F] or null: z has it already
};

/// Null: these kernels serve the call; otherwise why not. Rows must begin at multiples of 16 bytes.
const char* bias_gelu_unsupported(const BiasGelu& call);
size_t bias_gelu_workspace_bytes(const BiasGelu& call);

/// y [T, F] may be z. Asynchronous on `stream`; no allocation, no synchronisation.
cudaError_t bias_gelu_forward_cuda(const BiasGelu& call, void* y, cudaStream_t stream);
/// d_z [T, F] may be d_y. d_bias [F] is overwritten; null: not wanted, and no workspace is needed.
cudaError_t bias_gelu_backward_cuda(const BiasGelu& call, const void* d_y, void* d_z, float* d_bias,
                                    float* partials, cudaStream_t stream);

}  // namespace scrna::kernels
