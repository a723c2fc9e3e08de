// The largest attention score of some sampled query rows: max |scale q.k| over all heads and the keys of each
// row's own cell. One pass over those keys, so it costs what reading them costs (by LibTorch's operators,
// which compute all rows' scores with all T keys and mask them: five times as much, and H N T numbers).
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

struct ScoreProbe {
  TokenView q, k;                                     // [T, H, K], rows of K at multiples of 16 bytes
  ElementType element_type = ElementType::kBFloat16;  // bf16 or fp32
  int64_t num_tokens = 0;                             // T
  int64_t num_heads = 0;                              // H
  int64_t head_width = 0;                             // K, a multiple of 8 up to 256
  const int32_t* cu_seqlens = nullptr;                // [num_cells + 1]
  int64_t num_cells = 0;
  int64_t num_queries = 0;  // N, at most T: query i is token floor((i T + offset) / N)
  int64_t offset = 0;       // in [0, T)
  float scale = 1;
  float* result = nullptr;  // [1], overwritten; NaN when a score is
};

/// Null: the kernel serves the call; otherwise why not.
const char* score_probe_unsupported(const ScoreProbe& call);
/// Asynchronous on `stream`; no allocation, no synchronisation.
cudaError_t score_probe_cuda(const ScoreProbe& call, cudaStream_t stream);

}  // namespace scrna::kernels
