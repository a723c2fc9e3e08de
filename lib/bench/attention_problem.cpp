#include "lib/bench/attention_problem.h"

#include <algorithm>

#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

namespace scrna::bench {
namespace {

/// Tokens [T, ...] as cells padded to S: [B, S, ...], zero in padding.
at::Tensor padded(const at::Tensor& x, const AttentionRow& row) {
  std::vector<int64_t> shape{static_cast<int64_t>(row.lengths.size()), row.padded_length};
  shape.insert(shape.end(), x.sizes().begin() + 1, x.sizes().end());
  const at::Tensor y = at::zeros(shape, x.options());
  int64_t begin = 0;
  for (size_t b = 0; b < row.lengths.size(); ++b) {
    const int64_t length = row.lengths[b];
    y.select(0, static_cast<int64_t>(b)).narrow(0, 0, length).copy_(x.narrow(0, begin, length));
    begin += length;
  }
  return y;
}

}  // namespace

AttentionProblem::AttentionProblem(AttentionRow given, const at::Device& device, at::ScalarType type)
    : row(std::move(given)) {
  std::vector<int32_t> begin{0};
  for (const int32_t length : row.lengths) {
    begin.push_back(begin.back() + length);
    max_length = std::max<int64_t>(max_length, length);
  }
  const auto options = at::TensorOptions(device).dtype(type);
  cu_seqlens = at::tensor(begin, at::kInt).to(device);
  qkv = at::randn({begin.back(), 3, row.num_heads, row.head_width}, options);
  d_o = at::randn({begin.back(), row.num_heads, row.head_width}, options);
  if (row.padded_length == 0) return;
  lengths = at::tensor(row.lengths, at::kInt).to(device);
  padded_qkv = padded(qkv, row);
  padded_d_o = padded(d_o, row);
}

}  // namespace scrna::bench
