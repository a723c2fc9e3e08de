#include "lib/optim/adamw.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/core/random.h"
#include "lib/ops/parameters.h"

namespace scrna::optim {
namespace {

// The update written from the paper's Algorithm 2 in fp64: the oracle.
struct Oracle {
  std::vector<double> value, mean, squared;
  void step(const std::vector<double>& gradient, double rate, const OptimConfig& c, std::size_t num_decayed, int t) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (i < num_decayed) value[i] -= rate * c.weight_decay * value[i];
      mean[i] = c.beta1 * mean[i] + (1 - c.beta1) * gradient[i];
      squared[i] = c.beta2 * squared[i] + (1 - c.beta2) * gradient[i] * gradient[i];
      const double m = mean[i] / (1 - std::pow(c.beta1, t)), v = squared[i] / (1 - std::pow(c.beta2, t));
      value[i] -= rate * m / (std::sqrt(v) + c.epsilon);
    }
  }
};

TEST(AdamW, FollowsThePaperForTenStepsWithAndWithoutDecay) {
  constexpr int64_t kCount = 37, kDecayed = 20;
  const OptimConfig config{.weight_decay = 0.1};
  const RandomStream random(1, RandomPurpose::kInit);
  const at::Tensor decayed = at::empty({kDecayed}).requires_grad_(), rest = at::empty({kCount - kDecayed}).requires_grad_();
  ops::ParameterSet parameters({{"decayed", decayed, "a", true}, {"rest", rest, "a", false}});
  const auto element = [&](const at::Tensor& flat, int64_t i) -> float& {
    const at::Tensor part = i < kDecayed ? parameters.slice(flat, 0) : parameters.slice(flat, 1);
    return part.mutable_data_ptr<float>()[i < kDecayed ? i : i - kDecayed];
  };
  Oracle oracle{std::vector<double>(kCount), std::vector<double>(kCount), std::vector<double>(kCount)};
  for (int64_t i = 0; i < kCount; ++i) {
    const auto draw = static_cast<float>(random.uniform(static_cast<uint64_t>(i)) - 0.5);
    element(parameters.values(), i) = draw;
    oracle.value[static_cast<std::size_t>(i)] = static_cast<double>(draw);
  }
  AdamW optimizer(parameters, config);
  for (int t = 1; t <= 10; ++t) {
    std::vector<double> gradient;
    for (int64_t i = 0; i < kCount; ++i) {
      const auto draw = static_cast<float>(random.uniform(static_cast<uint64_t>(1000 * t + i)) - 0.5);
      element(parameters.gradients(), i) = draw;
      gradient.push_back(static_cast<double>(draw));
    }
    optimizer.step(0.01, parameters.squared_gradient_norm_per_layer(), {});
    oracle.step(gradient, 0.01, config, kDecayed, t);
  }
  for (int64_t i = 0; i < kCount; ++i) {
    // Ten fp32 updates of size 0.01 on values below 1: a few units of 6e-8.
    EXPECT_NEAR(static_cast<double>(element(parameters.values(), i)), oracle.value[static_cast<std::size_t>(i)], 1e-6) << i;
  }
  EXPECT_EQ(optimizer.num_updates(), 10);
}

TEST(AdamW, ClipsToTheNormAndWritesTheCopyForProducts) {
  const at::Tensor value = at::zeros({2}).requires_grad_();
  ops::ParameterSet parameters({{"value", value, "a", false}});
  parameters.set_compute_type(at::kBFloat16);
  AdamW optimizer(parameters, {.beta1 = 0.5, .clip_norm = 1.0});
  float* gradient = parameters.gradients().mutable_data_ptr<float>();
  gradient[0] = 3;
  gradient[1] = 4;
  const at::Tensor outcome = optimizer.step(0.25, parameters.squared_gradient_norm_per_layer(), {});
  EXPECT_FLOAT_EQ(static_cast<float>(outcome[0].item<double>()), 5.0F);
  EXPECT_FLOAT_EQ(static_cast<float>(outcome[1].item<double>()), 0.2F);
  EXPECT_EQ(outcome[2].item<double>(), 1.0);
  EXPECT_FLOAT_EQ(optimizer.mean().const_data_ptr<float>()[0], 0.5F * 0.6F);
  EXPECT_FLOAT_EQ(optimizer.mean().const_data_ptr<float>()[1], 0.5F * 0.8F);
  EXPECT_EQ(gradient[1], 4.0F);
  EXPECT_NE(value[0].item<float>(), 0.0F);
  EXPECT_TRUE(parameters.compute_values().equal(parameters.values().to(at::kBFloat16)));
}

TEST(AdamW, ALossThatIsNotFiniteChangesNothing) {
  const at::Tensor value = at::ones({2}).requires_grad_();
  ops::ParameterSet parameters({{"value", value, "a", false}});
  AdamW optimizer(parameters, {});
  const at::Tensor outcome = optimizer.step(0.25, parameters.squared_gradient_norm_per_layer(), at::full({}, NAN));
  EXPECT_EQ(outcome[2].item<double>(), 0.0);
  EXPECT_EQ(optimizer.num_updates(), 0);
  EXPECT_EQ(value[0].item<float>(), 1.0F);
}

TEST(AdamW, TwoThatOwnAPartEachDoWhatOneDoes) {
  constexpr int64_t kRow = ops::kParameterAlignment;
  const auto make = [] {
    const at::Tensor value = at::arange(4 * kRow, at::kFloat).mul_(1e-3).detach().requires_grad_();
    return ops::ParameterSet({{"value", value, "a", true}});
  };
  const at::Tensor gradients = at::arange(4 * kRow, at::kFloat).sub_(2000).mul_(1e-4);
  ops::ParameterSet of_one = make(), of_two = make();
  for (const ops::ParameterSet* set : {&of_one, &of_two}) set->gradients().copy_(gradients);
  AdamW one(of_one, {});
  AdamW first(of_two, {}, {{3 * kRow, 4 * kRow}, {0, kRow}}), second(of_two, {}, {{kRow, 3 * kRow}});
  EXPECT_TRUE(one.is_whole());
  EXPECT_FALSE(first.is_whole());
  EXPECT_EQ(first.mean().numel(), 2 * kRow);
  for (int t = 0; t < 2; ++t) {
    const at::Tensor squares = of_one.squared_gradient_norm_per_layer();
    for (AdamW* optimizer : {&one, &first, &second}) optimizer->step(0.01, squares, {});
  }
  EXPECT_TRUE(of_one.values().equal(of_two.values()));
  // What one saved, two restore in pieces; what is not theirs is passed over.
  AdamW other(of_two, {}, {{3 * kRow, 4 * kRow}, {0, kRow}});
  for (int64_t begin = 0; begin < 4 * kRow; begin += 500) {
    const int64_t count = std::min<int64_t>(500, 4 * kRow - begin);
    other.set_moments(begin, one.mean().narrow(0, begin, count), one.squared_mean().narrow(0, begin, count));
  }
  EXPECT_TRUE(other.mean().equal(first.mean()));
  EXPECT_TRUE(other.squared_mean().equal(first.squared_mean()));
}

}  // namespace
}  // namespace scrna::optim
