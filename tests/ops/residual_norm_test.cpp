// Compiled for the CPU and for CUDA (tests/support/test_device.h).
#include "lib/ops/residual_norm.h"

#include <cmath>
#include <tuple>
#include <vector>

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

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

constexpr double kEpsilon = 1e-5;

/// Operands in fp64 that every type holds exactly; cells of uneven length, an empty one among them.
struct Case {
  at::Tensor h, x, gamma, beta, d_y, d_h;
  CellDropout dropout;

  Case(int64_t rows, int64_t width, double probability = 0.2) {
    h = exact_randn({rows, width}, 2.0).add(exact_randn({rows, 1})).to(at::kBFloat16).to(at::kDouble);
    x = exact_randn({rows, width});
    gamma = exact_randn({width}).abs().add(0.5).to(at::kBFloat16).to(at::kDouble);
    beta = exact_randn({width});
    d_y = exact_randn({rows, width});
    d_h = exact_randn({rows, width});
    const auto third = static_cast<int32_t>(rows / 3);
    dropout = {.cu_seqlens = at::tensor({0, third, third, static_cast<int32_t>(rows)}, at::kInt),
               .cell_ids = at::tensor(std::vector<int64_t>{5, 6, -7}, at::kLong),
               .site = {.seed = 3, .step = 9, .layer = 2, .site = 1, .probability = probability}};
  }
  /// keep / (1 - p) of every element, by the dropout operation itself.
  [[nodiscard]] at::Tensor factor() const {
    return ops::dropout(at::ones(x.sizes()), dropout.cu_seqlens, dropout.cell_ids, dropout.site);
  }
  [[nodiscard]] test::ResidualNorm64 oracle() const {
    return test::residual_norm_reference64(doubles(h), doubles(x), doubles(factor()), doubles(gamma),
                                           doubles(beta), kEpsilon, doubles(d_y), doubles(d_h));
  }
};

struct Result {
  at::Tensor h, y, d_h, d_x, d_gamma, d_beta;

  [[nodiscard]] std::vector<std::pair<const at::Tensor*, const char*>> all() const {
    return {{&h, "h"}, {&y, "y"}, {&d_h, "d_h"}, {&d_x, "d_x"}, {&d_gamma, "d_gamma"}, {&d_beta, "d_beta"}};
  }
};

std::vector<const std::vector<double>*> all(const test::ResidualNorm64& r) {
  return {&r.h, &r.y, &r.d_h, &r.d_x, &r.d_gamma, &r.d_beta};
}

Result run(const Case& c, at::Device device, at::ScalarType stream_type, at::ScalarType branch_type,
           Implementation implementation) {
  const auto leaf = [&](const at::Tensor& x, at::ScalarType type) {
    return x.to(device, type).clone().requires_grad_();
  };
  const at::Tensor h = leaf(c.h, stream_type), x = leaf(c.x, branch_type);
  const at::ScalarType weight_type = stream_type == at::kDouble ? at::kDouble : at::kFloat;
  const LayerNormWeights weights{leaf(c.gamma, weight_type), leaf(c.beta, weight_type), kEpsilon};
  const CellDropout dropout{c.dropout.cu_seqlens.to(device), c.dropout.cell_ids.to(device), c.dropout.site};
  const bool dropped = c.dropout.site.probability > 0;
  const ResidualNorm out = residual_norm(h, x, weights, branch_type,
                                         dropped ? std::optional(dropout) : std::nullopt, implementation);
  torch::autograd::backward({out.h, out.y}, {c.d_h.to(device, stream_type), c.d_y.to(device, branch_type)});
  return {out.h, out.y, h.grad(), x.grad(), weights.gamma.grad(), weights.beta.grad()};
}

class ResidualNormOp : public test::OnDevice {};

TEST_F(ResidualNormOp, TheTwinInDoubleIsTheDefinition) {
  const Case c(29, 37, 0.0);
  const Result result = run(c, device(), at::kDouble, at::kDouble, Implementation::kComposed);
  const auto expected = c.oracle();
  for (size_t i = 0; i < 6; ++i)
    EXPECT_LE(relative_l2(doubles(*result.all()[i].first), *all(expected)[i]), test::kFloat64RelativeL2)
        << result.all()[i].second;
}

TEST_F(ResidualNormOp, IsAtMostTwiceAsFarFromTheOracleAsTheTwin) {
  // Widths of one, several and partly filled registers per lane; of several warps per row; and 767 and 20,
  // which only the twin takes.
  const std::vector<std::tuple<int64_t, int64_t>> sizes = {{1, 8},     {7, 64},    {100, 200}, {33, 768},
                                                           {10, 1000}, {11, 1024}, {9, 1536},  {7, 2056},
                                                           {5, 4096},  {9, 767},   {11, 20},   {1300, 64}};
  for (const auto& [rows, width] : sizes)
    for (const double probability : {0.2, 0.0}) {
      const Case c(rows, width, probability);
      const auto expected = c.oracle();
      for (const auto& [stream_type, branch_type] :
           {std::pair(at::kFloat, at::kFloat), std::pair(at::kFloat, at::kBFloat16),
            std::pair(at::kBFloat16, at::kBFloat16)}) {
        const Result twin = run(c, device(), stream_type, branch_type, Implementation::kComposed);
        const Result result = run(c, device(), stream_type, branch_type, Implementation::kAuto);
        for (size_t i = 0; i < 6; ++i) {
          const auto [values, name] = result.all()[i];
          EXPECT_EQ(values->scalar_type(), twin.all()[i].first->scalar_type()) << name;
          EXPECT_LE(relative_l2(doubles(*values), *all(expected)[i]),
                    test::kTwinFactor * relative_l2(doubles(*twin.all()[i].first), *all(expected)[i]) +
                        test::kTwinFloor)
              << name << " " << rows << " x " << width << " " << stream_type << " " << branch_type;
        }
      }
    }
}

TEST_F(ResidualNormOp, WithoutAnAdditionTheStreamIsPassedOn) {
  const Case c(65, 768);
  const at::Tensor h = c.h.to(device(), at::kFloat).requires_grad_();
  const LayerNormWeights weights{here(c.gamma.to(at::kFloat)).requires_grad_(), here(c.beta.to(at::kFloat)),
                                 kEpsilon};
  const ResidualNorm out = residual_norm(h, {}, weights, at::kBFloat16);
  EXPECT_TRUE(out.h.is_same(h));
  out.y.backward(c.d_y.to(device(), at::kBFloat16));
  const auto expected =
      test::residual_norm_reference64(doubles(c.h), {}, {}, doubles(c.gamma), doubles(c.beta), kEpsilon,
                                      doubles(c.d_y), std::vector<double>(65 * 768));
  EXPECT_LE(relative_l2(doubles(out.y), expected.y), test::kBFloat16OutputRelativeL2);
  EXPECT_LE(relative_l2(doubles(h.grad()), expected.d_h), test::kFloat32RelativeL2);
  EXPECT_LE(relative_l2(doubles(weights.gamma.grad()), expected.d_gamma), test::kFloat32RelativeL2);
}

TEST_F(ResidualNormOp, AnOutputWithoutAGradientCountsAsZero) {
  const Case c(20, 64);
  const at::Tensor h = c.h.to(device(), at::kFloat).requires_grad_();
  const at::Tensor x = c.x.to(device(), at::kFloat).requires_grad_();
  const LayerNormWeights weights{here(c.gamma.to(at::kFloat)), here(c.beta.to(at::kFloat)), kEpsilon};
  residual_norm(h, x, weights, at::kFloat).h.backward(c.d_h.to(device(), at::kFloat));
  EXPECT_TRUE(h.grad().equal(here(c.d_h.to(at::kFloat))));
  EXPECT_TRUE(x.grad().equal(here(c.d_h.to(at::kFloat))));
}

TEST_F(ResidualNormOp, IsBitwiseEqualFromRunToRun) {
  const Case c(3000, 768);
  const Result first = run(c, device(), at::kFloat, at::kBFloat16, Implementation::kAuto);
  for (int repeat = 0; repeat < 3; ++repeat) {
    const Result again = run(c, device(), at::kFloat, at::kBFloat16, Implementation::kAuto);
    for (size_t i = 0; i < 6; ++i) EXPECT_TRUE(again.all()[i].first->equal(*first.all()[i].first)) << i;
  }
}

TEST_F(ResidualNormOp, ABrokenNumberStaysInItsRowAndShows) {
  for (const double broken : {std::nan(""), HUGE_VAL}) {
    Case c(40, 768, 0.0);
    c.h[7][100] = broken;
    const Result result = run(c, device(), at::kFloat, at::kBFloat16, Implementation::kAuto);
    EXPECT_TRUE(at::isnan(result.y[7]).all().item<bool>());
    EXPECT_TRUE(at::isnan(result.d_h[7]).all().item<bool>());
    EXPECT_EQ(at::isnan(result.y).sum().item<int64_t>(), 768);
    EXPECT_EQ(at::isnan(result.d_h).sum().item<int64_t>(), 768);
    EXPECT_TRUE(at::isnan(result.d_gamma).all().item<bool>());
  }
}

TEST_F(ResidualNormOp, NoRowsAndManyRowsAreFine) {
  const Case none(0, 64, 0.0);
  const Result empty = run(none, device(), at::kFloat, at::kBFloat16, Implementation::kAuto);
  EXPECT_EQ(empty.y.numel(), 0);
  EXPECT_EQ(empty.d_gamma.abs().sum().item<float>(), 0.0F);
  const Case many(65537, 64);
  const Result result = run(many, device(), at::kFloat, at::kFloat, Implementation::kAuto);
  const auto expected = many.oracle();
  for (size_t i = 0; i < 6; ++i)
    EXPECT_LE(relative_l2(doubles(*result.all()[i].first), *all(expected)[i]),
              i < 4 ? test::kFloat32RelativeL2 : test::kFloat32LongSumRelativeL2)
        << result.all()[i].second;
}

TEST_F(ResidualNormOp, AKernelThatCannotServeIsRefusedWithTheReason) {
  const Case c(10, 767, 0.0);
  for (const int64_t width : {767, 4104}) {
    try {
      run(Case(10, width, 0.0), device(), at::kFloat, at::kFloat, Implementation::kKernel);
      FAIL() << width;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(test::kOnCuda ? "widths" : "CUDA"), std::string::npos)
          << error.what();
    }
  }
  const at::Tensor h = c.h.to(device(), at::kFloat);
  const LayerNormWeights short_weights{at::ones({766}, h.options()), at::ones({766}, h.options())};
  EXPECT_THROW(residual_norm(h, {}, short_weights, at::kFloat), InternalError);
  const LayerNormWeights weights{at::ones({767}, h.options()), at::ones({767}, h.options())};
  EXPECT_THROW(residual_norm(h, h.narrow(0, 0, 9), weights, at::kFloat), InternalError);
  EXPECT_THROW(residual_norm(h.t(), {}, weights, at::kFloat), InternalError);
}

}  // namespace
}  // namespace scrna::ops
