// Compiled for the CPU and for CUDA (tests/support/test_device.h).
#include "lib/ops/linear.h"

#include <cmath>
#include <numbers>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/ops/product.h"
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
  at::Tensor x, weight, bias, d_y;
  Case(int64_t rows, int64_t in, int64_t out)
      : x(exact_randn({rows, in})),
        weight(exact_randn({out, in}, 0.25)),
        bias(exact_randn({out})),
        d_y(exact_randn({rows, out})) {}
  [[nodiscard]] test::Linear64 oracle() const {
    return test::linear_reference64(doubles(x), doubles(weight), doubles(bias), doubles(d_y));
  }
};

struct Result {
  at::Tensor y, d_x, d_weight, d_bias;
};

at::ScalarType parameter_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

/// in_place: the gradients are added to zeros that the parameters have already.
Result run(const Case& c, at::Device device, at::ScalarType type, bool in_place = true) {
  const auto parameter = [&](const at::Tensor& value) {
    at::Tensor leaf = value.to(device, parameter_type(type)).clone().requires_grad_();
    if (in_place) leaf.mutable_grad() = at::zeros_like(leaf);
    return leaf;
  };
  const at::Tensor x = c.x.to(device, type).clone().requires_grad_();
  LinearWeights weights{
      .weight = parameter(c.weight), .bias = parameter(c.bias), .compute_weight = {}, .compute_bias = {}};
  if (type == at::kBFloat16) {
    weights.compute_weight = weights.weight.detach().to(type);
    weights.compute_bias = weights.bias.detach().to(type);
  }
  const at::Tensor buffer = weights.weight.grad();
  const at::Tensor y = linear(x, weights);
  y.backward(c.d_y.to(device, type));
  EXPECT_TRUE(!in_place || weights.weight.grad().data_ptr() == buffer.data_ptr());
  return {y, x.grad(), weights.weight.grad(), weights.bias.grad()};
}

/// The same by at::linear on weights cast in every pass.
Result twin(const Case& c, at::Device device, at::ScalarType type) {
  const auto leaf = [&](const at::Tensor& value, at::ScalarType its) {
    return value.to(device, its).clone().requires_grad_();
  };
  const at::Tensor x = leaf(c.x, type), weight = leaf(c.weight, parameter_type(type)),
                   bias = leaf(c.bias, parameter_type(type));
  const at::Tensor y = at::linear(x, weight.to(type), bias.to(type));
  y.backward(c.d_y.to(device, type));
  return {y, x.grad(), weight.grad(), bias.grad()};
}

class LinearOp : public test::OnDevice {};

TEST_F(LinearOp, InDoubleItIsTheDefinition) {
  const Case c(13, 24, 40);
  const auto expected = c.oracle();
  for (const bool in_place : {true, false}) {
    const Result result = run(c, device(), at::kDouble, in_place);
    EXPECT_LE(relative_l2(doubles(result.y), expected.y), test::kFloat64RelativeL2);
    EXPECT_LE(relative_l2(doubles(result.d_x), expected.d_x), test::kFloat64RelativeL2);
    EXPECT_LE(relative_l2(doubles(result.d_weight), expected.d_weight), test::kFloat64RelativeL2);
    EXPECT_LE(relative_l2(doubles(result.d_bias), expected.d_bias), test::kFloat64RelativeL2);
  }
}

TEST_F(LinearOp, IsAtMostTwiceAsFarFromTheOracleAsLibTorchsOwn) {
  const std::vector<std::tuple<int64_t, int64_t, int64_t>> sizes = {
      {1, 8, 8}, {65, 64, 192}, {300, 256, 64}, {1001, 64, 72}, {7, 20, 12}, {130, 96, 33}};
  for (const auto& [rows, in, out] : sizes) {
    const Case c(rows, in, out);
    const auto expected = c.oracle();
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const Result theirs = twin(c, device(), type);
      for (const bool in_place : {true, false}) {
        const Result result = run(c, device(), type, in_place);
        EXPECT_EQ(result.y.scalar_type(), type);
        EXPECT_EQ(result.d_weight.scalar_type(), at::kFloat);
        const auto compare = [&](const at::Tensor& ours, const at::Tensor& other,
                                 const std::vector<double>& truth, const char* name) {
          EXPECT_LE(relative_l2(doubles(ours), truth),
                    test::kTwinFactor * relative_l2(doubles(other), truth) + test::kTwinFloor)
              << name << " " << rows << " x " << in << " -> " << out << " " << type;
        };
        compare(result.y, theirs.y, expected.y, "y");
        compare(result.d_x, theirs.d_x, expected.d_x, "d_x");
        compare(result.d_weight, theirs.d_weight, expected.d_weight, "d_weight");
        compare(result.d_bias, theirs.d_bias, expected.d_bias, "d_bias");
      }
    }
  }
}

TEST_F(LinearOp, GeluByTanhInTheProductIsThatFormula) {
  const Case c(300, 256, 512);
  const at::Tensor x = c.x.to(device(), at::kBFloat16);
  LinearWeights weights{.weight = c.weight.to(device(), at::kFloat),
                        .bias = c.bias.to(device(), at::kFloat),
                        .compute_weight = c.weight.to(device(), at::kBFloat16),
                        .compute_bias = c.bias.to(device(), at::kBFloat16)};
  if (device().is_cpu()) {
    EXPECT_THROW(linear_with_tanh_gelu(x, weights), InternalError);
    return;
  }
  std::vector<double> expected = c.oracle().y;
  for (double& v : expected)
    v = 0.5 * v * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v)));
  EXPECT_LE(relative_l2(doubles(linear_with_tanh_gelu(x, weights)), expected), test::kBFloat16OutputRelativeL2);
  weights.bias.reset();
  EXPECT_THROW(linear_with_tanh_gelu(x, weights), InternalError);
}

TEST_F(LinearOp, InBf16GradientsOfWeightsAreSummedInFp32) {
  const Case c(1000, 64, 72);
  const auto expected = c.oracle();
  const Result result = run(c, device(), at::kBFloat16);
  EXPECT_LE(relative_l2(doubles(result.d_weight), expected.d_weight), test::kFloat32RelativeL2);
  EXPECT_LE(relative_l2(doubles(result.d_bias), expected.d_bias), test::kFloat32RelativeL2);
}

TEST_F(LinearOp, GradientsOfSeveralPassesAddUp) {
  const Case c(40, 64, 72);
  at::Tensor weight = c.weight.to(device(), at::kFloat).requires_grad_();
  weight.mutable_grad() = at::full(weight.sizes(), 3.0, weight.options().requires_grad(false));
  const LinearWeights weights{
      .weight = weight, .bias = {}, .compute_weight = weight.detach().to(at::kBFloat16), .compute_bias = {}};
  const at::Tensor x = c.x.to(device(), at::kBFloat16);  // needs no gradient itself
  for (int pass = 0; pass < 2; ++pass) linear(x, weights).backward(c.d_y.to(device(), at::kBFloat16));
  std::vector<double> expected = c.oracle().d_weight;
  for (double& value : expected) value = 3.0 + 2 * value;
  EXPECT_LE(relative_l2(doubles(weight.grad()), expected), test::kFloat32RelativeL2);
}

TEST_F(LinearOp, IsBitwiseEqualFromRunToRun) {
  const Case c(4097, 64, 136);
  const Result first = run(c, device(), at::kBFloat16), again = run(c, device(), at::kBFloat16);
  EXPECT_TRUE(again.y.equal(first.y));
  EXPECT_TRUE(again.d_x.equal(first.d_x));
  EXPECT_TRUE(again.d_weight.equal(first.d_weight));
  EXPECT_TRUE(again.d_bias.equal(first.d_bias));
}

TEST_F(LinearOp, OfARecomputedInputHasTheSameBits) {
  const Case first(65, 64, 136), second(65, 136, 64);
  const auto weights = [&](const Case& c) {
    LinearWeights result;
    result.weight = c.weight.to(device(), at::kFloat).clone().requires_grad_();
    result.bias = c.bias.to(device(), at::kFloat).clone().requires_grad_();
    result.compute_weight = result.weight.detach().to(at::kBFloat16);
    result.compute_bias = result.bias.detach().to(at::kBFloat16);
    result.weight.mutable_grad() = at::zeros_like(result.weight);
    return result;
  };
  std::vector<std::vector<at::Tensor>> results;
  int runs = 0;
  for (const bool recompute : {false, true}) {
    const LinearWeights inner = weights(first), outer = weights(second);
    const at::Tensor x = first.x.to(device(), at::kBFloat16).clone().requires_grad_();
    const auto segment = [&](const at::Tensor& in) {
      ++runs;
      return linear(in, inner).tanh();
    };
    const at::Tensor y = recompute ? linear_of_recomputed(segment, x, outer) : linear(segment(x), outer);
    y.backward(second.d_y.to(device(), at::kBFloat16));
    results.push_back(
        {y, x.grad(), inner.weight.grad(), inner.bias.grad(), outer.weight.grad(), outer.bias.grad()});
  }
  EXPECT_EQ(runs, 3);
  for (size_t i = 0; i < results[0].size(); ++i) EXPECT_TRUE(results[0][i].equal(results[1][i])) << i;
  const at::Tensor no_leaf = first.x.to(device(), at::kBFloat16);
  EXPECT_THROW(linear_of_recomputed([](const at::Tensor& in) { return in; }, no_leaf, weights(first)),
               InternalError);
}

TEST_F(LinearOp, WrongShapesAndTypesAreRefused) {
  const at::TensorOptions here(device());
  const at::Tensor x = at::ones({4, 8}, here), weight = at::ones({16, 8}, here), bias = at::ones({16}, here);
  const auto weights = [](const at::Tensor& w, const at::Tensor& b, const at::Tensor& copy = {}) {
    return LinearWeights{.weight = w, .bias = b, .compute_weight = copy, .compute_bias = {}};
  };
  EXPECT_NO_THROW(linear(x, weights(weight, bias)));
  EXPECT_THROW(linear(x.t(), weights(weight, bias)), InternalError);
  EXPECT_THROW(linear(x, weights(at::ones({16, 9}, here), bias)), InternalError);
  EXPECT_THROW(linear(x, weights(weight, at::ones({15}, here))), InternalError);
  EXPECT_THROW(linear(x.to(at::kBFloat16), weights(weight, {})), InternalError);
  EXPECT_THROW(linear(x.to(at::kBFloat16), weights(weight, bias, weight.to(at::kBFloat16))), InternalError);
}

class ColumnSumsOp : public test::OnDevice {};

TEST_F(ColumnSumsOp, AreThoseOfFp64AddedToWhatIsThere) {
  for (const auto& [rows, width] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 8}, {1, 8}, {31, 256}, {257, 264}, {5000, 768}, {33, 2304}, {64, 20}, {65537, 64}}) {
    const at::Tensor x = exact_randn({rows, width});
    const std::vector<double> expected = doubles(x.sum(0).add(1.0));
    for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const at::Tensor sum = at::ones({width}, at::TensorOptions(device()).dtype(parameter_type(type)));
      add_column_sums(sum, x.to(device(), type));
      EXPECT_LE(relative_l2(doubles(sum), expected),
                rows > 10000 ? test::kFloat32LongSumRelativeL2 : test::kFloat32RelativeL2)
          << rows << " x " << width << " " << type;
    }
  }
}

TEST_F(ColumnSumsOp, WrongShapesAreRefused) {
  const at::TensorOptions here(device());
  EXPECT_THROW(add_column_sums(at::zeros({7}, here), at::zeros({3, 8}, here)), InternalError);
  EXPECT_THROW(add_column_sums(at::zeros({3}, here), at::zeros({8, 3}, here).t().t().t()), InternalError);
  EXPECT_THROW(add_column_sums(at::zeros({20}, here), at::zeros({3, 20}, here), Implementation::kKernel),
               ConfigError);
}

}  // namespace
}  // namespace scrna::ops
