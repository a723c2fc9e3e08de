// The part of lib/ops/attention that meets kernels/: which kernel serves a case, and running it with tensors.
// CPU: fp32 inside, other types are converted; CUDA: bf16 and fp16 in place, scratch memory from LibTorch's
// allocator, on the current stream.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"

namespace scrna::ops {

/// Which tokens belong to which cell, for queries or for keys: packed by cu_seqlens, or padded by lengths.
struct CellTokens {
  at::Tensor cu_seqlens;      // [B+1] int32, packed
  at::Tensor lengths;         // [B] int32, padded
  int64_t padded_length = 0;  // S: cell b begins at token b * S; 0: packed
  int64_t max_length = 0;     // at least the longest cell
  [[nodiscard]] int64_t num_cells() const {
    return padded_length > 0 ? lengths.numel() : cu_seqlens.numel() - 1;
  }
};

/// One call, without its operands.
struct AttentionCall {
  AttentionOptions options;
  CellTokens queries, keys;
  float scale = 1.0F;
};

/// [T, H, K] each; padded: T = B * S. k and v may have another number of tokens than q.
struct AttentionOperands {
  at::Tensor q, k, v;
};

/// O, and what softmax needs again in the backward pass: O as the kernel wrote it, and log-sum-exp [H, T].
struct AttentionOutputs {
  at::Tensor o, kernel_o, lse;
};

/// Compute capability of a CUDA device (9.0: 90); 0 of others, and in a program without CUDA. Throws
/// DeviceError.
int compute_capability(const at::Device& device);

/// Why no kernel serves this case here; empty: one does.
std::string attention_kernel_missing(const at::Device& device, at::ScalarType type, int64_t head_width,
                                     kernels::AttentionKind kind);
/// Types and head widths that kernels serve on this device, for messages; empty: no kernel of this kind runs
/// here.
std::string attention_kernel_table(const at::Device& device, kernels::AttentionKind kind);
/// Which kernel runs on this device at this head width, for the log.
std::string attention_kernel_name(const at::Device& device, int64_t head_width);

/// out.o is allocated and has the operands' type. Throws DeviceError.
void attention_kernel_forward(const AttentionCall& call, const AttentionOperands& in, AttentionOutputs& out);
/// Writes gradients.q, .k, .v and, where defined, d_cell_bias [B] fp32.
void attention_kernel_backward(const AttentionCall& call, const AttentionOperands& in, const at::Tensor& d_o,
                               const AttentionOutputs& out, const AttentionOperands& gradients,
                               const at::Tensor& d_cell_bias);

}  // namespace scrna::ops
