// Compiled for the CPU and for CUDA (tests/support/test_device.h).
#include "lib/ops/gelu.h"

#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/ops/isnan.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/fused_reference64.h"
#include "tests/support/reference64.h"
#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

using test::doubles;
using test::exact_randn;
using test::relative_l2;

struct Case {
  at::Tensor z, bias, d_y;
  Case(int64_t rows, int64_t width)
      : z(exact_randn({rows, width}, 2.0)), bias(exact_randn({width})), d_y(exact_randn({rows, width})) {}
  [[nodiscard]] test::BiasGelu64 oracle() const {
    return test::bias_gelu_reference64(doubles(z), doubles(bias), doubles(d_y));
  }
};

struct Result {
  at::Tensor y, d_z, d_bias;
};

Result run(const Case& c, at::Device device, at::ScalarType type, Implementation implementation) {
  const at::Tensor z = c.z.to(device, type).clone().requires_grad_();
  const at::Tensor bias =
      c.bias.to(device, type == at::kDouble ? at::kDouble : at::kFloat).clone().requires_grad_();
  const at::Tensor y = bias_gelu(z, bias, implementation);
  y.backward(c.d_y.to(device, type));
  return {y, z.grad(), bias.grad()};
}

class BiasGeluOp : public test::OnDevice {};

TEST_F(BiasGeluOp, TheTwinInDoubleIsTheDefinition) {
  const Case c(13, 37);
  const Result result = run(c, device(), at::kDouble, Implementation::kComposed);
  const auto expected = c.oracle();
  EXPECT_LE(relative_l2(doubles(result.y), expected.y), test::kFloat64RelativeL2);
  EXPECT_LE(relative_l2(doubles(result.d_z), expected.d_z), test::kFloat64RelativeL2);
  EXPECT_LE(relative_l2(doubles(result.d_bias), expected.d_bias), test::kFloat64RelativeL2);
}

TEST_F(BiasGeluOp, IsAtMostTwiceAsFarFromTheOracleAsTheTwin) {
  const std::vector<std::pair<int64_t, int64_t>> sizes = {{1, 8},    {7, 256},    {65, 264}, {300, 3072},
                                                          {40, 767}, {2000, 512}, {5, 20}};
  for (const auto& [rows, width] : sizes) {
    const Case c(rows, width);
    const auto expected = c.oracle();
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const Result twin = run(c, device(), type, Implementation::kComposed);
      const Result result = run(c, device(), type, Implementation::kAuto);
      EXPECT_EQ(result.y.scalar_type(), type);
      EXPECT_EQ(result.d_bias.scalar_type(), at::kFloat);
      const auto compare = [&](const at::Tensor& ours, const at::Tensor& theirs,
                               const std::vector<double>& truth, const char* name) {
        EXPECT_LE(relative_l2(doubles(ours), truth),
                  test::kTwinFactor * relative_l2(doubles(theirs), truth) + test::kTwinFloor)
            << name << " " << rows << " x " << width << " " << type;
      };
      compare(result.y, twin.y, expected.y, "y");
      compare(result.d_z, twin.d_z, expected.d_z, "d_z");
      compare(result.d_bias, twin.d_bias, expected.d_bias, "d_bias");
    }
  }
}

TEST_F(BiasGeluOp, TheTailIsAccurateRelativeToItself) {
  if (!test::kOnCuda) GTEST_SKIP() << "a promise of the kernel; LibTorch's 1 + erf cancels in the tail";
  const at::Tensor z = at::linspace(-12.0, 6.0, 8 * 4001, at::kFloat).view({-1, 8}).to(device());
  const auto y = doubles(bias_gelu(z, {}, Implementation::kKernel));
  const auto in = doubles(z);
  for (size_t i = 0; i < in.size(); ++i) {
    const double truth = in[i] * 0.5 * std::erfc(-in[i] / std::sqrt(2.0));
    EXPECT_NEAR(y[i], truth, test::kGeluTailRelative * std::fabs(truth)) << in[i];
  }
}

TEST_F(BiasGeluOp, WithoutABiasItIsTheGelu) {
  const Case c(33, 512);
  const at::Tensor z = c.z.to(device(), at::kFloat).clone().requires_grad_();
  const at::Tensor y = bias_gelu(z, {});
  y.backward(c.d_y.to(device(), at::kFloat));
  const auto expected = test::bias_gelu_reference64(doubles(c.z), std::vector<double>(512), doubles(c.d_y));
  EXPECT_LE(relative_l2(doubles(y), expected.y), test::kFloat32RelativeL2);
  EXPECT_LE(relative_l2(doubles(z.grad()), expected.d_z), test::kFloat32RelativeL2);
}

TEST_F(BiasGeluOp, IsBitwiseEqualFromRunToRunAlsoWithManyRows) {
  const Case c(65537, 64);
  const Result first = run(c, device(), at::kBFloat16, Implementation::kAuto);
  const Result again = run(c, device(), at::kBFloat16, Implementation::kAuto);
  EXPECT_TRUE(again.y.equal(first.y));
  EXPECT_TRUE(again.d_z.equal(first.d_z));
  EXPECT_TRUE(again.d_bias.equal(first.d_bias));
  EXPECT_LE(relative_l2(doubles(first.d_z), c.oracle().d_z), 2 * test::kBFloat16OutputRelativeL2);
}

TEST_F(BiasGeluOp, BrokenNumbersShowAndLargeOnesDoNotBreak) {
  const at::Tensor z = at::tensor(std::vector<double>{NAN, INFINITY, 1e30, -1e30, 0.0, 88.0, -88.0, -40.0})
                           .to(device(), at::kFloat);
  const auto y = doubles(bias_gelu(z.view({1, 8}), {}));
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_FALSE(std::isfinite(y[1]));  // infinity; NaN in LibTorch's vector code on the CPU
  EXPECT_FLOAT_EQ(static_cast<float>(y[2]), 1e30F);
  for (const size_t i : {3, 4, 6, 7}) EXPECT_EQ(y[i], 0.0) << i;
  EXPECT_EQ(y[5], 88.0);
  const at::Tensor leaf = z.view({1, 8}).clone().requires_grad_();
  bias_gelu(leaf, {}).backward(at::ones_like(leaf));
  const auto d_z = doubles(leaf.grad());
  EXPECT_TRUE(std::isnan(d_z[0]));
  EXPECT_EQ(d_z[2], 1.0);
  EXPECT_EQ(d_z[3], 0.0);
  EXPECT_FLOAT_EQ(static_cast<float>(d_z[4]), 0.5F);
}

TEST_F(BiasGeluOp, NoRowsAreFineAndWrongShapesAreRefused) {
  const Case none(0, 64);
  EXPECT_EQ(run(none, device(), at::kBFloat16, Implementation::kAuto).d_bias.abs().sum().item<float>(), 0.0F);
  const at::Tensor z = at::zeros({4, 20}, at::TensorOptions(device()));
  EXPECT_THROW(bias_gelu(z, {}, Implementation::kKernel), ConfigError);
  EXPECT_THROW(bias_gelu(z, at::zeros({19}, z.options())), InternalError);
  EXPECT_THROW(bias_gelu(z.t(), {}), InternalError);
}

}  // namespace
}  // namespace scrna::ops
