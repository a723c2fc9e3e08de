// The head's closed-form gradients against autograd in fp64, through standardisation and pooling; and what predicts.
#include "lib/finetune/classification_head.h"

#include <cmath>
#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "lib/eval/embedding.h"
#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::finetune {
namespace {

constexpr int64_t kWidth = 24, kClasses = 5;

class ClassificationHeadTest : public test::OnDevice {};

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.to(at::kCPU, at::kDouble).sub(b.to(at::kCPU, at::kDouble)).abs().max().item<double>();
}

TEST_F(ClassificationHeadTest, GradientsAreThoseOfAutogradInFp64) {
  const at::Tensor mean = at::randn({kWidth}), deviation = at::rand({kWidth}).add_(0.1);
  ClassificationHead head(mean, deviation, kClasses, 7, device());
  // Two packs, the second with another weight: sums over packs, <cls> left out of the means.
  for (const bool has_cls : {false, true}) {
    head.parameters().zero_gradients();
    const at::Tensor cu_seqlens = at::tensor({0, 3, 10, 12}, at::kInt);
    const double scale = 0.25;
    at::Tensor expected_loss = at::zeros({}, at::kDouble);
    const HeadWeights values = head.weights();
    const at::Tensor weight = values.weight.to(at::kDouble).requires_grad_(), bias = values.bias.to(at::kDouble).requires_grad_();
    for (int pack = 0; pack < 2; ++pack) {
      const at::Tensor hidden = at::randn({12, kWidth});
      const at::Tensor targets = at::randint(0, kClasses, {3}, at::kLong), weights = at::rand({3}).add_(0.5);

      const at::Tensor pooled = eval::pool_cells(here(hidden), cu_seqlens, {.has_cls = has_cls});
      const auto loss = head.loss_with_gradients(pooled, here(targets), here(weights), scale);
      const at::Tensor d_hidden = spread_over_tokens(loss.d_pooled_BD, cu_seqlens, has_cls, at::kFloat);

      const at::Tensor x = hidden.to(at::kDouble).requires_grad_();
      std::vector<at::Tensor> rows;
      for (int cell = 0; cell < 3; ++cell) {
        const auto first = cu_seqlens[cell].item<int64_t>() + (has_cls ? 1 : 0);
        rows.push_back(x.slice(0, first, cu_seqlens[cell + 1].item<int64_t>()).mean(0));
      }
      const at::Tensor z = at::stack(rows).sub(mean.to(at::kDouble)).div(deviation.to(at::kDouble));
      const at::Tensor log_p = at::log_softmax(at::matmul(z, weight.t()).add(bias), -1);
      const at::Tensor sum = log_p.gather(1, targets.unsqueeze(1)).squeeze(1).mul(weights.to(at::kDouble)).sum().neg();
      sum.mul(scale).backward();
      EXPECT_NEAR(loss.sum.item<double>(), sum.item<double>(), test::kHeadRelative * std::abs(sum.item<double>()));
      EXPECT_LE(largest_difference(d_hidden, x.grad()), test::kHeadRelative * x.grad().abs().max().item<double>());
      if (has_cls) {
        EXPECT_EQ(d_hidden.to(at::kCPU)[3].abs().max().item<float>(), 0.0F);
      }
    }
    const auto& all = head.parameters().all();
    EXPECT_LE(largest_difference(all[0].value.grad(), weight.grad()),
              test::kHeadRelative * weight.grad().abs().max().item<double>());
    EXPECT_LE(largest_difference(all[1].value.grad(), bias.grad()),
              test::kHeadRelative * bias.grad().abs().max().item<double>());
  }
}

TEST_F(ClassificationHeadTest, PredictsTheSoftmaxOfItsLogitsAndKeepsMissingRowsMissing) {
  ClassificationHead head(at::randn({kWidth}), at::rand({kWidth}).add_(0.1), kClasses, 7, device());
  at::Tensor rows = at::randn({40, kWidth});
  const at::Tensor p = head.weights().probabilities(rows);
  EXPECT_LE(largest_difference(p, at::softmax(head.logits(here(rows)).to(at::kDouble), -1)), test::kHeadRelative);
  EXPECT_LE(largest_difference(p.sum(1), at::ones({40})), 1e-6);
  rows[3].fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor with_missing = head.weights().probabilities(rows);
  EXPECT_TRUE(with_missing[3].isnan().all().item<bool>());
  EXPECT_TRUE(at::equal(at::cat({with_missing.slice(0, 0, 3), with_missing.slice(0, 4)}),
                        at::cat({p.slice(0, 0, 3), p.slice(0, 4)})));
}

TEST_F(ClassificationHeadTest, ConstantColumnsAreNotBlownUp) {
  at::Tensor rows = at::randn({100, 4});
  rows.select(1, 2).fill_(5);
  rows.select(1, 3).mul_(1e-9);
  const auto [mean, deviation] = standardisation_of(here(rows));
  const double typical = rows.to(at::kDouble).std(0, /*unbiased=*/false).mean().item<double>();
  EXPECT_NEAR(mean[2].item<double>(), 5, 1e-6);
  EXPECT_NEAR(deviation[0].item<double>(), rows.select(1, 0).to(at::kDouble).std(/*unbiased=*/false).item<double>(), 1e-6);
  for (const int64_t column : {2, 3}) EXPECT_NEAR(deviation[column].item<double>(), 0.01 * typical, 1e-6);
  const auto [unused, ones] = standardisation_of(at::zeros({3, 4}));
  EXPECT_TRUE(at::equal(ones, at::ones({4})));
}

}  // namespace
}  // namespace scrna::finetune
