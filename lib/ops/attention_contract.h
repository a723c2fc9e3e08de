// What callers of lib/ops/attention must hold to, checked before anything runs: shapes, types, devices, and
// on the CPU also the numbers in cu_seqlens and lengths (on a GPU looking at them would wait for it).
#pragma once

#include "lib/ops/attention.h"
#include "lib/ops/attention_kernel.h"

namespace scrna::ops {

/// Throws InternalError. The operands are [T, H, K]; padded ones flattened to that.
void check_attention(const AttentionOperands& in, const CellTokens& queries, const CellTokens& keys,
                     const AttentionOptions& options);

}  // namespace scrna::ops
