#include "lib/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/reference64.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

using kernels::AttentionKind;
using kernels::BiasKind;

constexpr int64_t kHeads = 2;

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
  [[nodiscard]] at::Tensor cu() const { return at::tensor(cu_seqlens, at::kInt); }
};

std::vector<double> flat(const at::Tensor& x) {
  const at::Tensor y = x.detach().to(at::kDouble).contiguous();
  return {y.data_ptr<double>(), y.data_ptr<double>() + y.numel()};
}

test::AttentionResult64 oracle(const Pack& pack, const AttentionOptions& options) {
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
  return test::attention_reference64(shape, part(0), part(1), part(2), flat(pack.d_o));
}

struct Result {
  at::Tensor o, d_q, d_k, d_v, d_cell_bias;
};

Result run(const Pack& pack, AttentionOptions options, at::ScalarType type, bool fused) {
  if (options.cell_bias.defined()) options.cell_bias = options.cell_bias.clone().requires_grad_();
  at::Tensor qkv = pack.qkv.to(type).clone().requires_grad_();
  Result r;
  if (fused) {
    r.o = attention_qkv(qkv, pack.cu(), pack.max_cell_tokens, options);
    r.o.backward(pack.d_o.to(type));
    r.d_q = qkv.grad().select(1, 0), r.d_k = qkv.grad().select(1, 1), r.d_v = qkv.grad().select(1, 2);
  } else {
    std::vector<at::Tensor> x;
    for (int64_t i = 0; i < 3; ++i) x.push_back(qkv.detach().select(1, i).contiguous().requires_grad_());
    r.o = attention(x[0], x[1], x[2], pack.cu(), pack.max_cell_tokens, options);
    r.o.backward(pack.d_o.to(type));
    r.d_q = x[0].grad(), r.d_k = x[1].grad(), r.d_v = x[2].grad();
  }
  if (options.cell_bias.defined()) r.d_cell_bias = options.cell_bias.grad();
  return r;
}

void expect_close(const Result& actual, const test::AttentionResult64& expected, double tolerance) {
  EXPECT_LE(test::relative_l2(flat(actual.o), expected.o), tolerance);
  EXPECT_LE(test::relative_l2(flat(actual.d_q), expected.d_q), tolerance);
  EXPECT_LE(test::relative_l2(flat(actual.d_k), expected.d_k), tolerance);
  EXPECT_LE(test::relative_l2(flat(actual.d_v), expected.d_v), tolerance);
  if (!actual.d_cell_bias.defined()) return;
  const auto d_bias = flat(actual.d_cell_bias);
  for (size_t b = 0; b < d_bias.size(); ++b)
    EXPECT_NEAR(d_bias[b], expected.d_cell_bias[b],
                test::kBiasGradientOfMagnitudes * expected.d_cell_bias_magnitude[b]);
}

std::vector<AttentionOptions> all_biases(const Pack& pack) {
  std::vector<AttentionOptions> options(5);
  options[1].bias_kind = BiasKind::kScalar;
  options[1].scalar_bias = -1.5F;
  options[2].bias_kind = BiasKind::kPerCell;
  options[2].cell_bias = pack.cell_bias;
  options[2].key_bias = pack.key_bias;
  options[3].kind = AttentionKind::kSoftmax;
  options[4].kind = AttentionKind::kSoftmax;
  options[4].key_bias = pack.key_bias;
  options[4].scale = 0.3F;
  return options;
}

TEST(Attention, TheComposedTwinInDoubleIsTheDefinition) {
  const Pack pack({5, 0, 1, 33, 64});
  for (AttentionOptions options : all_biases(pack)) {
    options.implementation = Implementation::kComposed;
    for (const bool fused : {false, true})
      expect_close(run(pack, options, at::kDouble, fused), oracle(pack, options), test::kFloat64RelativeL2);
  }
}

TEST(Attention, TheDefaultForFloatIsCloseToTheOracle) {
  const Pack pack({17, 0, 100, 1, 130});
  for (const AttentionOptions& options : all_biases(pack))
    for (const bool fused : {false, true})
      expect_close(run(pack, options, at::kFloat, fused), oracle(pack, options), test::kFloat32RelativeL2);
}

/// The largest relative error of outputs and gradients.
double error_of(const Result& actual, const test::AttentionResult64& expected) {
  return std::max(
      {test::relative_l2(flat(actual.o), expected.o), test::relative_l2(flat(actual.d_q), expected.d_q),
       test::relative_l2(flat(actual.d_k), expected.d_k), test::relative_l2(flat(actual.d_v), expected.d_v)});
}

TEST(Attention, TheKernelIsAtMostTwiceAsFarFromTheOracleAsTheComposedTwin) {
  for (const int64_t width : {32, 64, 128}) {
    const Pack pack({65, 1, 300, 0, 128}, width);
    for (AttentionOptions options : all_biases(pack)) {
      const auto expected = oracle(pack, options);
      options.implementation = Implementation::kComposed;
      const double twin = error_of(run(pack, options, at::kFloat, true), expected);
      options.implementation = Implementation::kKernel;
      const double kernel = error_of(run(pack, options, at::kFloat, true), expected);
      EXPECT_LE(kernel, test::kTwinFactor * twin + test::kTwinFloor);
    }
  }
}

TEST(Attention, TheChoiceSaysWhatRunsAndWhy) {
  const auto choice = choose_attention(at::kCPU, at::kFloat, 64, {});
  EXPECT_EQ(choice.implementation, Implementation::kKernel);
  EXPECT_NE(choice.reason.find("CPU kernel"), std::string::npos);
  EXPECT_EQ(choose_attention(at::kCPU, at::kDouble, 64, {}).implementation, Implementation::kComposed);
  AttentionOptions options;
  options.implementation = Implementation::kKernel;
  EXPECT_THROW(choose_attention(at::kCPU, at::kDouble, 64, options), ConfigError);
  EXPECT_THROW(choose_attention(at::kCPU, at::kFloat, 512, options), ConfigError);
  options.implementation = Implementation::kComposed;
  EXPECT_EQ(choose_attention(at::kCPU, at::kFloat, 64, options).implementation, Implementation::kComposed);
}

TEST(Attention, HalfTypesAreComputedInFloatOnTheCpu) {
  const Pack pack({40, 3});
  for (const AttentionOptions& options : all_biases(pack)) {
    for (const auto& [type, tolerance] : {std::pair(at::kBFloat16, test::kBFloat16OutputRelativeL2),
                                          std::pair(at::kHalf, test::kFloat16OutputRelativeL2)}) {
      const Result result = run(pack, options, type, true);
      EXPECT_EQ(result.o.scalar_type(), type);
      EXPECT_EQ(result.d_q.scalar_type(), type);
      const auto expected = oracle(pack, options);
      EXPECT_LE(test::relative_l2(flat(result.o), expected.o), tolerance);
      EXPECT_LE(test::relative_l2(flat(result.d_q), expected.d_q), tolerance);
      EXPECT_LE(test::relative_l2(flat(result.d_v), expected.d_v), tolerance);
    }
  }
}

TEST(Attention, APackWithoutTokensOrWithoutCellsIsFine) {
  for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{}, {0, 0}}) {
    const Pack pack(lengths);
    const Result result = run(pack, {}, at::kFloat, true);
    EXPECT_EQ(result.o.numel(), 0);
    EXPECT_EQ(result.d_q.numel(), 0);
  }
}

TEST(Attention, OneLearnableScalarBiasGetsTheSumOfTheCellsGradients) {
  const Pack pack({9, 30});
  AttentionOptions options;
  options.bias_kind = BiasKind::kPerCell;
  const at::Tensor scalar = at::full({1}, -2.0F).requires_grad_();
  options.cell_bias = scalar.expand({2}).contiguous();
  attention_qkv(pack.qkv.to(at::kFloat), pack.cu(), pack.max_cell_tokens, options)
      .backward(pack.d_o.to(at::kFloat));
  const auto expected = oracle(pack, options);
  EXPECT_NEAR(scalar.grad().item<double>(), expected.d_cell_bias[0] + expected.d_cell_bias[1],
              test::kBiasGradientOfMagnitudes *
                  (expected.d_cell_bias_magnitude[0] + expected.d_cell_bias_magnitude[1]));
}

TEST(Attention, WrongInputsAreRefusedWithTheReason) {
  const Pack pack({4, 4});
  const at::Tensor qkv = pack.qkv.to(at::kFloat);
  EXPECT_THROW(attention_qkv(qkv, at::tensor({0, 5, 4}, at::kInt), 8), InternalError);
  EXPECT_THROW(attention_qkv(qkv, at::tensor({0, 4, 7}, at::kInt), 8), InternalError);
  EXPECT_THROW(attention_qkv(qkv, pack.cu(), 3), InternalError);
  EXPECT_THROW(attention_qkv(qkv, pack.cu().to(at::kLong), 4), InternalError);
  EXPECT_THROW(attention_qkv(qkv.select(1, 0), pack.cu(), 4), InternalError);
  EXPECT_THROW(attention_qkv(qkv.transpose(2, 3), pack.cu(), 4), InternalError);
  AttentionOptions options;
  options.bias_kind = BiasKind::kPerCell;
  EXPECT_THROW(attention_qkv(qkv, pack.cu(), 4, options), InternalError);
  EXPECT_THROW(attention_qkv(qkv.to(at::kInt), pack.cu(), 4), ConfigError);
}

}  // namespace
}  // namespace scrna::ops
