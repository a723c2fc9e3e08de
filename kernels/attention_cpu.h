// Attention on the CPU, computed in fp32: forward and backward, sigmoid and softmax, packed and padded,
// memory linear in the number of tokens. Blocks of queries meet blocks of keys in cache; hand-blocked matrix
// products and vector code, compiled for several instruction sets and chosen at run time
// (attention_cpu_forward.h, attention_cpu_backward.h). Results are bitwise the same from run to run and for
// every number of threads: every sum has one fixed order, whoever computes it.
#pragma once

#include "kernels/attention.h"

namespace scrna::kernels {

/// Vector instruction sets that the binary holds code for.
enum class CpuVectors : uint8_t { kBest, kBaseline, kAvx2, kAvx512 };

struct CpuAttentionOptions {
  int num_threads = 1;                     // at least 1
  CpuVectors vectors = CpuVectors::kBest;  // tests choose; must be supported
};

/// Largest head width.
constexpr int64_t kMaxCpuHeadWidth = 256;

/// Whether this machine (and this binary) can run that set; kBest and kBaseline always.
bool cpu_vectors_supported(CpuVectors vectors);
/// The set that kBest stands for here: "AVX-512", "AVX2" or "baseline".
const char* cpu_vectors_name();

/// element_type must be kFloat32 or kBFloat16 (widened and rounded as operands enter and leave the cache) and
/// 1 <= head_width <= kMaxCpuHeadWidth (lib/ops checks). All pointers are host memory. Allocates scratch of a
/// few cache blocks per thread. `lse`, where given, is written as [H, T_q].
void attention_forward_cpu(const AttentionForward& call, const CpuAttentionOptions& options);
/// Like attention_forward_cpu; for bf16 also the sums of d_q, [T_q, H, K] in fp32.
void attention_backward_cpu(const AttentionBackward& call, const CpuAttentionOptions& options);

}  // namespace scrna::kernels
