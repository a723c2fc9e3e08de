// The second stage of every sum over rows (gradients of LayerNorm's and of linear layers' biases): the first
// stage leaves one partial row per block in a workspace, this one adds the partials in a fixed order. No
// atomics, so the sums are bitwise equal from run to run, and on every GPU, since the number of partials
// never depends on it.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace scrna::kernels {

struct ColumnSums {
  const float* partials = nullptr;  // [num_partials, stride]
  int64_t stride = 0;               // elements from one partial row to the next; 0: outputs * width
  int64_t num_partials = 0;         // 0: the outputs are zero
  int64_t width = 0;                // of one output
  bool accumulate = false;          // adds to what the outputs hold instead of overwriting it
  float* first = nullptr;           // [width]
  float* second = nullptr;          // [width] or null: the partials have one output
};

/// Asynchronous on `stream`.
cudaError_t column_sums_cuda(const ColumnSums& call, cudaStream_t stream);

}  // namespace scrna::kernels
