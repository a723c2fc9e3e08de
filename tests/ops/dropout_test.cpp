#include "lib/ops/dropout.h"

#include <cmath>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

at::Tensor ints(const std::vector<int32_t>& x) { return at::tensor(x, at::kInt); }
at::Tensor ids(const std::vector<int64_t>& x) { return at::tensor(x, at::kLong); }

const DropoutSite kSite{.seed = 11, .step = 5, .layer = 3, .site = 1, .probability = 0.2};

TEST(Dropout, TheKernelAndTheComposedTwinAreEqualBitForBit) {
  const at::Tensor cu = ints({0, 3, 3, 50});
  const at::Tensor cells = ids({7, 1, -1234567890123456789});  // the last is a large unsigned id
  for (const int64_t width : {1, 8, 37, 300}) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor x = at::randn({50, width}).to(type);
      const at::Tensor kernel = dropout(x, cu, cells, kSite, Implementation::kKernel);
      EXPECT_EQ(kernel.scalar_type(), type);
      EXPECT_TRUE(kernel.equal(dropout(x, cu, cells, kSite, Implementation::kComposed))) << width;
    }
  }
}

TEST(Dropout, KeepsTheMeanAndDropsTheRightShare) {
  const int64_t tokens = 2000, width = 512;
  const double n = static_cast<double>(tokens * width);
  for (const double p : {0.02, 0.5}) {
    DropoutSite site = kSite;
    site.probability = p;
    const at::Tensor y = dropout(at::ones({tokens, width}), ints({0, 2000}), ids({42}), site);
    const double dropped = y.eq(0).sum().item<double>() / n;
    const double sigma = std::sqrt(p * (1 - p) / n);
    EXPECT_NEAR(dropped, p, test::kSigmas * sigma);
    EXPECT_NEAR(y.to(at::kDouble).mean().item<double>(), 1.0, test::kSigmas * sigma / (1 - p));
    // No feature and no token is special: the most extreme of 512 column means lies within 6 sigma.
    const at::Tensor columns = y.eq(0).to(at::kDouble).mean(0);
    EXPECT_LT((columns - p).abs().max().item<double>(),
              6.0 * std::sqrt(p * (1 - p) / static_cast<double>(tokens)));
  }
}

TEST(Dropout, TheMaskDoesNotDependOnPackingOrThreads) {
  const at::Tensor a = at::randn({30, 64});
  const at::Tensor b = at::randn({5, 64});
  const at::Tensor ab = dropout(at::cat({a, b}), ints({0, 30, 35}), ids({100, 200}), kSite);
  const at::Tensor ba = dropout(at::cat({b, a}), ints({0, 5, 35}), ids({200, 100}), kSite);
  EXPECT_TRUE(ab.narrow(0, 0, 30).equal(ba.narrow(0, 5, 30)));
  EXPECT_TRUE(ab.narrow(0, 30, 5).equal(ba.narrow(0, 0, 5)));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  EXPECT_TRUE(ab.equal(dropout(at::cat({a, b}), ints({0, 30, 35}), ids({100, 200}), kSite)));
  at::set_num_threads(threads);
}

TEST(Dropout, EverySeedStepLayerSiteAndCellHasItsOwnMask) {
  const at::Tensor x = at::ones({20, 64});
  const auto mask = [&](const DropoutSite& site, int64_t cell) {
    return dropout(x, ints({0, 20}), ids({cell}), site);
  };
  const at::Tensor base = mask(kSite, 1);
  EXPECT_TRUE(base.equal(mask(kSite, 1)));
  EXPECT_FALSE(base.equal(mask(kSite, 2)));
  for (int which = 0; which < 4; ++which) {
    DropoutSite site = kSite;
    if (which == 0) site.seed++;
    if (which == 1) site.step++;
    if (which == 2) site.layer++;
    if (which == 3) site.site++;
    EXPECT_FALSE(base.equal(mask(site, 1))) << which;
  }
}

TEST(Dropout, TheGradientIsTheSameMaskTimesTheSameScale) {
  const at::Tensor x = at::ones({20, 64}).requires_grad_();
  const at::Tensor y = dropout(x, ints({0, 20}), ids({9}), kSite);
  const at::Tensor g = at::randn({20, 64});
  y.backward(g);
  EXPECT_TRUE(x.grad().equal(y.detach() * g));
}

TEST(Dropout, ZeroProbabilityIsTheIdentityAndDroppedNaNIsZero) {
  DropoutSite site = kSite;
  const at::Tensor x = at::full({10, 64}, NAN);
  const at::Tensor y = dropout(x, ints({0, 10}), ids({9}), site);
  EXPECT_GT(y.eq(0).sum().item<int64_t>(), 0);
  site.probability = 0;
  EXPECT_TRUE(dropout(x, ints({0, 10}), ids({9}), site).is_same(x));
  for (const double p : {-0.1, 1.0, 0.9999999, static_cast<double>(NAN)}) {
    site.probability = p;
    EXPECT_THROW(dropout(x, ints({0, 10}), ids({9}), site), ConfigError) << p;
  }
  EXPECT_THROW(dropout(x, ints({0, 9}), ids({9}), kSite), InternalError);
}

TEST(Dropout, OnAGpuTheKernelAndTheTwinGiveTheMaskOfTheCpuBitForBit) {
  if (!at::hasCUDA()) GTEST_SKIP() << "skipped: no CUDA device";
  const at::Tensor cu = ints({0, 3, 3, 50});
  const at::Tensor cells = ids({7, 1, -1234567890123456789});
  for (const int64_t width : {1, 37, 64, 2048}) {
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor x = at::randn({50, width}).to(type);
      const at::Tensor expected = dropout(x, cu, cells, kSite);
      for (const auto implementation : {Implementation::kAuto, Implementation::kComposed}) {
        const at::Tensor y =
            dropout(x.to(at::kCUDA), cu.to(at::kCUDA), cells.to(at::kCUDA), kSite, implementation);
        EXPECT_TRUE(y.cpu().equal(expected)) << width << " " << type;
      }
    }
  }
}

}  // namespace
}  // namespace scrna::ops
