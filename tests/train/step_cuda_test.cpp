// The training step on a GPU: its curve beside the CPU's, its bits from run to run, what it keeps in memory. Skipped
// without a GPU.
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/Context.h>
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

// Eight cells of up to 256 tokens in two micro-batches, others at every step.
GlobalBatch batch_at(int64_t step) {
  const RandomStream stream(1, RandomPurpose::kMask, static_cast<uint64_t>(step));
  std::vector<std::vector<std::pair<uint64_t, int32_t>>> cells(2);
  for (uint64_t cell = 0; cell < 8; ++cell) {
    cells[cell % 2].emplace_back(8 * static_cast<uint64_t>(step) + cell, 20 + static_cast<int32_t>(stream.below(236, cell)));
  }
  return batch_of(step, {pack(cells[0]), pack(cells[1])});
}

struct Run {
  Run(TrainConfig settings, at::Device device, at::ScalarType type)
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
  }
};

TEST_F(TrainStepOnGpu, InBf16FollowsFp32OnTheCpuForFiftySteps) {
  for (const model::Attention attention : {model::Attention::kSigmoid, model::Attention::kSoftmax}) {
    TrainConfig config = small();
    config.model.attention = attention;
    const auto gpu = Run(config, at::kCUDA, at::kBFloat16).train(50);
    const auto cpu = Run(config, at::kCPU, at::kFloat).train(50);
    double sum = 0;
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      EXPECT_TRUE(gpu[i].is_finite);
      EXPECT_NEAR(gpu[i].loss, cpu[i].loss, test::kBFloat16CurveRelative * cpu[i].loss) << "step " << i;
      EXPECT_NEAR(gpu[i].grad_norm, cpu[i].grad_norm, test::kBFloat16CurveGradientRelative * cpu[i].grad_norm) << "step " << i;
      sum += (gpu[i].loss - cpu[i].loss) / cpu[i].loss / 50;
    }
    EXPECT_LT(std::fabs(sum), test::kBFloat16CurveMeanRelative);
    EXPECT_LT(cpu.back().loss, 0.97 * cpu.front().loss);  // the curves go somewhere
  }
}

TEST_F(TrainStepOnGpu, WithDeterministicAttentionTwoRunsHaveTheSameBits) {
  const bool before = at::globalContext().deterministicAlgorithms();
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  Run one(small(), at::kCUDA, at::kBFloat16), two(small(), at::kCUDA, at::kBFloat16);
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
    config.train.recompute = recompute;
    Run run(config, at::kCUDA, at::kBFloat16);
    c10::cuda::CUDACachingAllocator::resetPeakStats(0);
    run.train(2);
    const int64_t peak = c10::cuda::CUDACachingAllocator::getDeviceStats(0).allocated_bytes[0].peak;
    if (recompute == model::Recompute::kNone) values = run.encoder.parameters().values().clone();
    EXPECT_TRUE(values.equal(run.encoder.parameters().values())) << static_cast<int>(recompute);
    if (recompute != model::Recompute::kNone) EXPECT_LT(peak, smallest) << static_cast<int>(recompute);
    smallest = peak;
  }
  at::globalContext().setDeterministicAlgorithms(false, true);
}

TEST_F(TrainStepOnGpu, NothingLaunchedAfterAStepThatIsNotFiniteIsApplied) {
  Run run(small(), at::kCUDA, at::kBFloat16);
  EXPECT_TRUE(run.step.launch(to_device(batch_at(0), at::kCUDA)).wait().is_finite);
  {
    const at::NoGradGuard no_grad;
    run.encoder.parameters().all().back().value.fill_(INFINITY);
    run.encoder.parameters().refresh_compute_values();
  }
  const at::Tensor before = run.encoder.parameters().values().clone();
  const PendingStep bad = run.step.launch(to_device(batch_at(1), at::kCUDA));
  const PendingStep after = run.step.launch(to_device(batch_at(2), at::kCUDA));
  EXPECT_FALSE(bad.wait().is_finite);
  EXPECT_FALSE(after.wait().is_finite);
  EXPECT_TRUE(run.encoder.parameters().values().equal(before));
  EXPECT_EQ(run.optimizer.num_updates(), 1);
}

}  // namespace
}  // namespace scrna::train
