// Host side of the tensor memory accelerator: describes [tokens, heads, width] of 16-bit elements, with any
// strides that are multiples of 16 bytes, so that views of one fused projection need no copy.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

/// Whether a view can be described: base and strides are multiples of 16 bytes (strides of dimensions of size
/// 1 do not matter).
bool tensor_map_possible(const TokenView& view, int64_t num_tokens, int64_t num_heads);

/// Boxes of box_tokens x 64 columns with the 128-byte swizzle. num_tokens must be positive. The driver's
/// encoder is found at run time, so that libcuda is not linked.
cudaError_t make_tensor_map(CUtensorMap& map, const TokenView& view, int64_t num_tokens, int64_t num_heads,
                            int64_t head_width, int box_tokens, ElementType type);

}  // namespace scrna::kernels
