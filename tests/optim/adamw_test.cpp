#include "lib/optim/adamw.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lib/core/random.h"

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
  at::Tensor values = at::empty({kCount}, at::kFloat), gradients = at::empty({kCount}, at::kFloat);
  Oracle oracle{std::vector<double>(kCount), std::vector<double>(kCount), std::vector<double>(kCount)};
  for (int64_t i = 0; i < kCount; ++i) {
    const auto draw = static_cast<float>(random.uniform(static_cast<uint64_t>(i)) - 0.5);
    values.mutable_data_ptr<float>()[i] = draw;
    oracle.value[static_cast<std::size_t>(i)] = static_cast<double>(draw);
  }
  AdamW optimizer(values, gradients, kDecayed, config);
  for (int t = 1; t <= 10; ++t) {
    std::vector<double> gradient;
    for (int64_t i = 0; i < kCount; ++i) {
      const auto draw = static_cast<float>(random.uniform(static_cast<uint64_t>(1000 * t + i)) - 0.5);
      gradients.mutable_data_ptr<float>()[i] = draw;
      gradient.push_back(static_cast<double>(draw));
    }
    optimizer.step(0.01);
    oracle.step(gradient, 0.01, config, kDecayed, t);
  }
  for (int64_t i = 0; i < kCount; ++i) {
    // Ten fp32 updates of size 0.01 on values below 1: a few units of 6e-8.
    EXPECT_NEAR(static_cast<double>(values.const_data_ptr<float>()[i]), oracle.value[static_cast<std::size_t>(i)], 1e-6) << i;
  }
  EXPECT_EQ(optimizer.num_updates(), 10);
}

TEST(Clip, ScalesToTheNormAndOnlyWhenAboveIt) {
  at::Tensor gradients = at::empty({2}, at::kFloat);
  gradients.mutable_data_ptr<float>()[0] = 3;
  gradients.mutable_data_ptr<float>()[1] = 4;
  clip_by_global_norm(gradients, 5.0, 0.0);
  EXPECT_EQ(gradients.const_data_ptr<float>()[1], 4.0F);
  clip_by_global_norm(gradients, 5.0, 10.0);
  EXPECT_EQ(gradients.const_data_ptr<float>()[1], 4.0F);
  clip_by_global_norm(gradients, 5.0, 1.0);
  EXPECT_FLOAT_EQ(gradients.const_data_ptr<float>()[0], 0.6F);
  EXPECT_FLOAT_EQ(gradients.const_data_ptr<float>()[1], 0.8F);
}

}  // namespace
}  // namespace scrna::optim
