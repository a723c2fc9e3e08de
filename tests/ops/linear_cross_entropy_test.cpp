// Compiled for the CPU and for CUDA (tests/support/test_device.h).
#include "lib/ops/linear_cross_entropy.h"

#include <cmath>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
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
  at::Tensor hidden, weight, bias, targets;
  int64_t num_classes;

  Case(int64_t rows, int64_t width, int64_t classes, int64_t padding = 0)
      : hidden(exact_randn({rows, width})),
        weight(exact_randn({classes + padding, width}, 0.3)),
        bias(exact_randn({classes + padding}, 0.5)),
        targets(at::randint(classes, {rows}, at::kLong)),
        num_classes(classes) {}
  [[nodiscard]] test::LinearCrossEntropy64 oracle() const {
    std::vector<int64_t> which(targets.data_ptr<int64_t>(), targets.data_ptr<int64_t>() + targets.numel());
    return test::linear_cross_entropy_reference64(doubles(hidden), doubles(weight), doubles(bias), which,
                                                  static_cast<size_t>(num_classes));
  }
};

struct Result {
  at::Tensor loss, d_hidden, d_weight, d_bias;
};

Result run(const Case& c, at::Device device, LinearCrossEntropyOptions options) {
  const at::ScalarType weight_type = options.compute_type == at::kDouble ? at::kDouble : at::kFloat;
  const auto leaf = [&](const at::Tensor& x, at::ScalarType type) {
    return x.to(device, type).clone().requires_grad_();
  };
  const at::Tensor hidden = leaf(c.hidden, options.compute_type);
  const at::Tensor weight = leaf(c.weight, weight_type), bias = leaf(c.bias, weight_type);
  options.num_classes = c.num_classes;
  const at::Tensor loss = linear_cross_entropy({hidden, weight, bias, c.targets.to(device)}, options);
  loss.backward();
  return {loss, hidden.grad(), weight.grad(), bias.grad()};
}

class LinearCrossEntropyOp : public test::OnDevice {};

TEST_F(LinearCrossEntropyOp, TheTwinInDoubleIsTheDefinitionWhateverTheChunks) {
  for (const int64_t rows_per_chunk : {1000, 130, 7}) {
    const Case c(200, 24, 101, 3);
    const Result result = run(c, device(),
                              {.compute_type = at::kDouble,
                               .rows_per_chunk = rows_per_chunk,
                               .implementation = Implementation::kComposed});
    const auto expected = c.oracle();
    EXPECT_NEAR(result.loss.item<double>() / expected.loss, 1.0, test::kFloat64RelativeL2);
    EXPECT_LE(relative_l2(doubles(result.d_hidden), expected.d_hidden), test::kFloat64RelativeL2);
    EXPECT_LE(relative_l2(doubles(result.d_weight), expected.d_weight), test::kFloat64RelativeL2);
    EXPECT_LE(relative_l2(doubles(result.d_bias), expected.d_bias), test::kFloat64RelativeL2);
  }
}

TEST_F(LinearCrossEntropyOp, IsAtMostTwiceAsFarFromTheOracleAsTheTwin) {
  // Classes that fill no octet, no tile and no 64 columns, and padding in between.
  for (const Case& c : {Case(1, 8, 5), Case(7, 64, 64), Case(300, 32, 1003, 21), Case(129, 64, 511, 1)}) {
    const auto expected = c.oracle();
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      LinearCrossEntropyOptions options{.compute_type = type, .rows_per_chunk = 128};
      const Result result = run(c, device(), options);
      options.implementation = Implementation::kComposed;
      const Result twin = run(c, device(), options);
      const auto compare = [&](const at::Tensor& ours, const at::Tensor& theirs,
                               const std::vector<double>& truth, const char* name) {
        EXPECT_LE(relative_l2(doubles(ours), truth),
                  test::kTwinFactor * relative_l2(doubles(theirs), truth) + test::kTwinFloor)
            << name << " of " << c.hidden.size(0) << " rows, " << c.num_classes << " classes, " << type;
      };
      EXPECT_EQ(result.loss.scalar_type(), at::kFloat);
      EXPECT_EQ(result.d_weight.scalar_type(), at::kFloat);
      compare(result.loss, twin.loss, {expected.loss}, "loss");
      compare(result.d_hidden, twin.d_hidden, expected.d_hidden, "d_hidden");
      compare(result.d_weight, twin.d_weight, expected.d_weight, "d_weight");
      compare(result.d_bias, twin.d_bias, expected.d_bias, "d_bias");
    }
  }
}

TEST_F(LinearCrossEntropyOp, PaddedRowsOfTheWeightCountForNothing) {
  Case c(50, 32, 61, 3);
  const Result before = run(c, device(), {.compute_type = at::kFloat});
  c.weight.narrow(0, 61, 3).fill_(1000.0);
  c.bias.narrow(0, 61, 3).fill_(1000.0);
  const Result after = run(c, device(), {.compute_type = at::kFloat});
  EXPECT_EQ(before.loss.item<float>(), after.loss.item<float>());
  EXPECT_TRUE(before.d_hidden.equal(after.d_hidden));
  EXPECT_EQ(after.d_weight.narrow(0, 61, 3).abs().max().item<float>(), 0.0F);
  EXPECT_EQ(after.d_bias.narrow(0, 61, 3).abs().max().item<float>(), 0.0F);
}

TEST_F(LinearCrossEntropyOp, WithGradientsItAddsScaledOnesToWhatIsThere) {
  const Case c(300, 16, 77);
  const auto expected = c.oracle();
  const auto f32 = at::TensorOptions(device()).dtype(at::kFloat);
  const LinearCrossEntropyInputs in{c.hidden.to(f32), c.weight.to(f32), c.bias.to(f32),
                                    c.targets.to(device(), at::kInt)};
  const LinearCrossEntropyGradients out{at::zeros_like(in.hidden), at::ones(in.weight.sizes(), f32),
                                        at::ones(in.bias.sizes(), f32)};
  const at::Tensor loss =
      linear_cross_entropy_with_gradients(in, 0.25, out, {.compute_type = at::kFloat, .rows_per_chunk = 128});
  EXPECT_NEAR(loss.item<double>() / expected.loss, 1.0, test::kFloat32RelativeL2);
  const auto close = [](const at::Tensor& x, const std::vector<double>& truth) {
    EXPECT_LE(relative_l2(doubles(x.mul(4.0)), truth), test::kFloat32RelativeL2);
  };
  close(out.d_hidden, expected.d_hidden);
  close(out.d_weight.sub(1.0), expected.d_weight);
  close(out.d_bias.sub(1.0), expected.d_bias);
}

TEST_F(LinearCrossEntropyOp, WithoutGradientsItIsTheLossOfLibTorch) {
  const Case c(90, 16, 77);
  const at::NoGradGuard no_grad;
  const auto f32 = at::TensorOptions(device()).dtype(at::kFloat);
  const at::Tensor hidden = c.hidden.to(f32), weight = c.weight.to(f32), bias = c.bias.to(f32);
  const at::Tensor targets = here(c.targets);
  const at::Tensor theirs =
      at::cross_entropy_loss(at::linear(hidden, weight, bias), targets, {}, at::Reduction::Sum);
  const at::Tensor ours = linear_cross_entropy({hidden, weight, bias, targets}, {.compute_type = at::kFloat});
  EXPECT_FALSE(ours.requires_grad());
  EXPECT_NEAR(ours.item<double>() / theirs.item<double>(), 1.0, test::kFloat32RelativeL2);
}

TEST_F(LinearCrossEntropyOp, IsBitwiseEqualFromRunToRun) {
  const Case c(700, 64, 3001);
  const LinearCrossEntropyOptions options{.rows_per_chunk = 256};
  const Result first = run(c, device(), options);
  const Result again = run(c, device(), options);
  EXPECT_TRUE(first.loss.equal(again.loss));
  EXPECT_TRUE(first.d_hidden.equal(again.d_hidden));
  EXPECT_TRUE(first.d_weight.equal(again.d_weight));
  EXPECT_TRUE(first.d_bias.equal(again.d_bias));
}

TEST_F(LinearCrossEntropyOp, ABrokenRowShowsInTheLossAndStaysInItsRow) {
  for (const double broken : {std::nan(""), HUGE_VAL}) {
    Case c(20, 16, 100);
    c.hidden[3][5] = broken;
    const Result result = run(c, device(), {});
    // Infinite, not NaN, where the target's logit is minus infinity.
    EXPECT_FALSE(std::isfinite(result.loss.item<float>()));
    EXPECT_TRUE(at::isnan(result.d_hidden[3]).all().item<bool>());
    EXPECT_EQ(at::isnan(result.d_hidden).sum().item<int64_t>(), 16);
  }
}

TEST_F(LinearCrossEntropyOp, ClassesExcludedByMinusInfinityAreFine) {
  Case c(20, 16, 100);
  c.bias.narrow(0, 0, 64).fill_(-INFINITY);
  c.targets = c.targets.remainder(36).add(64);
  const Result result = run(c, device(), {.compute_type = at::kFloat});
  EXPECT_TRUE(std::isfinite(result.loss.item<float>()));
  EXPECT_EQ(result.d_weight.narrow(0, 0, 64).abs().max().item<float>(), 0.0F);
  EXPECT_FALSE(at::isnan(result.d_hidden).any().item<bool>());
}

TEST_F(LinearCrossEntropyOp, ATargetOutsideTheVocabularyCannotPass) {
  for (const int64_t wrong : {-1, 77, -100}) {
    Case c(10, 16, 77, 3);
    c.targets[4] = wrong;
    if (test::kOnCuda)
      EXPECT_TRUE(std::isnan(run(c, device(), {}).loss.item<float>())) << wrong;
    else
      EXPECT_THROW(run(c, device(), {}), InternalError) << wrong;
  }
}

TEST_F(LinearCrossEntropyOp, NoRowsGiveZeroAndWrongShapesAreRefused) {
  const Result none = run(Case(0, 16, 77), device(), {});
  EXPECT_EQ(none.loss.item<float>(), 0.0F);
  EXPECT_EQ(none.d_weight.abs().max().item<float>(), 0.0F);
  const Case c(10, 16, 77);
  const LinearCrossEntropyInputs good{here(c.hidden), here(c.weight), here(c.bias), here(c.targets)};
  LinearCrossEntropyInputs bad = good;
  bad.bias = good.bias.narrow(0, 0, 76);
  EXPECT_THROW(linear_cross_entropy(bad, {.compute_type = at::kDouble}), InternalError);
  bad = good;
  bad.targets = good.targets.narrow(0, 0, 9);
  EXPECT_THROW(linear_cross_entropy(bad, {.compute_type = at::kDouble}), InternalError);
  EXPECT_THROW(linear_cross_entropy(good, {.compute_type = at::kDouble, .num_classes = 78}), InternalError);
  EXPECT_THROW(
      linear_cross_entropy(good, {.compute_type = at::kDouble, .implementation = Implementation::kKernel}),
      ConfigError);
}

}  // namespace
}  // namespace scrna::ops
