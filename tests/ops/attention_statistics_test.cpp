// Against loops in double over a dense Jacobian that autograd makes. Compiled for the CPU and for CUDA.
#include "lib/ops/attention_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

constexpr double kScale = 0.25;

/// d f(scores) / d scores, [n, n], by one backward pass per entry.
template <class F>
at::Tensor dense_jacobian(const F& weights_of, const at::Tensor& scores) {
  std::vector<at::Tensor> rows;
  for (int64_t i = 0; i < scores.numel(); ++i) {
    const at::Tensor leaf = scores.detach().clone().requires_grad_();
    rows.push_back(torch::autograd::grad({weights_of(leaf)[i]}, {leaf})[0]);
  }
  return at::stack(rows);
}

struct Expected {
  double row_sum = 0, row_sum_max = 0, entropy = 0;
  double sigmoid_norm = 0, sigmoid_max = 0, softmax_norm = 0, softmax_max = 0;
};

Expected expected(const at::Tensor& q, const at::Tensor& k, const std::vector<int32_t>& cu, const AttentionOptions& options) {
  Expected result;
  double num_rows = 0;
  for (std::size_t cell = 0; cell + 1 < cu.size(); ++cell) {
    const int64_t begin = cu[cell], end = cu[cell + 1];
    const double bias = options.bias_kind == kernels::BiasKind::kScalar ? options.scalar_bias : -std::log(static_cast<double>(end - begin));
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < q.size(1); ++head, ++num_rows) {
        const at::Tensor scores = k.slice(0, begin, end).select(1, head).matmul(q[row][head]) * kScale;
        const auto sigmoid = [&](const at::Tensor& s) { return at::sigmoid(s + bias); };
        const auto softmax = [](const at::Tensor& s) { return at::softmax(s, 0); };
        const at::Tensor of_sigmoid = dense_jacobian(sigmoid, scores), of_softmax = dense_jacobian(softmax, scores);
        // The claim itself: nothing beside the diagonal, nothing above a quarter; softmax has no zero anywhere (but for one
        // token alone).
        EXPECT_EQ((of_sigmoid - of_sigmoid.diag().diag()).abs().max().item<double>(), 0.0);
        EXPECT_LE(of_sigmoid.max().item<double>(), 0.25);
        EXPECT_TRUE(end - begin == 1 || of_softmax.abs().min().item<double>() > 0);
        const at::Tensor weights = options.kind == kernels::AttentionKind::kSigmoid ? sigmoid(scores) : softmax(scores);
        const double sum = weights.sum().item<double>();
        const at::Tensor shares = weights / sum;
        result.row_sum += sum;
        result.row_sum_max = std::max(result.row_sum_max, sum);
        result.entropy -= (shares * shares.log()).sum().item<double>();
        result.sigmoid_norm += of_sigmoid.norm().item<double>();
        result.softmax_norm += of_softmax.norm().item<double>();
        result.sigmoid_max = std::max(result.sigmoid_max, of_sigmoid.abs().max().item<double>());
        result.softmax_max = std::max(result.softmax_max, of_softmax.abs().max().item<double>());
      }
    }
  }
  for (double* mean : {&result.row_sum, &result.entropy, &result.sigmoid_norm, &result.softmax_norm}) *mean /= num_rows;
  return result;
}

class AttentionStatistics : public test::OnDevice {};

TEST_F(AttentionStatistics, AreThoseOfDenseJacobiansInDouble) {
  const std::vector<int32_t> cu{0, 7, 7, 8, 20};
  const at::Tensor q = at::randn({20, 2, 16}, at::kDouble) * 2, k = at::randn({20, 2, 16}, at::kDouble);
  AttentionOptions zero_bias, softmax;
  zero_bias.bias_kind = kernels::BiasKind::kScalar;
  softmax.kind = kernels::AttentionKind::kSoftmax;
  for (const AttentionOptions& options : {AttentionOptions(), zero_bias, softmax}) {
    const Expected want = expected(q, k, {0, 7, 7, 8, 20}, options);
    const at::Tensor got =
        attention_statistics(here(q), here(k), here(at::tensor(cu, at::kInt)), kScale, options, {.num_queries = 20}).cpu();
    ASSERT_EQ(got.numel(), static_cast<int64_t>(AttentionStatistic::kCount));
    const std::vector<double> values{want.row_sum, want.row_sum_max, want.entropy, want.sigmoid_norm,
                                     want.sigmoid_max, want.softmax_norm, want.softmax_max};
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(got[static_cast<int64_t>(i)].item<double>(), values[i], 1e3 * test::kFloat64RelativeL2 * std::abs(values[i]) + 1e-9) << i;
    }
    // In fp32 the same to its rounding.
    const at::Tensor single = attention_statistics(here(q.to(at::kFloat)), here(k.to(at::kFloat)), here(at::tensor(cu, at::kInt)),
                                                   kScale, options, {.num_queries = 20})
                                  .cpu()
                                  .to(at::kDouble);
    EXPECT_LT((single - got).norm().item<double>(), 10 * test::kFloat32RelativeL2 * got.norm().item<double>());
  }
}

TEST_F(AttentionStatistics, KeysOfOtherCellsCountForNothing) {
  at::Tensor q = at::randn({30, 1, 8}), k = at::randn({30, 1, 8});
  const at::Tensor cu = here(at::tensor({0, 10, 30}, at::kInt)), first = here(at::tensor({0, 10}, at::kInt));
  const at::Tensor alone = attention_statistics(here(q.slice(0, 0, 10)), here(k.slice(0, 0, 10)), first, kScale, {}, {.num_queries = 10});
  q.slice(0, 10, 30).zero_();  // the other cell's rows: uniform weights of sum 20 / 21
  k.slice(0, 10, 30) *= 100;
  const at::Tensor both = attention_statistics(here(q), here(k), cu, kScale, {}, {.num_queries = 30});
  const double sum_alone = alone[0].item<double>(), sum_both = both[0].item<double>();
  EXPECT_NEAR(sum_both, (10 * sum_alone + 20 * (20.0 / 21.0)) / 30, 1e-5);
}

TEST_F(AttentionStatistics, WithoutTokensTheyAreZeroAndNanScoresGiveNan) {
  const at::Tensor none = here(at::zeros({0, 1, 16}));
  EXPECT_EQ(attention_statistics(none, none, here(at::tensor({0}, at::kInt)), 1.0, {}, {}).abs().sum().item<float>(), 0.0F);
  const at::Tensor bad = here(at::full({4, 1, 16}, std::numeric_limits<float>::quiet_NaN()));
  EXPECT_TRUE(attention_statistics(bad, bad, here(at::tensor({0, 4}, at::kInt)), 1.0, {}, {}).isnan().all().item<bool>());
}

}  // namespace
}  // namespace scrna::ops
