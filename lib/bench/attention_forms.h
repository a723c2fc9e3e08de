// Every form of attention that `bench attention` can measure. A new one is a function here and one more line
// in the list of attention_bench.cpp.
#pragma once

#include <memory>
#include <string>

#include "kernels/attention.h"
#include "lib/bench/attention_problem.h"

namespace scrna::bench {

/// Ours on a GPU: the kernels without LibTorch around them, as they are launched in training; gradients that
/// are zeroed, rounded or sorted on the way are part of the time.
struct OurAttention {
  kernels::SigmoidPrecision precision = kernels::SigmoidPrecision::kExact;
  bool deterministic = false;
  bool learnable_bias = false;  // a bias per cell, its gradient computed; else -log n
  kernels::CudaPath path = kernels::CudaPath::kFastest;
};
AttentionForm our_attention(std::string key, std::string title, std::string what,
                            const OurAttention& options);

/// LibTorch's own softmax attention on a GPU: FlashAttention-2, and cuDNN's.
AttentionForm libtorch_flash();
AttentionForm libtorch_cudnn();

/// FlashAttention-3 from a shared library that registers flash_attn_3::fwd and ::bwd with LibTorch's
/// dispatcher. Loads it; throws ConfigError when that fails.
AttentionForm flash_attention_3(const std::string& path);

/// On the CPU, through autograd: lib/ops/attention, and LibTorch's scaled_dot_product_attention,
/// which takes cells of several lengths one after the other. Their backward is forward and backward.
AttentionForm our_cpu_attention(kernels::AttentionKind kind);
AttentionForm libtorch_cpu_attention();

}  // namespace scrna::bench
