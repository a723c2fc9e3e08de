#include "lib/ops/score_probe.h"

#include <algorithm>
#include <cmath>
#include <string>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/zeros.h>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "lib/ops/kernel_choice.h"

#ifdef SCRNA_CUDA_ENABLED
#include "kernels/score_probe_cuda.h"
#endif

namespace scrna::ops {
namespace {

constexpr int64_t kRowsAtATime = 512;  // of the exact maximum

#ifdef SCRNA_CUDA_ENABLED
kernels::ScoreProbe kernel_call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu_seqlens) {
  return {.q = {q.data_ptr(), q.stride(0), q.stride(1)},
          .k = {k.data_ptr(), k.stride(0), k.stride(1)},
          .element_type = element_type(q.scalar_type()),
          .num_tokens = q.size(0),
          .num_heads = q.size(1),
          .head_width = q.size(2),
          .cu_seqlens = cu_seqlens.data_ptr<int32_t>(),
          .num_cells = cu_seqlens.numel() - 1};
}
#endif

std::string missing_for_kernel(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu_seqlens) {
  const std::string unreadable = unreadable_by_kernels({cu_seqlens, at::empty({0}, q.options())});
  if (!unreadable.empty()) return unreadable;
#ifdef SCRNA_CUDA_ENABLED
  if (q.scalar_type() != at::kFloat && q.scalar_type() != at::kBFloat16) return "it takes fp32 and bf16";
  if (q.stride(2) != 1 || k.stride(2) != 1 || k.scalar_type() != q.scalar_type())
    return "q and k must have contiguous rows of one type";
  const char* reason = kernels::score_probe_unsupported(kernel_call(q, k, cu_seqlens));
  if (reason != nullptr) return reason;
#else
  static_cast<void>(k);
#endif
  return {};
}

void check(const at::Tensor& q_THK, const at::Tensor& k_THK, const ScoreProbe& probe) {
  SCRNA_CHECK(q_THK.dim() == 3 && k_THK.sizes() == q_THK.sizes(),
              "score probe: q and k must both be [T, H, K]");
  SCRNA_CHECK(probe.num_queries >= 1, "score probe: at least one query row must be sampled");
}

// Row i = floor((i T + offset) / N), offset in [0, T): evenly spread, made on the device from one number.
int64_t offset_of(const ScoreProbe& probe, int64_t num_tokens) {
  const RandomStream stream(
      probe.seed, RandomPurpose::kProbe, static_cast<uint64_t>(probe.step),
      (static_cast<uint64_t>(probe.micro_batch) << 16) | static_cast<uint64_t>(probe.layer));
  return static_cast<int64_t>(stream.below(static_cast<uint64_t>(num_tokens), 0));
}

}  // namespace

SampledScores sample_scores(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                            const ScoreProbe& probe) {
  check(q_THK, k_THK, probe);
  const at::NoGradGuard no_grad;
  const int64_t num_tokens = q_THK.size(0);
  const int64_t num_rows = std::min(probe.num_queries, num_tokens);
  const at::TensorOptions integers = q_THK.options().dtype(at::kLong);
  const at::Tensor rows = at::arange(num_rows, integers)
                              .mul_(num_tokens)
                              .add_(offset_of(probe, num_tokens))
                              .div_(num_rows, /*rounding_mode=*/"floor");
  const at::Tensor begin = cu_seqlens.to(at::kLong);
  const at::Tensor ends = begin.slice(0, 1).contiguous();
  const at::Tensor cells = at::searchsorted(ends, rows, /*out_int32=*/false, /*right=*/true);
  const at::Tensor first = begin.index_select(0, cells).unsqueeze(1);  // [N, 1]
  const at::Tensor last = ends.index_select(0, cells).unsqueeze(1);    // [N, 1], exclusive
  const at::Tensor tokens = at::arange(num_tokens, integers).unsqueeze(0);
  const at::Tensor q_HNK = q_THK.index_select(0, rows).transpose(0, 1);
  return {.products = at::bmm(q_HNK, k_THK.permute({1, 2, 0})),
          .other_cell = tokens.lt(first).logical_or_(tokens.ge(last)),
          .lengths = last.sub(first).squeeze(1)};
}

at::Tensor max_abs_score(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                         double scale, const ScoreProbe& probe, Implementation implementation) {
  check(q_THK, k_THK, probe);
  const at::NoGradGuard no_grad;
  const int64_t num_tokens = q_THK.size(0);
  if (num_tokens == 0) return at::zeros({}, q_THK.options().dtype(at::kFloat));
  if (use_kernel(implementation, "score probe", missing_for_kernel(q_THK, k_THK, cu_seqlens))) {
#ifdef SCRNA_CUDA_ENABLED
    const at::Tensor result = at::empty({}, q_THK.options().dtype(at::kFloat));
    kernels::ScoreProbe call = kernel_call(q_THK, k_THK, cu_seqlens);
    call.num_queries = std::min(probe.num_queries, num_tokens);
    call.offset = offset_of(probe, num_tokens);
    call.scale = static_cast<float>(scale);
    call.result = result.data_ptr<float>();
    launch_on_stream(q_THK, "score probe",
                     [&](cudaStream_t cuda_stream) { return kernels::score_probe_cuda(call, cuda_stream); });
    return result;
#endif
  }
  const SampledScores sampled = sample_scores(q_THK, k_THK, cu_seqlens, probe);
  return sampled.products.abs().masked_fill_(sampled.other_cell, 0.0).amax().to(at::kFloat).mul_(std::fabs(scale));
}

at::Tensor exact_max_abs_score(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                               const at::Tensor& cu_seqlens_host, double scale) {
  const at::NoGradGuard no_grad;
  const int64_t num_tokens = q_THK.size(0);
  if (num_tokens > 0 && use_kernel(Implementation::kAuto, "score probe", missing_for_kernel(q_THK, k_THK, cu_seqlens))) {
    return max_abs_score(q_THK, k_THK, cu_seqlens, scale, {.num_queries = num_tokens}, Implementation::kKernel);
  }
  at::Tensor largest = at::zeros({}, q_THK.options().dtype(at::kFloat));
  const auto* begin = cu_seqlens_host.const_data_ptr<int32_t>();
  for (int64_t cell = 0; cell + 1 < cu_seqlens_host.numel(); ++cell) {
    const at::Tensor keys_HKn = k_THK.slice(0, begin[cell], begin[cell + 1]).permute({1, 2, 0});
    for (int64_t row = begin[cell]; row < begin[cell + 1]; row += kRowsAtATime) {
      const int64_t end = std::min<int64_t>(row + kRowsAtATime, begin[cell + 1]);
      const at::Tensor products = at::bmm(q_THK.slice(0, row, end).transpose(0, 1), keys_HKn);
      largest = at::maximum(largest, products.abs_().amax().to(at::kFloat));  // a NaN is kept
    }
  }
  return largest.mul_(std::fabs(scale));
}

}  // namespace scrna::ops
