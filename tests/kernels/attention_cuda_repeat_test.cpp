#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/attention_cuda.h"
#include "tests/kernels/attention_cuda_fixture.h"

namespace scrna::kernels {
namespace {

/// Fast, because the exact form may differ (kernels/attention_backward_sm90.cu).
TEST_P(AttentionCuda, WithoutTheBiasGradientTheOtherResultsAreTheSameBits) {
  for (const int64_t width : widths()) {
    // With -log(n) the fast form of width 128 is another one without that gradient
    // (attention_backward_sm90.cu).
    PathProblem problem(
        GetParam(), {.name = "", .query_lengths = {300, 0, 77}, .width = width, .bias = BiasKind::kScalar});
    test::round_operands(problem, ElementType::kBFloat16);
    DeviceAttention device(problem, ElementType::kBFloat16, SigmoidPrecision::kFast);
    run(device, true, true);
    const auto with = bits_of(problem);
    run(device, true, false);
    EXPECT_EQ(with, bits_of(problem));
  }
}

TEST_P(AttentionCuda, DeterministicModeGivesTheSameBitsEveryTimeAndTheDefaultDoesSaveForDQ) {
  for (const int64_t width : widths())
    for (const bool deterministic : {true, false}) {
      PathProblem problem(
          GetParam(), {.name = "", .query_lengths = {2500, 30, 0, 1111, 640}, .heads = 3, .width = width});
      test::round_operands(problem, ElementType::kBFloat16);
      DeviceAttention device(problem, ElementType::kBFloat16, SigmoidPrecision::kExact);
      run(device, deterministic);
      const auto o = problem.o.bits(), d_q = problem.d_q.bits(), d_k = problem.d_k.bits(),
                 d_v = problem.d_v.bits();
      const auto d_bias = problem.d_cell_bias;
      for (int repeat = 0; repeat < 3; ++repeat) {
        run(device, deterministic);
        EXPECT_EQ(problem.o.bits(), o);
        EXPECT_EQ(problem.d_k.bits(), d_k);
        EXPECT_EQ(problem.d_v.bits(), d_v);
        EXPECT_EQ(problem.d_cell_bias, d_bias);
        if (deterministic) {
          EXPECT_EQ(problem.d_q.bits(), d_q);
        }
      }
    }
}

/// Warpgroups without work overtaken by two phases of a barrier once made a kernel wait for ever, in one
/// launch of thousands: cells whose tiles leave one or two warpgroups idle, beside long ones, over and over.
/// A test that hangs cannot end, so this one watches the clock.
TEST_P(AttentionCuda, ThousandsOfLaunchesWithIdleWarpgroupsAllEnd) {
  constexpr double kLimitSeconds = 60;
  std::vector<int32_t> lengths{2000, 1, 63, 65, 64, 129, 193, 1, 700, 5, 4097, 66};
  for (int32_t i = 0; i < 60; ++i) lengths.push_back(1 + i * 53 % 257);
  for (const int64_t width : widths())
    for (const auto precision : {SigmoidPrecision::kExact, SigmoidPrecision::kFast}) {
      PathProblem problem(GetParam(), {.name = "", .query_lengths = lengths, .heads = 5, .width = width});
      test::round_operands(problem, ElementType::kBFloat16);
      DeviceAttention device(problem, ElementType::kBFloat16, precision);
      run(device, true);
      const auto first = bits_of(problem);
      const auto start = std::chrono::steady_clock::now();
      const auto wait_for_device = [&] {
        while (cudaStreamQuery(nullptr) == cudaErrorNotReady) {
          if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < kLimitSeconds)
            continue;
          std::fprintf(stderr, "width %d: a launch has not ended in %.0f s: it hangs\n",
                       static_cast<int>(width), kLimitSeconds);
          std::abort();
        }
      };
      for (int launch = 0; launch < 1500; ++launch) {
        ASSERT_EQ(device.forward(), cudaSuccess);
        ASSERT_EQ(device.backward(launch % 8 == 0), cudaSuccess);
        if (launch % 50 == 0) wait_for_device();
      }
      ASSERT_EQ(device.backward(true), cudaSuccess);
      wait_for_device();
      device.download();
      EXPECT_EQ(bits_of(problem), first);
    }
}

TEST_P(AttentionCuda, TwoStreamsAtOnceGiveTheResultsOfOne) {
  PathProblem first(GetParam(), {.name = "", .query_lengths = {1500, 200, 900}, .heads = 4, .width = 64}, 1);
  PathProblem second(GetParam(), {.name = "", .query_lengths = {700, 1300}, .heads = 4, .width = 128}, 2);
  std::vector<cudaStream_t> streams(2);
  for (auto& stream : streams)
    test::check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  std::vector<DeviceAttention> devices;
  std::vector<std::vector<std::vector<uint32_t>>> expected;
  for (PathProblem* problem : {&first, &second}) {
    test::round_operands(*problem, ElementType::kBFloat16);
    devices.emplace_back(*problem, ElementType::kBFloat16, SigmoidPrecision::kFast);
    run(devices.back(), true);
    expected.push_back(bits_of(*problem));
  }
  for (int repeat = 0; repeat < 5; ++repeat) {
    for (DeviceAttention& device : devices) device.reset();
    for (size_t i = 0; i < 2; ++i) ASSERT_EQ(devices[i].forward(streams[i]), cudaSuccess);
    for (size_t i = 0; i < 2; ++i) ASSERT_EQ(devices[i].backward(true, true, streams[i]), cudaSuccess);
    for (DeviceAttention& device : devices) device.download();
    EXPECT_EQ(bits_of(first), expected[0]);
    EXPECT_EQ(bits_of(second), expected[1]);
  }
  for (const auto stream : streams) cudaStreamDestroy(stream);
}

TEST_P(AttentionCuda, ACapturedGraphReplaysToTheSameBits) {
  PathProblem problem(GetParam(), {.name = "", .query_lengths = {333, 0, 800}, .heads = 2, .width = 64});
  test::round_operands(problem, ElementType::kBFloat16);
  DeviceAttention device(problem, ElementType::kBFloat16, SigmoidPrecision::kExact);
  run(device, true);
  const auto o = problem.o.bits(), d_q = problem.d_q.bits(), d_k = problem.d_k.bits();
  cudaStream_t stream = nullptr;
  test::check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  test::check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  ASSERT_EQ(device.forward(stream), cudaSuccess);
  ASSERT_EQ(device.backward(true, true, stream), cudaSuccess);
  test::check_cuda(cudaStreamEndCapture(stream, &graph), "capture");
  test::check_cuda(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  for (int repeat = 0; repeat < 3; ++repeat) {
    device.reset();
    test::check_cuda(cudaGraphLaunch(executable, stream), "replay");
    device.download();
    EXPECT_EQ(problem.o.bits(), o);
    EXPECT_EQ(problem.d_q.bits(), d_q);
    EXPECT_EQ(problem.d_k.bits(), d_k);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace scrna::kernels
