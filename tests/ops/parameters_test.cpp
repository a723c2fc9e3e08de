#include "lib/ops/parameters.h"

#include <cmath>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

at::Tensor leaf(at::IntArrayRef sizes) { return at::randn(sizes).requires_grad_(); }

/// Two layers with decayed weights and biases without decay, interleaved as a model lists them.
std::vector<Parameter> two_layers() {
  return {{"a.weight", leaf({40, 30}), "a", true},
          {"a.bias", leaf({40}), "a", false},
          {"b.weight", leaf({1, 40}), "b", true},
          {"b.bias", leaf({1}), "b", false}};
}

at::Tensor loss_of(const ParameterSet& set, const at::Tensor& x) {
  const auto& p = set.all();
  const at::Tensor hidden = (x.matmul(p[0].value.t()) + p[1].value).tanh();
  return (hidden.matmul(p[2].value.t()) + p[3].value).square().sum();
}

TEST(ParameterSet, KeepsTheValuesAndPutsDecayedParametersFirst) {
  auto parameters = two_layers();
  const at::Tensor before = parameters[2].value.detach().clone();
  const at::Tensor outside = parameters[2].value;  // as a module holds it
  const ParameterSet set(std::move(parameters));
  EXPECT_TRUE(outside.equal(before));
  EXPECT_EQ(set.num_elements(), 40 * 30 + 40 + 40 + 1);
  EXPECT_EQ(set.values().numel(), 2048 + 1024 + 1024 + 1024);
  EXPECT_EQ(set.num_decayed(), 2048 + 1024);
  EXPECT_TRUE(set.values().narrow(0, 2048, 40).equal(before.flatten()));
  EXPECT_EQ(set.layer_names(), (std::vector<std::string>{"a", "b"}));
  ASSERT_NE(set.find("b.weight"), nullptr);
  EXPECT_EQ(set.find("b.weight")->value.data_ptr(), outside.data_ptr());
  EXPECT_EQ(set.find("b.weigth"), nullptr);
}

TEST(ParameterSet, WritingTheFlatBufferChangesTheModulesTensors) {
  auto parameters = two_layers();
  const at::Tensor outside = parameters[3].value;
  const ParameterSet set(std::move(parameters));
  const at::NoGradGuard no_grad;
  set.values().fill_(2.5);
  EXPECT_EQ(outside.item<float>(), 2.5F);
}

TEST(ParameterSet, BackwardAddsIntoTheFlatGradientInPlace) {
  auto parameters = two_layers();
  std::vector<at::Tensor> copies;
  for (const auto& p : parameters) copies.push_back(p.value.detach().clone().requires_grad_());
  ParameterSet set(std::move(parameters));
  const ParameterSet expected({{"a.weight", copies[0], "a", true},
                               {"a.bias", copies[1], "a", true},
                               {"b.weight", copies[2], "b", true},
                               {"b.bias", copies[3], "b", true}});
  const at::Tensor x = at::randn({7, 30});
  const void* buffer = set.gradients().data_ptr();
  loss_of(expected, x).backward();
  for (int times = 1; times <= 3; ++times) {
    loss_of(set, x).backward();
    for (size_t i = 0; i < 4; ++i)
      EXPECT_TRUE(set.slice(set.gradients(), i).allclose(set.all()[i].value.grad(), 0, 0)) << i;
    EXPECT_NEAR((set.slice(set.gradients(), 0) - times * copies[0].grad()).abs().max().item<double>(), 0.0,
                test::kAccumulatedGradientAbsolute);
    EXPECT_GT(copies[0].grad().abs().max().item<double>(), 0.1);
  }
  EXPECT_EQ(set.gradients().data_ptr(), buffer);
  set.zero_gradients();
  EXPECT_EQ(set.all()[0].value.grad().abs().max().item<float>(), 0.0F);
  loss_of(set, x).backward();
  EXPECT_GT(set.gradients().abs().max().item<float>(), 0.0F);
}

TEST(ParameterSet, SquaredNormsPerLayerMatchPlainSumsInDouble) {
  std::vector<Parameter> parameters = two_layers();
  parameters.push_back({"head.weight", leaf({300, 1000}), "head", true});
  const ParameterSet set(std::move(parameters));
  for (const auto& p : set.all()) p.value.mutable_grad().copy_(at::randn(p.value.sizes()) * 3.0);
  const at::Tensor squares = set.squared_gradient_norm_per_layer();
  ASSERT_EQ(squares.numel(), 3);
  EXPECT_EQ(squares.scalar_type(), at::kDouble);
  for (int64_t layer = 0; layer < 3; ++layer) {
    double expected = 0;
    for (const auto& p : set.all()) {
      if (p.layer != set.layer_names()[static_cast<size_t>(layer)]) continue;
      const at::Tensor g = p.value.grad().flatten();
      for (int64_t i = 0; i < g.numel(); ++i)
        expected += std::pow(static_cast<double>(g.data_ptr<float>()[i]), 2);
    }
    EXPECT_NEAR(squares[layer].item<double>() / expected, 1.0, test::kGradientNormRelative);
  }
  EXPECT_TRUE(squares.equal(set.squared_gradient_norm_per_layer()));
}

TEST(ParameterSet, SquaredNormsOfRangesAddUpToThoseOfAll) {
  std::vector<Parameter> parameters = two_layers();
  parameters.push_back({"head.weight", leaf({300, 1000}), "head", true});
  const ParameterSet set(std::move(parameters));
  for (const auto& p : set.all()) p.value.mutable_grad().copy_(at::randn(p.value.sizes()));
  const int64_t rows = set.gradients().numel() / kParameterAlignment;
  const auto of_rows = [](int64_t begin, int64_t end) {
    return ElementRange{begin * kParameterAlignment, end * kParameterAlignment};
  };
  const std::vector<ElementRange> some = {of_rows(5, 40), of_rows(0, 2)}, others = {of_rows(2, 5), of_rows(40, rows)};
  const at::Tensor first = set.squared_gradient_norm_per_layer(some), second = set.squared_gradient_norm_per_layer(others);
  EXPECT_GT(first.sum().item<double>(), 0);
  EXPECT_GT(second.sum().item<double>(), 0);
  EXPECT_TRUE(first.add(second).allclose(set.squared_gradient_norm_per_layer(Implementation::kComposed), 1e-12, 0));
  const std::vector<ElementRange> odd = {{0, 1000}};
  EXPECT_THROW((void)set.squared_gradient_norm_per_layer(odd), InternalError);
  for (size_t i = 0; i < set.all().size(); ++i) {
    const ElementRange range = set.range_of(i);
    EXPECT_EQ(set.slice(set.values(), i).storage_offset(), range.begin);
    EXPECT_EQ(range.size(), set.all()[i].value.numel());
  }
}

TEST(ParameterSet, MovingToAGpuKeepsValuesViewsAndInPlaceAccumulation) {
  if (!at::hasCUDA()) GTEST_SKIP() << "skipped: no CUDA device";
  ParameterSet set(two_layers());
  const at::Tensor x = at::randn({3, 30});
  const at::Tensor value = set.all()[0].value.detach().clone();
  loss_of(set, x).backward();
  const at::Tensor squares = set.squared_gradient_norm_per_layer();
  set.to(at::kCUDA);
  EXPECT_TRUE(set.all()[0].value.is_cuda());
  EXPECT_TRUE(set.all()[0].value.cpu().equal(value));
  set.zero_gradients();
  loss_of(set, x.to(at::kCUDA)).backward();
  const at::Tensor on_gpu = set.squared_gradient_norm_per_layer();
  EXPECT_TRUE(on_gpu.cpu().allclose(squares, test::kGpuAgainstCpuRelative, 0));
  EXPECT_TRUE(on_gpu.equal(set.squared_gradient_norm_per_layer()));
}

TEST(ParameterSet, RefusesDuplicatesAndNoticesAReplacedGradient) {
  auto twice = two_layers();
  twice[1].name = "a.weight";
  EXPECT_THROW(ParameterSet{std::move(twice)}, InternalError);
  auto shared = two_layers();
  shared[2].value = shared[0].value;
  EXPECT_THROW(ParameterSet{std::move(shared)}, InternalError);
  auto half = two_layers();
  half[0].value = half[0].value.detach().to(at::kBFloat16).requires_grad_();
  EXPECT_THROW(ParameterSet{std::move(half)}, InternalError);
  ParameterSet set(two_layers());
  set.all()[0].value.mutable_grad().reset();
  EXPECT_THROW(set.zero_gradients(), InternalError);
}

TEST(ParameterSet, ReservedRowsStandBehindTheParameterAndCountForNothing) {
  std::vector<Parameter> parameters = two_layers();
  parameters[0].reserved_rows = 64;
  const ParameterSet set(std::move(parameters));
  EXPECT_EQ(set.num_elements(), 40 * 30 + 40 + 40 + 1);
  EXPECT_EQ(set.values().numel(), 2048 + 1024 + 1024 + 1024);
  const at::Tensor padded = set.with_reserve(set.values(), 0);
  EXPECT_EQ(padded.sizes(), (std::vector<int64_t>{64, 30}));
  EXPECT_TRUE(padded.narrow(0, 0, 40).equal(set.slice(set.values(), 0)));
  EXPECT_EQ(padded.narrow(0, 40, 24).abs().max().item<float>(), 0.0F);
  EXPECT_EQ(set.with_reserve(set.values(), 1).sizes(), (std::vector<int64_t>{40}));
  std::vector<Parameter> too_few = two_layers();
  too_few[0].reserved_rows = 39;
  EXPECT_THROW(ParameterSet{std::move(too_few)}, InternalError);
}

TEST(ParameterSet, TheCopyForProductsIsTheValuesRoundedWhenAskedAgain) {
  ParameterSet set(two_layers());
  EXPECT_EQ(set.compute_type(), at::kFloat);
  EXPECT_EQ(set.compute_values().data_ptr(), set.values().data_ptr());
  set.set_compute_type(at::kBFloat16);
  EXPECT_TRUE(set.compute_values().equal(set.values().to(at::kBFloat16)));
  const at::NoGradGuard no_grad;
  set.values().add_(1.0);
  EXPECT_FALSE(set.compute_values().equal(set.values().to(at::kBFloat16)));
  set.refresh_compute_values();
  EXPECT_TRUE(set.compute_values().equal(set.values().to(at::kBFloat16)));
  set.to(at::kCPU);
  EXPECT_EQ(set.compute_type(), at::kBFloat16);
  EXPECT_THROW(set.set_compute_type(at::kHalf), InternalError);
}

TEST(ParameterSet, FindsAParameterByItsTensor) {
  const ParameterSet set(two_layers());
  EXPECT_EQ(set.index_of(set.all()[2].value), 2U);
  EXPECT_THROW((void)set.index_of(at::zeros({3})), InternalError);
}

}  // namespace
}  // namespace scrna::ops
