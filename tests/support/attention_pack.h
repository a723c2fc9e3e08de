// A ragged pack of tensors for tests of lib/ops/attention on any device, its fp64 oracle, and one forward and
// backward pass through autograd.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "lib/ops/attention.h"
#include "tests/support/reference64.h"
#include "tests/support/tolerance.h"

namespace scrna::test {

inline constexpr int64_t kHeads = 2;

/// A ragged pack with random fp64 operands, and its fp64 oracle.
struct Pack {
  std::vector<int32_t> cu_seqlens{0};
  int64_t width = 32;
  int64_t max_cell_tokens = 0;
  at::Tensor qkv, d_o, cell_bias, key_bias;  // fp64 [T, 3, H, K], [T, H, K]; fp32 [B], [T]

  explicit Pack(const std::vector<int32_t>& lengths, int64_t head_width = 32) : width(head_width) {
    for (const int32_t length : lengths) {
      cu_seqlens.push_back(cu_seqlens.back() + length);
      max_cell_tokens = std::max<int64_t>(max_cell_tokens, length);
    }
    const int64_t tokens = cu_seqlens.back();
    // Rounded to bf16, so that every type sees the same numbers.
    const auto exact = [](const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kDouble); };
    qkv = exact(at::randn({tokens, 3, kHeads, width}));
    d_o = exact(at::randn({tokens, kHeads, width}));
    cell_bias = at::randn({static_cast<int64_t>(lengths.size())}) - 2.0;
    key_bias = at::randn({tokens});
  }
  [[nodiscard]] at::Tensor cu(at::Device device = at::kCPU) const {
    return at::tensor(cu_seqlens, at::kInt).to(device);
  }
};

inline std::vector<double> flat(const at::Tensor& x) {
  const at::Tensor y = x.detach().to(at::kCPU, at::kDouble).contiguous();
  return {y.data_ptr<double>(), y.data_ptr<double>() + y.numel()};
}

inline AttentionResult64 oracle(const Pack& pack, const ops::AttentionOptions& options) {
  kernels::AttentionShape shape;
  shape.num_cells = static_cast<int64_t>(pack.cu_seqlens.size()) - 1;
  shape.num_heads = kHeads;
  shape.head_width = pack.width;
  shape.query = {.cu_seqlens = pack.cu_seqlens.data(), .total_tokens = pack.cu_seqlens.back()};
  shape.key = shape.query;
  shape.kind = options.kind;
  shape.bias_kind = options.bias_kind;
  shape.scalar_bias = options.scalar_bias;
  if (options.cell_bias.defined()) shape.cell_bias = options.cell_bias.data_ptr<float>();
  if (options.key_bias.defined()) shape.key_bias = options.key_bias.data_ptr<float>();
  shape.scale = options.scale.value_or(1.0F / std::sqrt(static_cast<float>(pack.width)));
  const auto part = [&](int64_t i) { return flat(pack.qkv.select(1, i)); };
  return attention_reference64(shape, part(0), part(1), part(2), flat(pack.d_o));
}

struct Result {
  at::Tensor o, d_q, d_k, d_v, d_cell_bias;
};

inline Result run(const Pack& pack, ops::AttentionOptions options, at::ScalarType type, bool fused,
                  at::Device device = at::kCPU) {
  if (options.cell_bias.defined()) options.cell_bias = options.cell_bias.to(device).clone().requires_grad_();
  if (options.key_bias.defined()) options.key_bias = options.key_bias.to(device);
  at::Tensor qkv = pack.qkv.to(device, type).clone().requires_grad_();
  const at::Tensor cu_seqlens = pack.cu(device);
  const at::Tensor d_o = pack.d_o.to(device, type);
  Result r;
  if (fused) {
    r.o = ops::attention_qkv(qkv, cu_seqlens, pack.max_cell_tokens, options);
    r.o.backward(d_o);
    r.d_q = qkv.grad().select(1, 0), r.d_k = qkv.grad().select(1, 1), r.d_v = qkv.grad().select(1, 2);
  } else {
    std::vector<at::Tensor> x;
    for (int64_t i = 0; i < 3; ++i) x.push_back(qkv.detach().select(1, i).contiguous().requires_grad_());
    r.o = ops::attention(x[0], x[1], x[2], cu_seqlens, pack.max_cell_tokens, options);
    r.o.backward(d_o);
    r.d_q = x[0].grad(), r.d_k = x[1].grad(), r.d_v = x[2].grad();
  }
  if (options.cell_bias.defined()) r.d_cell_bias = options.cell_bias.grad();
  return r;
}

inline void expect_close(const Result& actual, const AttentionResult64& expected, double tolerance) {
  EXPECT_LE(relative_l2(flat(actual.o), expected.o), tolerance);
  EXPECT_LE(relative_l2(flat(actual.d_q), expected.d_q), tolerance);
  EXPECT_LE(relative_l2(flat(actual.d_k), expected.d_k), tolerance);
  EXPECT_LE(relative_l2(flat(actual.d_v), expected.d_v), tolerance);
  if (!actual.d_cell_bias.defined()) return;
  const auto d_bias = flat(actual.d_cell_bias);
  for (size_t b = 0; b < d_bias.size(); ++b)
    EXPECT_NEAR(d_bias[b], expected.d_cell_bias[b],
                kBiasGradientOfMagnitudes * expected.d_cell_bias_magnitude[b]);
}

inline std::vector<ops::AttentionOptions> all_biases(const Pack& pack) {
  std::vector<ops::AttentionOptions> options(5);
  options[1].bias_kind = kernels::BiasKind::kScalar;
  options[1].scalar_bias = -1.5F;
  options[2].bias_kind = kernels::BiasKind::kPerCell;
  options[2].cell_bias = pack.cell_bias;
  options[2].key_bias = pack.key_bias;
  options[3].kind = kernels::AttentionKind::kSoftmax;
  options[4].kind = kernels::AttentionKind::kSoftmax;
  options[4].key_bias = pack.key_bias;
  options[4].scale = 0.3F;
  return options;
}

/// The largest relative error of outputs and gradients.
inline double error_of(const Result& actual, const AttentionResult64& expected) {
  return std::max({relative_l2(flat(actual.o), expected.o), relative_l2(flat(actual.d_q), expected.d_q),
                   relative_l2(flat(actual.d_k), expected.d_k), relative_l2(flat(actual.d_v), expected.d_v)});
}

}  // namespace scrna::test
