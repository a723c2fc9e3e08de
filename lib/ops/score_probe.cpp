#include "lib/ops/score_probe.h"

#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/zeros.h>

#include "lib/core/error.h"
#include "lib/core/random.h"

namespace scrna::ops {

at::Tensor max_abs_score(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& cu_seqlens,
                         double scale, const ScoreProbe& probe) {
  SCRNA_CHECK(q_THK.dim() == 3 && k_THK.sizes() == q_THK.sizes(),
              "score probe: q and k must both be [T, H, K]");
  SCRNA_CHECK(probe.num_queries >= 1, "score probe: at least one query row must be sampled");
  const at::NoGradGuard no_grad;
  const int64_t num_tokens = q_THK.size(0);
  if (num_tokens == 0) return at::zeros({}, q_THK.options().dtype(at::kFloat));
  const int64_t num_rows = std::min(probe.num_queries, num_tokens);
  const at::TensorOptions integers = q_THK.options().dtype(at::kLong);

  // Row i = floor((i T + offset) / N), offset in [0, T): evenly spread, made on the device from one number.
  const RandomStream stream(
      probe.seed, RandomPurpose::kProbe, static_cast<uint64_t>(probe.step),
      (static_cast<uint64_t>(probe.micro_batch) << 16) | static_cast<uint64_t>(probe.layer));
  const auto offset = static_cast<int64_t>(stream.below(static_cast<uint64_t>(num_tokens), 0));
  const at::Tensor rows =
      at::arange(num_rows, integers).mul_(num_tokens).add_(offset).div_(num_rows, /*rounding_mode=*/"floor");

  const at::Tensor begin = cu_seqlens.to(at::kLong);
  const at::Tensor ends = begin.slice(0, 1).contiguous();
  const at::Tensor cells = at::searchsorted(ends, rows, /*out_int32=*/false, /*right=*/true);
  const at::Tensor first = begin.index_select(0, cells).unsqueeze(1);  // [N, 1]
  const at::Tensor last = ends.index_select(0, cells).unsqueeze(1);    // [N, 1], exclusive
  const at::Tensor tokens = at::arange(num_tokens, integers).unsqueeze(0);
  const at::Tensor other_cell = tokens.lt(first).logical_or_(tokens.ge(last));  // [N, T]

  const at::Tensor q_HNK = q_THK.index_select(0, rows).transpose(0, 1);
  at::Tensor scores = at::bmm(q_HNK, k_THK.permute({1, 2, 0}));  // [H, N, T]
  return scores.abs_().masked_fill_(other_cell, 0.0).amax().to(at::kFloat).mul_(std::fabs(scale));
}

}  // namespace scrna::ops
