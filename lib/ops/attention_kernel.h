// The part of lib/ops/attention that meets kernels/: which kernel serves a case, and running it with tensors.
// CPU: fp32 inside, other types are converted; CUDA: bf16 and fp16 in place, scratch memory from LibTorch's
// allocator, on the current stream.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"

namespace scrna::ops {

/// One call, without its operands.
struct AttentionCall {
  AttentionOptions options;
  at::Tensor cu_seqlens;  // [B+1] int32
  int64_t max_cell_tokens = 0;
  float scale = 1.0F;
};

struct AttentionOperands {
  at::Tensor q, k, v;  // [T, H, K]
};

/// O, and what softmax needs again in the backward pass: O as the kernel wrote it, and log-sum-exp [H, T].
struct AttentionOutputs {
  at::Tensor o, kernel_o, lse;
};

/// Why no kernel serves this case here; empty: one does.
std::string attention_kernel_missing(const at::Device& device, at::ScalarType type, int64_t head_width,
                                     const AttentionOptions& options);
/// What runs on this device, for the log.
std::string attention_kernel_name(const at::Device& device);

/// out.o is allocated and has the operands' type. Throws DeviceError.
void attention_kernel_forward(const AttentionCall& call, const AttentionOperands& in, AttentionOutputs& out);
/// Writes gradients.q, .k, .v and, where defined, d_cell_bias [B] fp32.
void attention_kernel_backward(const AttentionCall& call, const AttentionOperands& in, const at::Tensor& d_o,
                               const AttentionOutputs& out, const AttentionOperands& gradients,
                               const at::Tensor& d_cell_bias);

}  // namespace scrna::ops
