// The device of a test that is compiled twice: into the CPU's executable and, with SCRNA_TEST_ON_CUDA, into
// the GPU's, where it is skipped without a GPU. One test, one case table, both implementations.
#pragma once

#include <vector>

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace scrna::test {

#ifdef SCRNA_TEST_ON_CUDA
inline constexpr bool kOnCuda = true;
#else
inline constexpr bool kOnCuda = false;
#endif

class OnDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (kOnCuda && !at::hasCUDA()) GTEST_SKIP() << "skipped: no CUDA device";
  }
  [[nodiscard]] static at::Device device() { return kOnCuda ? at::kCUDA : at::kCPU; }
  [[nodiscard]] static at::Tensor here(const at::Tensor& x) { return x.defined() ? x.to(device()) : x; }
};

/// Random fp64 numbers that bf16 holds exactly, so that every type sees the same operands.
inline at::Tensor exact_randn(at::IntArrayRef sizes, double scale = 1.0) {
  return at::randn(sizes, at::kDouble).mul(scale).to(at::kBFloat16).to(at::kDouble);
}

/// Values in fp64 on the CPU.
inline std::vector<double> doubles(const at::Tensor& x) {
  const at::Tensor y = x.detach().to(at::kCPU, at::kDouble).contiguous();
  return {y.data_ptr<double>(), y.data_ptr<double>() + y.numel()};
}

}  // namespace scrna::test
