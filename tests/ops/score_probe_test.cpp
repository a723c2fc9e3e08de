// Compiled for the CPU and for CUDA (tests/support/test_device.h).
#include "lib/ops/score_probe.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

/// Largest |q.k| of two tokens of one cell, in double; row >= 0: of that query only.
double largest(const at::Tensor& q, const at::Tensor& k, const std::vector<int32_t>& cu, int64_t row = -1) {
  double max = 0;
  for (size_t b = 0; b + 1 < cu.size(); ++b)
    for (int64_t i = cu[b]; i < cu[b + 1]; ++i)
      for (int64_t j = cu[b]; j < cu[b + 1]; ++j)
        if (row < 0 || row == i)
          max = std::max(max, (q[i] * k[j]).to(at::kDouble).sum(-1).abs().max().item<double>());
  return max;
}

class ScoreProbeOp : public test::OnDevice {};

TEST_F(ScoreProbeOp, WithEveryRowItIsTheLargestScoreWithinCells) {
  const std::vector<int32_t> cu{0, 7, 7, 20};
  at::Tensor q = at::randn({20, 2, 16});
  const at::Tensor k = at::randn({20, 2, 16});
  q[3] = k[15] * 50.0;  // a huge score across two cells, which must not count
  const at::Tensor probe =
      max_abs_score(here(q), here(k), here(at::tensor(cu, at::kInt)), -0.25, {.num_queries = 1000});
  EXPECT_EQ(probe.dim(), 0);
  EXPECT_FLOAT_EQ(probe.item<float>(), static_cast<float>(0.25 * largest(q, k, cu)));
}

TEST_F(ScoreProbeOp, TheExactMaximumIsOfEveryPairWithinCells) {
  const std::vector<int32_t> cu{0, 7, 7, 1300, 1301};  // more rows than one block of the twin
  at::Tensor q = at::randn({1301, 2, 16});
  const at::Tensor k = at::randn({1301, 2, 16});
  q[1299] = k[700].neg() * 100.0;  // the largest, negative, in the last block
  q[1300] = k[700] * 1000.0;       // across cells: must not count
  const at::Tensor cu_host = at::tensor(cu, at::kInt);
  const float exact = exact_max_abs_score(here(q), here(k), here(cu_host), cu_host, -0.25).item<float>();
  double want = 0;
  for (std::size_t cell = 0; cell + 1 < cu.size(); ++cell) {
    const auto part = [&](const at::Tensor& x) { return x.slice(0, cu[cell], cu[cell + 1]).to(at::kDouble).transpose(0, 1); };
    if (cu[cell] < cu[cell + 1]) want = std::max(want, at::bmm(part(q), part(k).transpose(1, 2)).abs().max().item<double>() / 4);
  }
  EXPECT_NEAR(exact, want, test::kGpuAgainstCpuRelative * want);
  EXPECT_LT(want, 0.25 * (q[1300] * k[700]).sum(-1).abs().max().item<double>());
  EXPECT_GE(exact, max_abs_score(here(q), here(k), here(cu_host), 0.25, {.num_queries = 32}).item<float>());
  const at::Tensor none = here(at::zeros({0, 1, 16}));
  const at::Tensor no_cells = at::tensor({0}, at::kInt);
  EXPECT_EQ(exact_max_abs_score(none, none, here(no_cells), no_cells, 1.0).item<float>(), 0.0F);
}

TEST_F(ScoreProbeOp, SampledRowsAreSpreadRepeatableAndChangeWithTheStep) {
  // The score of row i with every key is i, so the probe tells which row was sampled last.
  const int64_t tokens = 640;
  at::Tensor q = at::zeros({tokens, 1, 16});
  for (int64_t i = 0; i < tokens; ++i) q[i][0][0] = static_cast<float>(i);
  const at::Tensor k = here(at::full({tokens, 1, 16}, 1.0F));
  q = here(q);
  const at::Tensor cu = here(at::tensor({0, 640}, at::kInt));
  std::set<float> seen;
  for (int64_t step = 0; step < 50; ++step) {
    const ScoreProbe probe{.seed = 3, .step = step, .num_queries = 10};
    const float last_row = max_abs_score(q, k, cu, 1.0, probe).item<float>();
    EXPECT_GE(last_row, 640 - 64);  // one row in each tenth
    EXPECT_EQ(last_row, max_abs_score(q, k, cu, 1.0, probe).item<float>());
    seen.insert(last_row);
  }
  EXPECT_GT(seen.size(), 20U);  // 50 draws from 64 values; fewer than 21 distinct has probability below 1e-12
}

TEST_F(ScoreProbeOp, ReportsNaNAndZeroForNoTokens) {
  const at::Tensor q = here(at::full({4, 1, 16}, NAN));
  EXPECT_TRUE(std::isnan(max_abs_score(q, q, here(at::tensor({0, 4}, at::kInt)), 1.0, {}).item<float>()));
  const at::Tensor none = here(at::zeros({0, 1, 16}));
  EXPECT_EQ(max_abs_score(none, none, here(at::tensor({0}, at::kInt)), 1.0, {}).item<float>(), 0.0F);
}

TEST_F(ScoreProbeOp, OnViewsOfAFusedProjectionItIsTheTwinsToRounding) {
  const std::vector<int32_t> cu{0, 300, 300, 301, 1000};
  for (const auto& [type, width] : std::vector<std::pair<at::ScalarType, int64_t>>{{at::kFloat, 64},
                                                                                   {at::kBFloat16, 64},
                                                                                   {at::kBFloat16, 128},
                                                                                   {at::kBFloat16, 8},
                                                                                   {at::kFloat, 20}}) {
    const at::Tensor qkv = here(at::randn({1000, 3, 2, width}).to(type));
    const at::Tensor q = qkv.select(1, 0), k = qkv.select(1, 1), begin = here(at::tensor(cu, at::kInt));
    for (int64_t step = 0; step < 3; ++step) {
      const ScoreProbe probe{.seed = 3, .step = step, .num_queries = 20};
      const double ours = max_abs_score(q, k, begin, 0.125, probe).item<double>();
      const double twin =
          max_abs_score(q.to(at::kFloat), k.to(at::kFloat), begin, 0.125, probe, Implementation::kComposed)
              .item<double>();
      // The twin, which serves the CPU, rounds scores to the type: by half a unit of the last place, 2^-8 in
      // bf16.
      const double tolerance = test::kOnCuda || type == at::kFloat ? test::kFloat32RelativeL2
                                                                   : 2 * test::kBFloat16OutputRelativeL2;
      EXPECT_NEAR(ours, twin, tolerance * twin) << type << " " << width;
    }
  }
}

TEST_F(ScoreProbeOp, TheKernelIsRefusedWhereItCannotServe) {
  const at::Tensor q = here(at::zeros({4, 1, 12}));
  EXPECT_THROW(max_abs_score(q, q, here(at::tensor({0, 4}, at::kInt)), 1.0, {}, Implementation::kKernel),
               ConfigError);
}

}  // namespace
}  // namespace scrna::ops
