// Attention over packed or padded cells for autograd: checks the contract of kernels/attention.h, chooses an
// implementation, saves what the backward pass needs. Three implementations: a kernel of ours
// (attention_kernel.h: CPU and CUDA); LibTorch's FlashAttention-2 (attention_flash.h: softmax on CUDA, where
// we have no kernel); and the composed twin (attention_composed.h: LibTorch operators, cell by cell), which
// is reference and peer, and serves what has neither. Where one of the first two exists, a type or a head
// width that it does not take is an error and not a silent fallback: that would be many times slower. Softmax
// with a key bias on CUDA is composed. Sigmoid attention saves neither its output nor statistics (nothing is
// normalised); softmax saves O and log-sum-exp.
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

/// kAuto: a kernel; else, for softmax on CUDA, kFlash; the composed twin on a device that has neither (say
/// so: choose_attention().reason). kFlash: LibTorch's FlashAttention-2, of attention only.
enum class Implementation : uint8_t { kAuto, kComposed, kKernel, kFlash };

struct AttentionOptions {
  kernels::AttentionKind kind = kernels::AttentionKind::kSigmoid;
  /// Sigmoid only: kNegativeLogLength (-log of the cell's length), kScalar or kPerCell.
  kernels::BiasKind bias_kind = kernels::BiasKind::kNegativeLogLength;
  float scalar_bias = 0.0F;  // with kScalar
  at::Tensor cell_bias;  // [B] fp32, with kPerCell; gets a gradient. A learnable scalar: scalar.expand({B})
  /// [T_k] (padded: [B, S_k]) fp32, optional, added to every score of that key; has no gradient.
  at::Tensor key_bias;
  std::optional<float> scale;  // default 1 / sqrt(K)
  /// CUDA kernels; the CPU is always exact.
  kernels::SigmoidPrecision precision = kernels::SigmoidPrecision::kExact;
  /// CUDA: gradients bitwise equal from run to run; our kernels then take seven instead of five matrix
  /// products, FlashAttention-2 more memory (the CPU's always are equal). LibTorch's switch for deterministic
  /// algorithms asks for the same.
  bool deterministic = false;
  Implementation implementation = Implementation::kAuto;
  /// [B+1] int32 on the CPU, optional, for attention() and attention_qkv(): the same numbers as cu_seqlens,
  /// which spare the composed twin on a GPU one synchronisation per call.
  at::Tensor cu_seqlens_host;
};

/// What runs for these inputs, and why: one phrase for the log.
struct AttentionChoice {
  Implementation implementation;  // kComposed, kKernel or kFlash
  std::string reason;
};

/// Throws ConfigError, naming the types and head widths that are supported, when this device has kernels (or
/// FlashAttention-2) of this kind but none for this type or width and options.implementation is not
/// kComposed; and when kKernel or kFlash is asked for where there is none.
AttentionChoice choose_attention(const at::Device& device, at::ScalarType type, int64_t head_width,
                                 const AttentionOptions& options);

/// Packed self-attention. q, k, v: [T, H, K] fp32, bf16 or fp16 (fp64: composed only), any strides with
/// contiguous K. cu_seqlens: [B+1] int32 on the same device, cu_seqlens[0] = 0 <= ... <= cu_seqlens[B] = T;
/// zero-length cells are allowed. max_cell_tokens: at least the longest cell. Returns O [T, H, K],
/// contiguous, of the inputs' type; on the CPU bf16 and fp16 are computed in fp32. Throws InternalError when
/// the tensors break this contract.
at::Tensor attention(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& v_THK,
                     const at::Tensor& cu_seqlens, int64_t max_cell_tokens,
                     const AttentionOptions& options = {});

/// The same on one fused projection qkv [T, 3, H, K]: no copies of Q, K and V, and one gradient tensor of
/// that shape.
at::Tensor attention_qkv(const at::Tensor& qkv_T3HK, const at::Tensor& cu_seqlens, int64_t max_cell_tokens,
                         const AttentionOptions& options = {});

/// Packed, every cell's queries q [T_q, H, K] against its own keys k, v [T_k, H, K], of another number. A
/// cell without keys gets zeros. The default bias is -log of the number of keys.
at::Tensor attention_cross(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& v_THK,
                           const at::Tensor& query_cu_seqlens, const at::Tensor& key_cu_seqlens,
                           int64_t max_query_tokens, int64_t max_key_tokens,
                           const AttentionOptions& options = {});

/// Padded: q [B, S, H, K], k and v [B, S_k, H, K]; lengths [B] int32 on the same device, each from 0 to S
/// (S_k). Tokens beyond its length are padding: what they hold is never used, NaN included, and their outputs
/// and gradients are exactly zero. Views with stride(0) = S * stride(1), such as those of one fused
/// projection [B, S, 3, H, K], are read in place, others are copied. Returns O [B, S, H, K].
at::Tensor attention_padded(const at::Tensor& q_BSHK, const at::Tensor& k_BSHK, const at::Tensor& v_BSHK,
                            const at::Tensor& query_lengths, const at::Tensor& key_lengths,
                            const AttentionOptions& options = {});

/// Padded self-attention on one fused projection qkv [B, S, 3, H, K]; one gradient tensor of that shape.
at::Tensor attention_padded_qkv(const at::Tensor& qkv_BS3HK, const at::Tensor& lengths,
                                const AttentionOptions& options = {});

}  // namespace scrna::ops
