// The gradient of a linear layer's bias: d_bias += sum over rows of d_y, for layers whose d_y no other kernel
// of ours makes (gelu_cuda.h sums on its way). Bytes per element in bf16: 2. LibTorch's sum needs an fp32
// tensor in between and an addition.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

struct BiasGradient {
  int64_t num_rows = 0;                              // T
  int64_t width = 0;                                 // N, a multiple of 8
  ElementType element_type = ElementType::kFloat32;  // of d_y: fp32 or bf16
  const void* d_y = nullptr;                         // [T, N], rows at multiples of 16 bytes
  float* d_bias = nullptr;                           // [N], added to
};

/// Null: the kernel serves the call; otherwise why not.
const char* bias_gradient_unsupported(const BiasGradient& call);
size_t bias_gradient_workspace_bytes(const BiasGradient& call);
/// partials: bias_gradient_workspace_bytes(call). Asynchronous on `stream`; no allocation, no
/// synchronisation.
cudaError_t bias_gradient_cuda(const BiasGradient& call, float* partials, cudaStream_t stream);

}  // namespace scrna::kernels
