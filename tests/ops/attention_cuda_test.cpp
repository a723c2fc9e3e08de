// Attention on CUDA behind lib/ops (our kernels for sigmoid, LibTorch's FlashAttention-2 for softmax):
// choice, autograd, and errors beside those of the composed twin on the same GPU.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/ops/attention.h"
#include "tests/support/attention_layouts.h"
#include "tests/support/expect_error.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

using kernels::AttentionKind;
using test::Pack;
using test::Result;

class AttentionOnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA() || at::cuda::getCurrentDeviceProperties()->major != 9)
      GTEST_SKIP() << "needs a GPU of compute capability 9.0";
  }
};

TEST_F(AttentionOnCuda, TheChoiceSaysWhatRunsAndWhy) {
  const auto choice = choose_attention(at::kCUDA, at::kBFloat16, 64, {});
  EXPECT_EQ(choice.implementation, Implementation::kKernel);
  EXPECT_NE(choice.reason.find("CUDA kernel"), std::string::npos);
  EXPECT_EQ(choose_attention(at::kCUDA, at::kHalf, 128, {}).implementation, Implementation::kKernel);
  AttentionOptions options;
  options.kind = AttentionKind::kSoftmax;  // no kernel of ours, and the log says so
  const auto softmax = choose_attention(at::kCUDA, at::kBFloat16, 64, options);
  EXPECT_EQ(softmax.implementation, Implementation::kFlash);
  for (const char* part : {"FlashAttention-2", "sigmoid"}) EXPECT_CONTAINS(softmax.reason, part);
  options.implementation = Implementation::kKernel;
  EXPECT_THROW(choose_attention(at::kCUDA, at::kBFloat16, 64, options), ConfigError);
  options.implementation = Implementation::kAuto;
  options.key_bias = at::zeros({1});
  const auto biased = choose_attention(at::kCUDA, at::kBFloat16, 64, options);
  EXPECT_EQ(biased.implementation, Implementation::kComposed);
  EXPECT_CONTAINS(biased.reason, "key bias");
}

TEST_F(AttentionOnCuda, AWidthOrTypeThatFlashAttentionDoesNotTakeIsAnErrorThatNamesWhatIsSupported) {
  AttentionOptions options;
  options.kind = AttentionKind::kSoftmax;
  for (const auto implementation : {Implementation::kAuto, Implementation::kFlash}) {
    options.implementation = implementation;
    for (const auto& [type, width] : {std::pair(at::kBFloat16, 100), std::pair(at::kFloat, 64)}) {
      const std::string message =
          test::message_of<ConfigError>([&] { choose_attention(at::kCUDA, type, width, options); });
      EXPECT_CONTAINS(message, type == at::kFloat ? "takes bf16 and fp16" : "multiples of 8 up to 192");
    }
  }
  options.implementation = Implementation::kFlash;
  options.kind = AttentionKind::kSigmoid;
  EXPECT_THROW(choose_attention(at::kCUDA, at::kBFloat16, 64, options), ConfigError);
}

TEST_F(AttentionOnCuda, AWidthOrTypeWithoutAKernelIsAnErrorThatNamesWhatIsSupported) {
  AttentionOptions options;
  for (const auto implementation : {Implementation::kAuto, Implementation::kKernel}) {
    options.implementation = implementation;
    for (const auto& [type, width] : {std::pair(at::kBFloat16, 48), std::pair(at::kFloat, 64)}) {
      const std::string message =
          test::message_of<ConfigError>([&] { choose_attention(at::kCUDA, type, width, options); });
      for (const char* part : {"bf16 and fp16 with head widths", "64", "128", "composed"})
        EXPECT_CONTAINS(message, part);
    }
  }
  options.implementation = Implementation::kComposed;
  EXPECT_EQ(choose_attention(at::kCUDA, at::kFloat, 48, options).implementation, Implementation::kComposed);
}

TEST_F(AttentionOnCuda, TheKernelIsAtMostTwiceAsFarFromTheOracleAsTheComposedTwin) {
  for (const int64_t width : {64, 128}) {
    const Pack pack({65, 1, 300, 0, 128, 700}, width);
    for (AttentionOptions options : test::all_biases(pack)) {
      if (options.kind == AttentionKind::kSoftmax) continue;
      const auto expected = test::oracle(pack, options);
      for (const auto type : {at::kBFloat16, at::kHalf})
        for (const bool fused : {true, false}) {
          options.implementation = Implementation::kComposed;
          const double twin = test::error_of(test::run(pack, options, type, fused, at::kCUDA), expected);
          options.implementation = Implementation::kKernel;
          for (const auto precision : {kernels::SigmoidPrecision::kExact, kernels::SigmoidPrecision::kFast}) {
            options.precision = precision;
            const Result result = test::run(pack, options, type, fused, at::kCUDA);
            EXPECT_LE(test::error_of(result, expected), test::kTwinFactor * twin);
            if (!result.d_cell_bias.defined()) continue;
            const auto d_bias = test::flat(result.d_cell_bias);
            for (size_t b = 0; b < d_bias.size(); ++b)
              EXPECT_NEAR(d_bias[b], expected.d_cell_bias[b],
                          test::kHalfBiasGradientOfMagnitudes * expected.d_cell_bias_magnitude[b]);
          }
        }
    }
  }
}

TEST_F(AttentionOnCuda, SoftmaxByFlashAttentionIsAtMostTwiceAsFarFromTheOracleAsTheComposedTwin) {
  for (const int64_t width : {8, 32, 64, 96, 128, 192}) {
    const Pack pack({65, 1, 300, 0, 128, 700}, width);
    AttentionOptions options;
    options.kind = AttentionKind::kSoftmax;
    for (const std::optional<float> scale : {std::optional<float>(), std::optional<float>(0.3F)}) {
      options.scale = scale;
      const auto expected = test::oracle(pack, options);
      for (const auto type : {at::kBFloat16, at::kHalf})
        for (const bool fused : {true, false}) {
          SCOPED_TRACE(testing::Message() << "width " << width << ", fused " << fused);
          options.implementation = Implementation::kComposed;
          const double twin = test::error_of(test::run(pack, options, type, fused, at::kCUDA), expected);
          options.implementation = Implementation::kFlash;
          const Result result = test::run(pack, options, type, fused, at::kCUDA);
          EXPECT_LE(test::error_of(result, expected), test::kTwinFactor * twin);
          options.implementation = Implementation::kAuto;
          EXPECT_TRUE(at::equal(test::run(pack, options, type, fused, at::kCUDA).o, result.o));
        }
    }
  }
}

TEST_F(AttentionOnCuda, ViewsThatTheKernelsCannotReadInPlaceAreCopied) {
  const Pack pack({90, 200}, 64);
  const at::Tensor qkv = pack.qkv.to(at::kCUDA, at::kBFloat16);
  const at::Tensor cu = pack.cu(at::kCUDA);
  const auto odd = [&](int64_t i) {  // the same values one element off any 16-byte boundary
    const at::Tensor room = at::zeros({qkv.size(0), test::kHeads, 67}, qkv.options());
    const at::Tensor view = room.narrow(2, 1, 64);
    view.copy_(qkv.select(1, i));
    return view.requires_grad_();
  };
  const at::Tensor q = odd(0), k = odd(1), v = odd(2);
  for (const auto kind : {AttentionKind::kSigmoid, AttentionKind::kSoftmax}) {
    AttentionOptions options;
    options.kind = kind;
    for (const at::Tensor& x : {q, k, v}) x.mutable_grad().reset();
    const at::Tensor o = attention(q, k, v, cu, pack.max_cell_tokens, options);
    EXPECT_TRUE(at::equal(o, attention_qkv(qkv, cu, pack.max_cell_tokens, options)));
    o.sum().backward();  // the gradient of the sum is one value, expanded: no strides that a kernel could use
    EXPECT_TRUE(q.grad().defined());
    EXPECT_GT(v.grad().abs().sum().item<float>(), 0.0F);
  }
}

TEST_F(AttentionOnCuda, DeterministicGradientsAreBitwiseEqualByOptionAndByLibTorchsSwitch) {
  const Pack pack({2000, 3, 1500}, 64);
  for (const auto kind : {AttentionKind::kSigmoid, AttentionKind::kSoftmax}) {
    AttentionOptions options;
    options.kind = kind;
    options.deterministic = true;
    const Result first = test::run(pack, options, at::kBFloat16, true, at::kCUDA);
    EXPECT_FALSE(at::globalContext().deterministicAlgorithms()) << "the option leaves the switch as it was";
    for (int repeat = 0; repeat < 4; ++repeat) {
      if (repeat == 1) {
        options.deterministic = false;
        at::globalContext().setDeterministicAlgorithms(true, false);
      }
      const Result again = test::run(pack, options, at::kBFloat16, true, at::kCUDA);
      EXPECT_TRUE(at::equal(again.o, first.o));
      EXPECT_TRUE(at::equal(again.d_q, first.d_q));
      EXPECT_TRUE(at::equal(again.d_k, first.d_k));
      EXPECT_TRUE(at::equal(again.d_v, first.d_v));
    }
    at::globalContext().setDeterministicAlgorithms(false, false);
  }
}

TEST_F(AttentionOnCuda, EveryLayoutIsAtMostTwiceAsFarFromTheOracleAsTheComposedTwinAndItsPaddingIsZero) {
  for (const test::LayoutCase& layout_case : test::layout_cases()) {
    for (const int64_t width : {64, 128}) {
      const test::Layout layout(layout_case, width);
      SCOPED_TRACE(layout.name());
      for (AttentionOptions options : layout.options()) {
        if (options.kind == AttentionKind::kSoftmax) continue;
        const auto expected = layout.oracle(options);
        for (const test::Views views : views_of(layout)) {
          options.implementation = Implementation::kComposed;
          const Result twin = layout.run(options, at::kBFloat16, views, at::kCUDA);
          EXPECT_TRUE(layout.padding_is_zero(twin));
          options.implementation = Implementation::kKernel;
          const Result result = layout.run(options, at::kBFloat16, views, at::kCUDA);
          EXPECT_LE(test::error_of(result, expected), test::kTwinFactor * test::error_of(twin, expected));
          EXPECT_LE(test::error_of(result, expected), test::kBFloat16AttentionGradient);
          EXPECT_TRUE(layout.padding_is_zero(result));
          if (!result.d_cell_bias.defined()) continue;
          const auto d_bias = test::flat(result.d_cell_bias);
          for (size_t b = 0; b < d_bias.size(); ++b)
            EXPECT_NEAR(d_bias[b], expected.d_cell_bias[b],
                        test::kHalfBiasGradientOfMagnitudes * expected.d_cell_bias_magnitude[b]);
        }
      }
    }
  }
}

// A cell that has queries and no keys, padding of each side, a side that is empty: as our kernels, zeros.
TEST_F(AttentionOnCuda, SoftmaxOfEveryLayoutIsAtMostTwiceAsFarFromTheOracleAsTheTwinAndItsPaddingIsZero) {
  for (const test::LayoutCase& layout_case : test::layout_cases()) {
    for (const int64_t width : {64, 128}) {
      const test::Layout layout(layout_case, width);
      SCOPED_TRACE(layout.name());
      AttentionOptions options;
      options.kind = AttentionKind::kSoftmax;
      const auto expected = layout.oracle(options);
      for (const test::Views views : views_of(layout)) {
        options.implementation = Implementation::kComposed;
        const Result twin = layout.run(options, at::kBFloat16, views, at::kCUDA);
        options.implementation = Implementation::kFlash;
        const Result result = layout.run(options, at::kBFloat16, views, at::kCUDA);
        EXPECT_LE(test::error_of(result, expected), test::kTwinFactor * test::error_of(twin, expected));
        EXPECT_LE(test::error_of(result, expected), test::kBFloat16AttentionGradient);
        EXPECT_TRUE(layout.padding_is_zero(result));
      }
    }
  }
}

TEST_F(AttentionOnCuda, APackWithoutTokensOrWithoutCellsIsFine) {
  for (const auto kind : {AttentionKind::kSigmoid, AttentionKind::kSoftmax})
    for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{}, {0, 0}}) {
      const Pack pack(lengths, 64);
      AttentionOptions options;
      options.kind = kind;
      const Result result = test::run(pack, options, at::kBFloat16, true, at::kCUDA);
      EXPECT_EQ(result.o.numel(), 0);
      EXPECT_EQ(result.d_q.numel(), 0);
    }
}

}  // namespace
}  // namespace scrna::ops
