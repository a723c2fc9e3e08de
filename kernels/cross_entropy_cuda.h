// Softmax cross-entropy over a block of logits, and its gradient in the same memory:
//
//   loss = lse - x[target], lse = log sum_v exp(x[v]);   x[v] <- scale (exp(x[v] - lse) - [v = target])
//
// Two kernels: one reads a row per block and leaves lse and loss; the other walks columns
// (device/row_tiles.h), because then the bias's gradient, a sum over rows, costs no further pass. A kernel
// that holds a row of 43,840 logits in registers reads it once less, but then the column sums need that read.
// Columns from num_classes up to row_stride are padding: they count for nothing and their gradients are zero.
// Bytes per logit in bf16: 2 forward, 4 backward.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

struct CrossEntropy {
  int64_t num_rows = 0;                               // M
  int64_t num_classes = 0;                            // V
  int64_t row_stride = 0;                             // elements from row to row, a multiple of 8, at least V
  ElementType element_type = ElementType::kBFloat16;  // of the logits: fp32 or bf16
  void* logits = nullptr;                             // [M, row_stride], 16-byte aligned
  const int64_t* targets = nullptr;                   // [M]; one outside [0, V) makes its row's results NaN
  float* lse = nullptr;                               // [M]
};

struct CrossEntropyGradient {
  float scale = 1.0F;
  float* d_bias = nullptr;    // [V], added to; null: not wanted, and no workspace is needed
  float* partials = nullptr;  // cross_entropy_workspace_bytes(call)
};

size_t cross_entropy_workspace_bytes(const CrossEntropy& call);

/// Writes lse and losses [M]. Asynchronous on `stream`; no allocation, no synchronisation.
cudaError_t cross_entropy_forward_cuda(const CrossEntropy& call, float* losses, cudaStream_t stream);
/// Turns the logits into their gradients; after the forward pass.
cudaError_t cross_entropy_backward_cuda(const CrossEntropy& call, const CrossEntropyGradient& gradient,
                                        cudaStream_t stream);

}  // namespace scrna::kernels
