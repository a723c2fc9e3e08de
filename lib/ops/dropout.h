// Dropout over packed cells with autograd. The mask is a pure function of (seed, step, layer, site, cell id,
// position in the cell, feature): see kernels/dropout.h. So training does not depend on packing, ranks or
// threads, resuming needs no generator state, and the backward pass makes the mask again instead of saving
// it.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"

namespace scrna::ops {

/// Which application of dropout this is.
struct DropoutSite {
  uint64_t seed = 0;
  int64_t step = 0;    // optimizer step: every step has its own masks
  uint32_t layer = 0;  // block of the encoder
  uint32_t site = 0;   // which dropout inside the block
  double probability = 0.0;
};

/// The cells of a pack together with the place of a dropout: what an operation that drops on the way needs.
struct CellDropout {
  at::Tensor cu_seqlens;  // [B+1] int32
  at::Tensor cell_ids;    // [B] int64, the bits of the uint64 id
  DropoutSite site;
};

/// Philox key of the site.
uint64_t dropout_key(const DropoutSite& site);
/// kernels::dropout_threshold of the site's probability; throws ConfigError unless 0 <= p < 1 and something is kept.
uint32_t dropout_threshold(const DropoutSite& site);
/// Throws InternalError unless the cells of `dropout` fit x: [T, D] (see dropout()).
void check_cells(const char* operation, const at::Tensor& x_TD, const at::Tensor& cu_seqlens,
                 const at::Tensor& cell_ids);

/// x: [T, D] fp32, bf16 or fp16, contiguous. cu_seqlens: [B+1] int32, cell_ids: [B] int64 (the bits of the
/// uint64 id), both on x's device. Returns x * keep / (1 - p), and x itself when p is 0. Throws ConfigError
/// unless 0 <= p < 1 and InternalError when the tensors break the contract.
at::Tensor dropout(const at::Tensor& x_TD, const at::Tensor& cu_seqlens, const at::Tensor& cell_ids,
                   const DropoutSite& site, Implementation implementation = Implementation::kAuto);

}  // namespace scrna::ops
