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
#include "tests/support/attention_pack.h"
#include "tests/support/expect_error.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

using kernels::AttentionKind;
using kernels::BiasKind;
using test::all_biases;
using test::error_of;
using test::expect_close;
using test::flat;
using test::oracle;
using test::Pack;
using test::Result;
using test::run;

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
  AttentionOptions options;
  options.implementation = Implementation::kComposed;
  for (const auto type : {at::kFloat, at::kDouble})
    EXPECT_EQ(choose_attention(at::kCPU, type, 512, options).implementation, Implementation::kComposed);
}

TEST(Attention, FlashAttentionIsForSoftmaxOnCuda) {
  AttentionOptions options;
  options.implementation = Implementation::kFlash;
  for (const auto kind : {AttentionKind::kSoftmax, AttentionKind::kSigmoid}) {
    options.kind = kind;
    const std::string message =
        test::message_of<ConfigError>([&] { choose_attention(at::kCPU, at::kBFloat16, 64, options); });
    EXPECT_CONTAINS(message, kind == AttentionKind::kSoftmax ? "for CUDA, not cpu" : "softmax only");
  }
}

TEST(Attention, AWidthOrTypeWithoutAKernelIsAnErrorThatNamesWhatIsSupported) {
  AttentionOptions options;
  for (const auto implementation : {Implementation::kAuto, Implementation::kKernel}) {
    options.implementation = implementation;
    const std::string wide =
        test::message_of<ConfigError>([&] { choose_attention(at::kCPU, at::kFloat, 512, options); });
    for (const char* part : {"512", "head widths 1 to 256", "composed"}) EXPECT_CONTAINS(wide, part);
    const std::string fp64 =
        test::message_of<ConfigError>([&] { choose_attention(at::kCPU, at::kDouble, 64, options); });
    for (const char* part : {"fp64", "fp32, bf16 and fp16", "composed"}) EXPECT_CONTAINS(fp64, part);
  }
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
