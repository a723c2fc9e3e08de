// What the tests of the CUDA attention kernels share: every test runs on each path (Hopper, portable) with
// all of its head widths, and skips the paths that the GPU at hand cannot take.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/device_attention.h"
#include "tests/support/tolerance.h"

namespace scrna::kernels {

using test::AttentionCase;
using test::DeviceAttention;
using test::HostAttention;

/// For the names of tests.
inline void PrintTo(CudaPath path, std::ostream* out) {
  *out << (path == CudaPath::kFastest ? "the fastest kernels" : "the portable kernels");
}

class AttentionCuda : public testing::TestWithParam<CudaPath> {
 protected:
  void SetUp() override {
    const int capability = test::compute_capability();
    if (GetParam() == CudaPath::kFastest && capability != 90) GTEST_SKIP() << "needs compute capability 9.0";
    if (capability < 80) GTEST_SKIP() << "needs compute capability 8.0 or later";
  }
  [[nodiscard]] static std::vector<int64_t> widths() {
    return GetParam() == CudaPath::kFastest ? std::vector<int64_t>{64, 128}
                                            : std::vector<int64_t>{32, 64, 96, 128};
  }
};

/// An operand set for this path.
class PathProblem : public HostAttention {
 public:
  PathProblem(CudaPath path, const AttentionCase& c, uint64_t seed = 1) : HostAttention(c, seed) {
    shape.cuda_path = path;
  }
};

struct Variant {
  ElementType type;
  SigmoidPrecision precision;
  bool deterministic;
  [[nodiscard]] double output() const {
    return type == ElementType::kBFloat16 ? test::kBFloat16AttentionOutput : test::kFloat16AttentionOutput;
  }
  [[nodiscard]] double gradient() const {
    return type == ElementType::kBFloat16 ? test::kBFloat16AttentionGradient
                                          : test::kFloat16AttentionGradient;
  }
  [[nodiscard]] std::string name() const {
    return std::string(type == ElementType::kBFloat16 ? "bf16" : "fp16") +
           (precision == SigmoidPrecision::kFast ? " fast" : " exact") +
           (deterministic ? " deterministic" : "");
  }
};

inline std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (const auto type : {ElementType::kBFloat16, ElementType::kFloat16})
    for (const auto precision : {SigmoidPrecision::kExact, SigmoidPrecision::kFast})
      for (const bool deterministic : {false, true}) all.push_back({type, precision, deterministic});
  return all;
}

inline void run(DeviceAttention& device, bool deterministic, bool bias_gradient = true) {
  device.reset();
  ASSERT_EQ(device.forward(), cudaSuccess);
  ASSERT_EQ(device.backward(deterministic, bias_gradient), cudaSuccess);
  device.download();
}

inline std::vector<std::vector<uint32_t>> bits_of(const HostAttention& problem) {
  return {problem.o.bits(), problem.d_q.bits(), problem.d_k.bits(), problem.d_v.bits()};
}

}  // namespace scrna::kernels
