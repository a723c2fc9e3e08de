// Embeddings of a pack's tokens with autograd: the sum of one or two table rows per token, dropped out, in
// one pass; and the choice of some rows (the masked tokens) with its inverse. On CUDA by the kernels of
// kernels/embedding_cuda.h, whose gradients are bitwise equal from run to run (LibTorch's index_add is not),
// elsewhere by LibTorch operators.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"
#include "lib/ops/dropout.h"

namespace scrna::ops {

struct EmbeddingLookup {
  at::Tensor table;  // [V, D]
  at::Tensor ids;    // [T] int64, in [0, V); others make their token NaN on a GPU and throw on the CPU
};

/// dropout(first.table[first.ids] + second.table[second.ids]) as [T, D] of `type`; second.table undefined:
/// one table. Sums and dropout are in the tables' type, fp32 for bf16. The kernel takes tables that are both
/// fp32 (with gradients) or both bf16 (without), types fp32 and bf16, D a multiple of 8; other calls take the
/// twin. Throws ConfigError when the kernel is asked for and cannot serve, InternalError when the tensors
/// break the contract.
at::Tensor embed(const EmbeddingLookup& first, const EmbeddingLookup& second, at::ScalarType type,
                 const std::optional<CellDropout>& dropout = std::nullopt,
                 Implementation implementation = Implementation::kAuto);

/// Without autograd: adds the gradient of a table, sum over the tokens of each id of dropout(d_e), to d_table
/// [V, D] fp32 (fp64 with d_e in fp64), for steps that own a flat gradient buffer. d_e: [T, D] contiguous.
void add_embedding_gradient(const at::Tensor& d_table, const at::Tensor& ids, const at::Tensor& d_e_TD,
                            const std::optional<CellDropout>& dropout = std::nullopt,
                            Implementation implementation = Implementation::kAuto);

/// x[positions]: [M, D] of x: [T, D] contiguous, positions [M] int64 strictly ascending in [0, T) (checked on
/// the CPU). The gradient is a [T, D] whose other rows are zero.
at::Tensor select_rows(const at::Tensor& x_TD, const at::Tensor& positions_M,
                       Implementation implementation = Implementation::kAuto);

}  // namespace scrna::ops
