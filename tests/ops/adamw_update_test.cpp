// Compiled for the CPU and for CUDA (tests/support/test_device.h).
#include "lib/ops/adamw_update.h"

#include <cmath>
#include <string>
#include <vector>

#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/ops/parameters.h"
#include "tests/support/reference64.h"
#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

using test::doubles;
using test::relative_l2;

/// The update written from the paper's Algorithm 2 in fp64.
struct Oracle {
  std::vector<double> value, mean, squared;
  int64_t updates = 0;

  explicit Oracle(const at::Tensor& values)
      : value(doubles(values)), mean(value.size()), squared(value.size()) {}
  void step(const std::vector<double>& gradient, double factor, const AdamWUpdate& u, int64_t num_decayed) {
    ++updates;
    const double t = static_cast<double>(updates);
    for (size_t i = 0; i < value.size(); ++i) {
      const double g = factor * gradient[i];
      if (static_cast<int64_t>(i) < num_decayed) value[i] -= u.learning_rate * u.weight_decay * value[i];
      mean[i] = u.beta1 * mean[i] + (1 - u.beta1) * g;
      squared[i] = u.beta2 * squared[i] + (1 - u.beta2) * g * g;
      value[i] -= u.learning_rate * mean[i] / (1 - std::pow(u.beta1, t)) /
                  (std::sqrt(squared[i] / (1 - std::pow(u.beta2, t))) + u.epsilon);
    }
  }
};

AdamWBuffers buffers(const at::Tensor& values, int64_t num_decayed) {
  return {.values = values,
          .gradients = at::empty_like(values),
          .mean = at::zeros_like(values),
          .squared_mean = at::zeros_like(values),
          .compute_copy = at::zeros(values.sizes(), values.options().dtype(at::kBFloat16)),
          .num_decayed = num_decayed,
          .num_updates = at::zeros({}, values.options().dtype(at::kLong))};
}

at::Tensor squares_of(const at::Tensor& gradients) {
  return gradients.to(at::kDouble).square().sum().reshape({1});
}

class AdamWUpdateOp : public test::OnDevice {};

TEST_F(AdamWUpdateOp, FollowsThePaperWithDecayAndClipping) {
  const AdamWUpdate update{.learning_rate = 0.01, .weight_decay = 0.1, .clip_norm = 50};
  for (const auto& [count, num_decayed] :
       {std::pair<int64_t, int64_t>{5 * 1024, 2 * 1024}, {1024, 1024}, {37, 20}}) {
    for (const auto implementation : {Implementation::kAuto, Implementation::kComposed}) {
      const AdamWBuffers b = buffers(at::randn({count}).to(device()), num_decayed);
      Oracle oracle(b.values);
      for (int t = 1; t <= 10; ++t) {
        b.gradients.copy_(at::randn({count}).mul(t % 2 == 0 ? 10.0 : 0.1));
        const double norm = std::sqrt(squares_of(b.gradients).item<double>());
        const double factor = norm > 50 ? 50 / norm : 1.0;
        const auto report = doubles(adamw_update(b, squares_of(b.gradients), {}, update, implementation));
        EXPECT_NEAR(report[0] / norm, 1.0, test::kFloat64RelativeL2);
        EXPECT_NEAR(report[1] / factor, 1.0, test::kFloat64RelativeL2);
        EXPECT_EQ(report[2], 1.0);
        oracle.step(doubles(b.gradients), factor, update, num_decayed);
      }
      EXPECT_EQ(b.num_updates.item<int64_t>(), 10);
      EXPECT_LE(relative_l2(doubles(b.mean), oracle.mean), test::kFloat32RelativeL2);
      const bool kernel = implementation == Implementation::kAuto && count % 1024 == 0;
      EXPECT_LE(relative_l2(doubles(b.squared_mean), oracle.squared),
                kernel ? test::kFloat32RelativeL2 : test::kLibTorchSecondMomentRelative);
      EXPECT_LE(relative_l2(doubles(b.values), oracle.value), test::kFloat32RelativeL2);
      EXPECT_TRUE(b.compute_copy.equal(b.values.to(at::kBFloat16)));
    }
  }
}

TEST_F(AdamWUpdateOp, ThreeStepsAreTheTwinsToTheLastPlaces) {
  const at::Tensor values = at::randn({64 * 1024}).to(device()),
                   gradients = at::randn({64 * 1024}).to(device());
  const AdamWUpdate update{.learning_rate = 1e-3, .weight_decay = 0.1};
  std::vector<at::Tensor> results;
  for (const auto implementation : {Implementation::kAuto, Implementation::kComposed}) {
    AdamWBuffers b = buffers(values.clone(), 40 * 1024);
    b.gradients.copy_(gradients);
    for (int t = 0; t < 3; ++t) adamw_update(b, squares_of(gradients), {}, update, implementation);
    results.push_back(b.values);
  }
  const auto ours = doubles(results[0]), theirs = doubles(results[1]);
  for (size_t i = 0; i < ours.size(); ++i)
    ASSERT_NEAR(ours[i], theirs[i],
                test::kAdamWUlps * 0x1.0p-24 * std::fabs(theirs[i]) +
                    3 * update.learning_rate * test::kLibTorchSecondMomentRelative)
        << i;
}

// The boundary of weight decay lies inside the second range.
TEST_F(AdamWUpdateOp, RangesAreUpdatedAsIfAllWereAndNothingElseIs) {
  constexpr int64_t kRow = 1024, kRows = 8;
  const std::vector<ElementRange> ranges = {{5 * kRow, 6 * kRow}, {2 * kRow, 4 * kRow}};
  const AdamWUpdate update{.learning_rate = 0.01, .weight_decay = 0.1, .clip_norm = 50};
  for (const auto implementation : {Implementation::kAuto, Implementation::kComposed}) {
    const at::Tensor before = at::randn({kRows * kRow}).to(device());
    const AdamWBuffers whole = buffers(before.clone(), 3 * kRow);
    AdamWBuffers part = buffers(before.clone(), 3 * kRow);
    part.mean = at::zeros({3 * kRow}, before.options());
    part.squared_mean = at::zeros({3 * kRow}, before.options());
    part.ranges = ranges;
    for (int t = 0; t < 3; ++t) {
      whole.gradients.copy_(at::randn({kRows * kRow}));
      part.gradients.copy_(whole.gradients);
      adamw_update(whole, squares_of(whole.gradients), {}, update, implementation);
      adamw_update(part, squares_of(whole.gradients), {}, update, implementation);
    }
    at::Tensor expected = before.clone();
    int64_t moments = 0;
    for (const ElementRange& range : ranges) {
      const auto in = [&](const at::Tensor& flat) { return flat.narrow(0, range.begin, range.size()); };
      in(expected).copy_(in(whole.values));
      EXPECT_TRUE(part.mean.narrow(0, moments, range.size()).equal(in(whole.mean)));
      EXPECT_TRUE(part.squared_mean.narrow(0, moments, range.size()).equal(in(whole.squared_mean)));
      EXPECT_TRUE(in(part.compute_copy).equal(in(whole.compute_copy)));
      moments += range.size();
    }
    EXPECT_TRUE(part.values.equal(expected));
    EXPECT_EQ(part.num_updates.item<int64_t>(), 3);
  }
  AdamWBuffers wrong = buffers(at::zeros({kRows * kRow}).to(device()), 0);
  wrong.ranges = ranges;  // moments of everything
  EXPECT_THROW(adamw_update(wrong, squares_of(wrong.gradients), {}, update), InternalError);
}

TEST_F(AdamWUpdateOp, NothingChangesWhenTheNormOrTheLossIsNotFinite) {
  const AdamWUpdate update{.learning_rate = 0.01, .weight_decay = 0.1, .clip_norm = 1};
  const AdamWBuffers b = buffers(at::randn({2048}).to(device()), 1024);
  b.gradients.copy_(at::randn({2048}));
  const at::Tensor before = b.values.clone();
  const auto f32 = b.values.options();
  const at::Tensor fine = squares_of(b.gradients);
  for (const double broken : {std::nan(""), HUGE_VAL}) {
    EXPECT_EQ(doubles(adamw_update(b, at::full({2}, broken, fine.options()), {}, update))[2], 0.0);
    EXPECT_EQ(doubles(adamw_update(b, fine, at::full({}, broken, f32), update))[2], 0.0);
  }
  EXPECT_TRUE(b.values.equal(before));
  EXPECT_EQ(b.mean.abs().max().item<float>(), 0.0F);
  EXPECT_EQ(b.squared_mean.abs().max().item<float>(), 0.0F);
  EXPECT_EQ(b.num_updates.item<int64_t>(), 0);
  EXPECT_EQ(doubles(adamw_update(b, fine, at::full({}, 1.0, f32), update))[2], 1.0);
  EXPECT_FALSE(b.values.equal(before));
}

TEST_F(AdamWUpdateOp, GradientNormsPerLayerAreThoseOfDoubleAndReproducible) {
  const auto leaf = [&](at::IntArrayRef sizes) { return at::randn(sizes).to(device()).requires_grad_(); };
  const ParameterSet set({{"a.weight", leaf({700, 300}), "a", true},
                          {"a.bias", leaf({1}), "a", false},
                          {"b.weight", leaf({33, 1024}), "b", true},
                          {"c.bias", leaf({1000}), "c", false},
                          {"a.other", leaf({5000}), "a", true}});
  for (const auto& p : set.all()) p.value.mutable_grad().copy_(at::randn(p.value.sizes()).mul(3.0));
  const at::Tensor squares = set.squared_gradient_norm_per_layer();
  std::vector<double> expected(3);
  for (const auto& p : set.all())
    expected[static_cast<size_t>(p.layer[0] - 'a')] += squares_of(p.value.grad()).item<double>();
  const auto ours = doubles(squares);
  for (size_t layer = 0; layer < 3; ++layer)
    EXPECT_NEAR(ours[layer] / expected[layer], 1.0, test::kGradientNormRelative) << layer;
  EXPECT_TRUE(squares.equal(set.squared_gradient_norm_per_layer()));
  set.all()[3].value.mutable_grad()[7] = std::nan("");
  const auto broken = doubles(set.squared_gradient_norm_per_layer());
  EXPECT_TRUE(std::isnan(broken[2]));
  if (test::kOnCuda) {  // the twin's product with zeros and ones spreads it
    EXPECT_EQ(broken[0], ours[0]);
  }
}

TEST_F(AdamWUpdateOp, BuffersThatDoNotFitAreRefused) {
  const AdamWBuffers good = buffers(at::randn({2048}).to(device()), 1024);
  const at::Tensor squares = at::zeros({1}, good.values.options().dtype(at::kDouble));
  AdamWBuffers bad = good;
  bad.mean = good.mean.narrow(0, 0, 2047);
  EXPECT_THROW(adamw_update(bad, squares, {}, {}), InternalError);
  bad = good;
  bad.num_decayed = 2049;
  EXPECT_THROW(adamw_update(bad, squares, {}, {}), InternalError);
  EXPECT_THROW(adamw_update(good, squares.to(at::kFloat), {}, {}), InternalError);
  bad = good;
  bad.num_decayed = 1000;
  EXPECT_THROW(adamw_update(bad, squares, {}, {}, Implementation::kKernel), ConfigError);
}

}  // namespace
}  // namespace scrna::ops
