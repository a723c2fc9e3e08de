// The layouts of lib/ops/attention on the CPU: padded, and packed with other keys than queries. Every case
// runs through the kernel and through the composed twin, with operands alone and as views of shared memory.
#include "tests/support/attention_layouts.h"

#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/ops/attention.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

using test::Layout;
using test::layout_cases;
using test::LayoutCase;
using test::Result;
using test::Views;

TEST(AttentionLayouts, TheComposedTwinInDoubleIsTheDefinition) {
  for (const LayoutCase& layout_case : layout_cases()) {
    const Layout layout(layout_case);
    SCOPED_TRACE(layout.name());
    for (AttentionOptions options : layout.options()) {
      options.implementation = Implementation::kComposed;
      for (const Views views : views_of(layout)) {
        const Result result = layout.run(options, at::kDouble, views);
        test::expect_close(result, layout.oracle(options), test::kFloat64RelativeL2);
        EXPECT_TRUE(layout.padding_is_zero(result));
      }
    }
  }
}

TEST(AttentionLayouts, TheKernelIsAtMostTwiceAsFarFromTheOracleAsTheComposedTwinAndPaddingIsExactlyZero) {
  for (const LayoutCase& layout_case : layout_cases()) {
    for (const int64_t width : {32, 64}) {
      const Layout layout(layout_case, width);
      SCOPED_TRACE(layout.name());
      for (AttentionOptions options : layout.options()) {
        const auto expected = layout.oracle(options);
        for (const Views views : views_of(layout)) {
          options.implementation = Implementation::kComposed;
          const double twin = test::error_of(layout.run(options, at::kFloat, views), expected);
          options.implementation = Implementation::kKernel;
          const Result result = layout.run(options, at::kFloat, views);
          EXPECT_LE(test::error_of(result, expected), test::kTwinFactor * twin + test::kTwinFloor);
          test::expect_close(result, expected, test::kFloat32RelativeL2);  // the gradient of the bias too
          EXPECT_TRUE(layout.padding_is_zero(result));
        }
      }
    }
  }
}

TEST(AttentionLayouts, HalfTypesAreComputedInFloatOnTheCpu) {
  const Layout layout({"", {5, 0, 65}, {40, 3, 9}, 3, 1});
  for (const AttentionOptions& options : layout.options()) {
    const Result result = layout.run(options, at::kBFloat16, Views::kShared);
    EXPECT_EQ(result.d_k.scalar_type(), at::kBFloat16);
    EXPECT_LE(test::error_of(result, layout.oracle(options)), test::kBFloat16OutputRelativeL2);
    EXPECT_TRUE(layout.padding_is_zero(result));
  }
}

TEST(AttentionLayouts, PaddedAndPackedGiveTheSameBits) {
  const at::Tensor qkv = at::randn({50, 3, test::kHeads, 32});  // a cell of 20 and one of 30
  const at::Tensor packed = attention_qkv(qkv, at::tensor({0, 20, 50}, at::kInt), 30);
  const at::Tensor padded_qkv = at::full({2, 33, 3, test::kHeads, 32}, 1e9F);
  padded_qkv.select(0, 0).narrow(0, 0, 20).copy_(qkv.narrow(0, 0, 20));
  padded_qkv.select(0, 1).narrow(0, 0, 30).copy_(qkv.narrow(0, 20, 30));
  const at::Tensor padded = attention_padded_qkv(padded_qkv, at::tensor({20, 30}, at::kInt));
  EXPECT_TRUE(at::equal(padded.select(0, 0).narrow(0, 0, 20), packed.narrow(0, 0, 20)));
  EXPECT_TRUE(at::equal(padded.select(0, 1).narrow(0, 0, 30), packed.narrow(0, 20, 30)));
}

TEST(AttentionLayouts, ABatchOfNothingIsFine) {
  const at::Tensor nothing = at::randn({0, 4, test::kHeads, 32}).requires_grad_();
  const at::Tensor no_lengths = at::tensor(std::vector<int32_t>{}, at::kInt);
  const at::Tensor o = attention_padded(nothing, nothing, nothing, no_lengths, no_lengths);
  EXPECT_EQ(o.sizes(), nothing.sizes());
  o.sum().backward();
  const at::Tensor no_columns = at::randn({2, 0, test::kHeads, 32});
  const at::Tensor zeros = at::tensor({0, 0}, at::kInt);
  EXPECT_EQ(attention_padded(no_columns, no_columns, no_columns, zeros, zeros).sizes(), no_columns.sizes());
}

TEST(AttentionLayouts, WrongInputsAreRefusedWithTheReason) {
  const at::Tensor x = at::randn({2, 6, test::kHeads, 32});
  const at::Tensor y = at::randn({2, 9, test::kHeads, 32});
  const at::Tensor good = at::tensor({6, 0}, at::kInt);
  EXPECT_EQ(attention_padded(x, y, y, good, at::tensor({9, 1}, at::kInt)).sizes(), x.sizes());
  EXPECT_THROW(attention_padded(x, y, x, good, good), InternalError);
  EXPECT_THROW(attention_padded(x.select(0, 0), y, y, good, good), InternalError);
  EXPECT_THROW(attention_padded(x, x, x, good, at::tensor({7, 0}, at::kInt)), InternalError);
  EXPECT_THROW(attention_padded(x, x, x, at::tensor({6, -1}, at::kInt), good), InternalError);
  EXPECT_THROW(attention_padded(x, x, x, good, at::tensor({1, 1, 1}, at::kInt)), InternalError);
  EXPECT_THROW(attention_padded(x, x, x, good.to(at::kLong), good), InternalError);
  EXPECT_THROW(attention_padded(x, x, x, good, at::Tensor()), InternalError);
  EXPECT_THROW(attention_padded_qkv(x, good), InternalError);
  const at::Tensor q = x.flatten(0, 1), k = y.flatten(0, 1);
  const at::Tensor queries = at::tensor({0, 6, 12}, at::kInt), keys = at::tensor({0, 9, 18}, at::kInt);
  EXPECT_EQ(attention_cross(q, k, k, queries, keys, 6, 9).sizes(), q.sizes());
  EXPECT_THROW(attention_cross(q, k, k, queries, queries, 6, 9), InternalError);
  EXPECT_THROW(attention_cross(q, k, k, queries, keys, 6, 8), InternalError);
  EXPECT_THROW(attention_cross(q, k, k, queries, at::tensor({0, 18}, at::kInt), 6, 18), InternalError);
  AttentionOptions options;
  options.key_bias = at::randn({2, 6});
  EXPECT_THROW(attention_padded(x, y, y, good, good, options), InternalError);
}

}  // namespace
}  // namespace scrna::ops
