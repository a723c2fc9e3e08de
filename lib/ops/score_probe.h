// The size of attention scores, watched during training: max |scale * q.k| over sampled query rows. It grows
// for many steps before a softmax run diverges (arXiv 2604.27124), so it is logged per layer. Sampled,
// because the whole score matrix is what the attention kernels exist to avoid; a separate operator, so that
// the kernels carry no monitor.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention.h"

namespace scrna::ops {

struct ScoreProbe {
  uint64_t seed = 0;
  int64_t step = 0;         // optimizer step
  int64_t micro_batch = 0;  // index inside the global batch
  int64_t layer = 0;
  int64_t num_queries = 32;  // sampled query rows, or all when there are fewer
};

/// Products of some query rows with every key of the pack, for whoever looks at scores by LibTorch's operators.
struct SampledScores {
  at::Tensor products;    // [H, N, T] q.k of q's type, without the scale
  at::Tensor other_cell;  // [N, T] bool: the key belongs to another cell than the row
  at::Tensor lengths;     // [N] int64 tokens of the row's cell
};
/// The rows that max_abs_score looks at for this probe. q, k: [T, H, K] with T > 0; nothing waits for a GPU.
SampledScores sample_scores(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                            const ScoreProbe& probe);

/// q, k: [T, H, K]; cu_seqlens: [B+1] int32 on the same device. Rows are a systematic sample of the T tokens
/// with a counter-based offset; every head and every key of the row's own cell takes part. Returns a
/// 0-dimensional fp32 tensor on the device, without host synchronisation and without gradient; 0 when there
/// are no tokens. NaN scores give NaN. On CUDA by kernels/score_probe_cuda.h, for fp32 and bf16 with K a
/// multiple of 8 up to 256 and rows at multiples of 16 bytes; elsewhere by LibTorch operators, which need
/// memory for H * num_queries * T scores. Throws ConfigError when the kernel is asked for and cannot serve.
at::Tensor max_abs_score(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                         double scale, const ScoreProbe& probe,
                         Implementation implementation = Implementation::kAuto);

/// The true maximum, of every query row. cu_seqlens_host: the same numbers in host memory. By the kernel above where it
/// serves; elsewhere cell by cell in blocks of rows, so the memory is that of some hundred rows of the longest cell.
at::Tensor exact_max_abs_score(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                               const at::Tensor& cu_seqlens_host, double scale);

}  // namespace scrna::ops
