// What a forward pass needs besides weights and tokens. One struct passed down by reference, so that adding a
// setting does not change every signature.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

namespace scrna::model {

/// A packed micro-batch on the device (lib/core/micro_batch.h says what the fields mean).
struct TokenTensors {
  at::Tensor tokens;            // [T] int64
  at::Tensor ranks;             // [T] int64
  at::Tensor cu_seqlens;        // [B+1] int32
  at::Tensor cu_seqlens_host;   // the same numbers in host memory
  at::Tensor cell_ids;          // [B] int64 (the bits of the uint64 id)
  at::Tensor masked_positions;  // [M] int64
  at::Tensor masked_targets;    // [M] int64
  int64_t max_cell_tokens = 0;
};

struct ForwardContext {
  uint64_t seed = 0;        // root seed of the run: keys dropout and the score probe
  int64_t step = 0;         // optimizer step (0-based)
  int64_t micro_batch = 0;  // its position in the global batch
  bool training = false;    // dropout on
  at::ScalarType compute_type =
      at::kFloat;                      // type of matrix products and attention; the residual stream is fp32
  int64_t probe_queries = 0;           // sampled queries of the attention-score probe; 0: no probe
  std::vector<at::Tensor> max_scores;  // filled by the probe: one 0-d fp32 tensor per layer
};

}  // namespace scrna::model
