// Attention over ragged cells, as every implementation in this folder sees it: a params struct and nothing else. The
// CPU form (attention_cpu.h) and the CUDA forms (attention_cuda.h) take the same structs; lib/ops checks the contract,
// chooses the implementation and adds autograd. No Torch, no allocation, no synchronisation here.
//
//   sigmoid:  O = sigmoid(scale * Q K^T + bias + key_bias) V        (arXiv 2409.04431, 2604.27124)
//   softmax:  O = softmax(scale * Q K^T + key_bias) V               (CPU only; on CUDA LibTorch's own kernels serve it)
//
// bidirectional, every cell by itself. Shape letters: B cells, T packed tokens, S padded length, H heads, K head width.
#pragma once

#include <cstdint>

namespace scrna::kernels {

enum class ElementType : uint8_t { kFloat32, kBFloat16, kFloat16 };
enum class AttentionKind : uint8_t { kSigmoid, kSoftmax };
/// kExact: every weight right to the rounding of bf16. kFast: tanh.approx (CUDA only; the CPU is always exact).
enum class SigmoidPrecision : uint8_t { kExact, kFast };
/// kNegativeLogLength: -log(number of keys of the cell), the default of the paper.
enum class BiasKind : uint8_t { kNegativeLogLength, kScalar, kPerCell };
/// Which CUDA kernels: the fastest ones for the device, or those for every device from compute capability 8.0 on, which
/// check the others. The CPU does not look at it.
enum class CudaPath : uint8_t { kFastest, kPortable };

/// Where one operand lives: [T, H, K] (or [B, S, H, K]) with contiguous K; strides in elements, so that Q, K and V may
/// be views of one fused projection.
struct TokenView {
  void* data = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

/// Which tokens belong to which cell, for queries or for keys. Packed: cu_seqlens [B+1]. Padded: padded_length > 0,
/// lengths [B], cell b begins at token b * padded_length; tokens beyond its length are padding, their outputs and
/// gradients are exactly zero and their contents (NaN included) are never used. Device memory for CUDA.
struct Ragged {
  const int32_t* cu_seqlens = nullptr;  // [B+1]
  const int32_t* lengths = nullptr;     // [B]
  int64_t padded_length = 0;            // S, or 0 for packed
  int64_t total_tokens = 0;             // T, or B * S
  int64_t max_length = 0;               // upper bound of a cell's length, known to the host
};

struct AttentionShape {
  int64_t num_cells = 0;   // B
  int64_t num_heads = 0;   // H
  int64_t head_width = 0;  // K
  Ragged query;
  Ragged key;
  ElementType element_type = ElementType::kFloat32;
  AttentionKind kind = AttentionKind::kSigmoid;
  SigmoidPrecision precision = SigmoidPrecision::kExact;
  BiasKind bias_kind = BiasKind::kNegativeLogLength;
  float scalar_bias = 0.0F;            // with kScalar
  const float* cell_bias = nullptr;    // [B] fp32, with kPerCell
  const float* key_bias = nullptr;     // [T_k] fp32, added to every score of that key; null: none
  float scale = 1.0F;                  // usually 1 / sqrt(K)
  CudaPath cuda_path = CudaPath::kFastest;
};

struct AttentionForward {
  AttentionShape shape;
  TokenView q, k, v;       // inputs, element_type
  TokenView o;             // output, element_type
  float* lse = nullptr;    // softmax only: [H, T_q] log-sum-exp of the scores, for the backward pass
};

struct AttentionBackward {
  AttentionShape shape;
  TokenView q, k, v;       // inputs of the forward pass
  TokenView d_o;           // gradient of the output
  TokenView d_q, d_k, d_v; // gradients, element_type, overwritten
  float* d_cell_bias = nullptr;  // [B] fp32, overwritten: gradient of the cell's bias; null: not wanted (sigmoid only)
  TokenView o;                   // softmax only: output of the forward pass
  const float* lse = nullptr;    // softmax only: [H, T_q]
  bool deterministic = false;    // CUDA: bitwise equal results from run to run (the CPU always is)
};

}  // namespace scrna::kernels
