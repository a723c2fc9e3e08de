#include "lib/ops/recompute.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "lib/core/error.h"

namespace scrna::ops {
namespace {

using torch::autograd::variable_list;

struct Problem {
  at::Tensor x = at::randn({5, 7}).requires_grad_(), z = at::randn({5, 7}).requires_grad_(),
             weight = at::randn({7, 7}).requires_grad_();
  at::Tensor d_first = at::randn({5, 7}), d_second = at::randn({5, 7});

  [[nodiscard]] variable_list results(const at::Tensor& a, const at::Tensor& b) const {
    return {a.matmul(weight).tanh(), a.mul(b).exp()};
  }
  [[nodiscard]] variable_list gradients() const {
    return {x.grad().clone(), z.grad().clone(), weight.grad().clone()};
  }
  void forget() {
    for (at::Tensor* leaf : {&x, &z, &weight}) leaf->mutable_grad().reset();
  }
};

TEST(Recomputed, GivesTheResultsAndGradientsOfTheSegmentBitForBit) {
  Problem p;
  const variable_list plain = p.results(p.x, p.z);
  torch::autograd::backward({plain[0], plain[1]}, {p.d_first, p.d_second});
  const variable_list expected = p.gradients();
  p.forget();
  int runs = 0;
  const variable_list again = recomputed(
      [&](const at::Tensor& a, const at::Tensor& b) {
        ++runs;
        return p.results(a, b);
      },
      p.x, p.z);
  EXPECT_TRUE(again[0].equal(plain[0]));
  EXPECT_EQ(runs, 1);
  torch::autograd::backward({again[0], again[1]}, {p.d_first, p.d_second});
  EXPECT_EQ(runs, 2);
  const variable_list gradients = p.gradients();
  for (size_t i = 0; i < gradients.size(); ++i) EXPECT_TRUE(gradients[i].equal(expected[i])) << i;
}

TEST(Recomputed, AnUnusedResultCostsNothingAndItsInputGetsNoGradient) {
  Problem p;
  const variable_list results =
      recomputed([&](const at::Tensor& a, const at::Tensor& b) { return p.results(a, b); }, p.x, p.z);
  results[0].backward(p.d_first);
  EXPECT_TRUE(p.x.grad().defined());
  EXPECT_FALSE(p.z.grad().defined());
}

TEST(Recomputed, OneInputIsEnough) {
  Problem p;
  const auto segment = [&](const at::Tensor& a, const at::Tensor& none) {
    EXPECT_FALSE(none.defined());
    return variable_list{a.matmul(p.weight).tanh()};
  };
  recomputed(segment, p.x)[0].backward(p.d_first);
  const at::Tensor d_x = p.x.grad().clone();
  p.forget();
  p.x.matmul(p.weight).tanh().backward(p.d_first);
  EXPECT_TRUE(d_x.equal(p.x.grad()));
}

TEST(Recomputed, WithoutRecordingItRunsOnce) {
  const Problem p;
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(
      recomputed([&](const at::Tensor& a, const at::Tensor& b) { return p.results(a, b); }, p.x, p.z)[0]
          .equal(p.results(p.x, p.z)[0]));
}

TEST(Recomputed, InputsWithoutGradientsAreABug) {
  const Problem p;
  const auto segment = [&](const at::Tensor& a, const at::Tensor& b) { return p.results(a, b); };
  EXPECT_THROW(recomputed(segment, p.x.detach(), p.z.detach()), InternalError);
}

}  // namespace
}  // namespace scrna::ops
