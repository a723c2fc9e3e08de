// Attention over packed cells for autograd: checks the contract of kernels/attention.h, chooses an
// implementation, saves what the backward pass needs. Two implementations: a kernel (attention_kernel.h: CPU,
// and CUDA on compute capability 9.0) and the composed twin (attention_composed.h: LibTorch operators, cell
// by cell), which is reference, fallback and peer. Sigmoid attention saves neither its output nor statistics
// (nothing is normalised); softmax saves O and log-sum-exp.
//
//   sigmoid:  O = sigmoid(scale * Q K^T + bias + key_bias) V        (arXiv 2409.04431, 2604.27124)
//   softmax:  O = softmax(scale * Q K^T + key_bias) V
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "kernels/attention.h"

namespace scrna::ops {

enum class Implementation : uint8_t { kAuto, kComposed, kKernel };

struct AttentionOptions {
  kernels::AttentionKind kind = kernels::AttentionKind::kSigmoid;
  /// Sigmoid only: kNegativeLogLength (-log of the cell's length), kScalar or kPerCell.
  kernels::BiasKind bias_kind = kernels::BiasKind::kNegativeLogLength;
  float scalar_bias = 0.0F;  // with kScalar
  at::Tensor cell_bias;  // [B] fp32, with kPerCell; gets a gradient. A learnable scalar: scalar.expand({B})
  at::Tensor key_bias;   // [T] fp32, optional, added to every score of that key; has no gradient
  std::optional<float> scale;  // default 1 / sqrt(K)
  /// CUDA kernels; the CPU is always exact.
  kernels::SigmoidPrecision precision = kernels::SigmoidPrecision::kExact;
  /// CUDA kernels: gradients bitwise equal from run to run, at seven instead of five matrix products (the
  /// CPU's always are). LibTorch's switch for deterministic algorithms asks for the same.
  bool deterministic = false;
  Implementation implementation = Implementation::kAuto;
  /// [B+1] int32 on the CPU, optional: the same numbers as cu_seqlens, which spare the composed twin on a GPU
  /// one synchronisation per call.
  at::Tensor cu_seqlens_host;
};

/// What runs for these inputs, and why: one phrase for the log.
struct AttentionChoice {
  Implementation implementation;  // kComposed or kKernel
  std::string reason;
};

/// Throws ConfigError when options.implementation asks for a kernel that does not support the case; the
/// message names the head widths and types that are supported where.
AttentionChoice choose_attention(const at::Device& device, at::ScalarType type, int64_t head_width,
                                 const AttentionOptions& options);

/// q, k, v: [T, H, K] fp32, bf16 or fp16 (fp64: composed only), any strides with contiguous K.
/// cu_seqlens: [B+1] int32 on the same device, cu_seqlens[0] = 0 <= ... <= cu_seqlens[B] = T; zero-length
/// cells are allowed. max_cell_tokens: at least the longest cell. Returns O [T, H, K], contiguous, of the
/// inputs' type; on the CPU bf16 and fp16 are computed in fp32. Throws InternalError when the tensors break
/// this contract.
at::Tensor attention(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& v_THK,
                     const at::Tensor& cu_seqlens, int64_t max_cell_tokens,
                     const AttentionOptions& options = {});

/// The same on one fused projection qkv [T, 3, H, K]: no copies of Q, K and V, and one gradient tensor of
/// that shape.
at::Tensor attention_qkv(const at::Tensor& qkv_T3HK, const at::Tensor& cu_seqlens, int64_t max_cell_tokens,
                         const AttentionOptions& options = {});

}  // namespace scrna::ops
