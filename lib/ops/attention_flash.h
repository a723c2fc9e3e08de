// The third implementation behind lib/ops/attention: softmax on a GPU by LibTorch's FlashAttention-2 in its
// form for packs (cu_seqlens), so that softmax, which has no CUDA kernel of ours, is compared at the speed of
// the fastest route that LibTorch offers. O and log-sum-exp are saved; nothing waits for the GPU.
//
// Q, K and V are read through their strides: views of a fused projection are not copied. Gradients are, since
// LibTorch's operator returns three tensors: in a fused gradient 12 bytes per element, by count of bytes some
// 2 % of the backward pass at 2K tokens a cell.
//
// Padded cells become a pack of three parts a cell: its tokens; the padding of its queries, which has no
// keys; the padding of its keys, which no query sees. The last two cost no products and give exact zeros.
//
// Rejected: cuDNN's attention. For packs LibTorch's backward pass gives it the head width as the longest
// length, and a plan would be built for every new pair of number of cells and longest length, so for every
// pack.
#pragma once

#include <string>

#include "lib/ops/attention_kernel.h"

namespace scrna::ops {

/// Why this implementation does not serve such a call; empty: it does.
std::string attention_flash_missing(const at::Device& device, at::ScalarType type, int64_t head_width,
                                    const AttentionOptions& options);
/// Types and head widths that it serves on this device, for messages; empty: none at all (no GPU, one too
/// old, another kind of attention).
std::string attention_flash_table(const at::Device& device, const AttentionOptions& options);

/// Allocates and writes out.o = out.kernel_o [T, H, K] and out.lse [H, T] fp32. Throws c10::Error when
/// LibTorch fails.
void attention_flash_forward(const AttentionCall& call, const AttentionOperands& in, AttentionOutputs& out);
/// Writes gradients.q, .k and .v.
void attention_flash_backward(const AttentionCall& call, const AttentionOperands& in, const at::Tensor& d_o,
                              const AttentionOutputs& out, const AttentionOperands& gradients);

}  // namespace scrna::ops
