// The training step on a GPU: its curve beside the CPU's, its bits from run to run, what it keeps in memory.
// Skipped without a GPU.
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <gtest/gtest.h>

#include "lib/core/random.h"
#include "lib/train/step.h"
#include "tests/support/packed_cells.h"
#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::train {
namespace {

using test::batch_of;
using test::pack;

constexpr int64_t kMaxTokens = 256;

TrainConfig small() {
  TrainConfig config;
  config.model = {.num_layers = 2, .width = 128, .num_heads = 2, .feed_forward_width = 512, .dropout = 0.1};
  config.optim.learning_rate = 1e-3;
  config.optim.warmup_steps = 10;
  config.optim.clip_norm = 1.0;
  return config;
}

// Four cells of up to 256 tokens in two micro-batches; the same again every other step, so that they are
// learned.
GlobalBatch batch_at(int64_t step) {
  const uint64_t first = 4 * static_cast<uint64_t>(step % 2);
  const RandomStream stream(1, RandomPurpose::kMask, first);
  std::vector<std::vector<std::pair<uint64_t, int32_t>>> cells(2);
  for (uint64_t cell = 0; cell < 4; ++cell) {
    cells[cell % 2].emplace_back(first + cell, 20 + static_cast<int32_t>(stream.below(236, cell)));
  }
  return batch_of(step, {pack(cells[0]), pack(cells[1])});
}

struct Training {
  Training(TrainConfig settings, at::Device device, at::ScalarType type)
      : config(std::move(settings)),
        encoder(config.model, test::kPackedVocabulary, kMaxTokens, config.train.seed, device, type),
        optimizer(encoder.parameters(), config.optim),
        step(encoder, optimizer, config) {}
  // One step in flight, as the trainer does it.
  std::vector<StepReport> train(int64_t num_steps) {
    std::vector<StepReport> reports;
    std::optional<PendingStep> before;
    for (int64_t i = 0; i < num_steps; ++i) {
      PendingStep pending = step.launch(to_device(batch_at(i), encoder.device()));
      if (before) reports.push_back(before->wait());
      before = std::move(pending);
    }
    reports.push_back(before->wait());
    return reports;
  }
  TrainConfig config;
  model::Encoder encoder;
  optim::AdamW optimizer;
  TrainStep step;
};

class TrainStepOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "skipped: no CUDA device";
    at::set_num_threads(2);  // of the CPU's twin: tiny products, many threads would wait for each other
                             // longer than they compute
  }
};

// Root mean square over the steps of the relative difference of a field.
double distance(const std::vector<StepReport>& a, const std::vector<StepReport>& b,
                double StepReport::*field) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow((a[i].*field - b[i].*field) / b[i].*field, 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// How far bf16 takes a run from fp32 is measured by bf16 on the CPU.
TEST_F(TrainStepOnGpu, InBf16FollowsFp32OnTheCpuForFiftyStepsAsCloselyAsBf16OnTheCpu) {
  constexpr int64_t kSteps = 50;
  using enum model::Attention;
  using enum model::ResidualPrecision;
  for (const auto& [attention, residual] :
       {std::pair(kSigmoid, kFp32), std::pair(kSigmoid, kBf16), std::pair(kSoftmax, kFp32)}) {
    TrainConfig config = small();
    config.model.attention = attention;
    config.model.residual_precision = residual;
    const auto gpu = Training(config, at::kCUDA, at::kBFloat16).train(kSteps);
    const auto bf16 = Training(config, at::kCPU, at::kBFloat16).train(kSteps);
    const auto fp32 = Training(config, at::kCPU, at::kFloat).train(kSteps);
    for (const auto& [field, name] :
         {std::pair(&StepReport::loss, "loss"), std::pair(&StepReport::grad_norm, "gradient norm")}) {
      const double ours = distance(gpu, fp32, field), theirs = distance(bf16, fp32, field);
      std::printf("%s: relative distance from fp32 %.2e on the GPU, %.2e on the CPU in bf16\n", name, ours,
                  theirs);
      EXPECT_GT(ours, 0.0);
      EXPECT_LE(ours, test::kTwinFactor * theirs + test::kTwinFloor) << name;
    }
    for (const StepReport& report : gpu) EXPECT_TRUE(report.is_applied);
    for (const auto* curve : {&gpu, &fp32})
      EXPECT_LT(curve->back().loss, 0.9 * curve->front().loss);  // it goes somewhere
  }
}

TEST_F(TrainStepOnGpu, WithDeterministicAttentionTwoRunsHaveTheSameBits) {
  const bool before = at::globalContext().deterministicAlgorithms();
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  Training one(small(), at::kCUDA, at::kBFloat16), two(small(), at::kCUDA, at::kBFloat16);
  const auto first = one.train(10), second = two.train(10);
  at::globalContext().setDeterministicAlgorithms(before, true);
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i].loss, second[i].loss) << i;
  EXPECT_TRUE(one.encoder.parameters().values().equal(two.encoder.parameters().values()));
}

TEST_F(TrainStepOnGpu, RecomputationSavesMemoryAndChangesNoBit) {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::Tensor values;
  int64_t smallest = 0;
  for (const model::Recompute recompute :
       {model::Recompute::kNone, model::Recompute::kFeedForward, model::Recompute::kBlock}) {
    TrainConfig config = small();
    config.model.num_layers = 8;
    config.train.recompute = recompute;
    Training run(config, at::kCUDA, at::kBFloat16);
    c10::cuda::CUDACachingAllocator::resetPeakStats(0);
    run.train(2);
    const int64_t peak = c10::cuda::CUDACachingAllocator::getDeviceStats(0).allocated_bytes[0].peak;
    std::printf("recompute %d: peak %.1f MB\n", static_cast<int>(recompute),
                1e-6 * static_cast<double>(peak));
    if (recompute == model::Recompute::kNone) values = run.encoder.parameters().values().to(at::kCPU);
    EXPECT_TRUE(values.equal(run.encoder.parameters().values().to(at::kCPU))) << static_cast<int>(recompute);
    EXPECT_TRUE(recompute == model::Recompute::kNone || peak < smallest) << static_cast<int>(recompute);
    smallest = peak;
  }
  at::globalContext().setDeterministicAlgorithms(false, true);
}

TEST_F(TrainStepOnGpu, NothingLaunchedAfterAStepThatIsNotFiniteIsApplied) {
  Training run(small(), at::kCUDA, at::kBFloat16);
  EXPECT_TRUE(run.step.launch(to_device(batch_at(0), at::kCUDA)).wait().is_applied);
  {
    const at::NoGradGuard no_grad;
    run.encoder.parameters().all().back().value.fill_(INFINITY);
    run.encoder.parameters().refresh_compute_values();
  }
  const at::Tensor before = run.encoder.parameters().values().clone();
  const PendingStep bad = run.step.launch(to_device(batch_at(1), at::kCUDA));
  const PendingStep after = run.step.launch(to_device(batch_at(2), at::kCUDA));
  EXPECT_FALSE(bad.wait().is_applied);
  EXPECT_FALSE(after.wait().is_applied);
  EXPECT_TRUE(run.encoder.parameters().values().equal(before));
  EXPECT_EQ(run.optimizer.num_updates(), 1);
}

}  // namespace
}  // namespace scrna::train
