#include "lib/train/step.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/packed_cells.h"
#include "tests/support/tolerance.h"

namespace scrna::train {
namespace {

using test::batch_of;
using test::pack;

// A model with its optimizer and step, all from one seed.
struct SmallRun {
  explicit SmallRun(TrainConfig settings = small(), at::ScalarType type = at::kFloat)
      : config(std::move(settings)),
        encoder(config.model, test::kPackedVocabulary, 32, config.train.seed, at::kCPU, type),
        optimizer(encoder.parameters(), config.optim),
        step(encoder, optimizer, config) {}
  static TrainConfig small() {
    TrainConfig config;
    config.model = {.num_layers = 2, .width = 32, .num_heads = 2, .feed_forward_width = 64, .dropout = 0.1};
    config.optim.learning_rate = 1e-2;
    config.optim.warmup_steps = 0;
    return config;
  }
  TrainConfig config;
  model::Encoder encoder;
  optim::AdamW optimizer;
  TrainStep step;
};

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  return at::linalg_vector_norm(a.sub(b)).item<double>() / at::linalg_vector_norm(b).item<double>();
}

TEST(TrainStep, TheLossIsTheMeanOverAllMaskedTokensHoweverTheCellsArePacked) {
  SmallRun together, apart;
  const StepReport one = together.step(batch_of(0, {pack({{1, 32}, {2, 7}, {3, 20}, {4, 5}})}));
  const StepReport four =
      apart.step(batch_of(0, {pack({{1, 32}}), pack({{2, 7}, {3, 20}}), pack({{4, 5}})}));
  EXPECT_EQ(one.masked_tokens, four.masked_tokens);
  EXPECT_EQ(four.micro_batches, 3);
  EXPECT_NEAR(one.loss, four.loss, test::kGpuAgainstCpuRelative * one.loss);
  EXPECT_NEAR(one.grad_norm, four.grad_norm, test::kGpuAgainstCpuRelative * one.grad_norm);
  EXPECT_LT(relative_difference(apart.encoder.parameters().gradients(), together.encoder.parameters().gradients()),
            test::kGpuAgainstCpuRelative);
}

TEST(TrainStep, ReportsWhatItDid) {
  SmallRun run;
  const StepReport report = run.step(batch_of(0, {pack({{1, 32}, {2, 7}})}));
  EXPECT_EQ(report.step, 1);
  EXPECT_EQ(report.cells, 2);
  EXPECT_EQ(report.tokens, 39);
  EXPECT_NEAR(report.loss, std::log(test::kPackedVocabulary), 0.2);
  EXPECT_EQ(report.learning_rate, 1e-2);
  EXPECT_EQ(report.max_score_per_layer.size(), 2U);
  EXPECT_GT(report.max_score_per_layer[0], 0);
  ASSERT_EQ(report.grad_norm_per_layer.size(), run.encoder.parameters().layer_names().size());
  double squares = 0;
  for (const double norm : report.grad_norm_per_layer) squares += norm * norm;
  EXPECT_NEAR(report.grad_norm, std::sqrt(squares), test::kGradientNormRelative * report.grad_norm);
  EXPECT_NEAR(report.grad_norm, at::linalg_vector_norm(run.encoder.parameters().gradients()).item<double>(),
              test::kGpuAgainstCpuRelative * report.grad_norm);
}

TEST(TrainStep, TrainingOnTheSameCellsLowersTheLoss) {
  SmallRun run;
  double first = 0, last = 0;
  for (int64_t step = 0; step < 60; ++step) {
    last = run.step(batch_of(step, {pack({{1, 32}, {2, 20}})})).loss;
    if (step == 0) first = last;
  }
  EXPECT_LT(last, first / 4);  // from log 50 = 3.9 to below 1: the cells are learned by heart
}

TEST(TrainStep, ClippingScalesTheGradientButReportsTheNormBefore) {
  TrainConfig clipped = SmallRun::small();
  clipped.optim.clip_norm = 1e-3;
  SmallRun run(clipped), free;
  const GlobalBatch batch = batch_of(0, {pack({{1, 32}})});
  const StepReport report = run.step(batch);
  EXPECT_EQ(report.grad_norm, free.step(batch).grad_norm);
  // The first mean of gradients is 1 - beta1 times the clipped gradient.
  EXPECT_NEAR(at::linalg_vector_norm(run.optimizer.mean()).item<double>(), 0.1 * 1e-3,
              0.1 * 1e-3 * test::kGpuAgainstCpuRelative);
}

TEST(TrainStep, GradientsThatAreNotFiniteChangeNothing) {
  SmallRun run;
  {
    const at::NoGradGuard no_grad;
    run.encoder.parameters().all().back().value.fill_(std::numeric_limits<float>::infinity());
  }
  const at::Tensor before = run.encoder.parameters().values().clone();
  const StepReport report = run.step(batch_of(0, {pack({{1, 32}})}));
  EXPECT_FALSE(report.is_applied);
  EXPECT_TRUE(at::equal(run.encoder.parameters().values(), before));
  EXPECT_EQ(run.optimizer.num_updates(), 0);
}

TEST(TrainStep, NothingLaunchedAfterAStepThatIsNotFiniteIsApplied) {
  SmallRun run;
  const DeviceBatch batch = to_device(batch_of(0, {pack({{1, 32}})}), at::kCPU);
  EXPECT_TRUE(run.step.launch(batch).wait().is_applied);
  at::Tensor bias = run.encoder.parameters().all().back().value;
  const at::Tensor good = bias.detach().clone();
  const at::NoGradGuard no_grad;
  bias.fill_(std::numeric_limits<float>::infinity());
  const PendingStep bad = run.step.launch(batch);
  bias.copy_(good);  // what the next step meets is in order
  const at::Tensor before = run.encoder.parameters().values().clone();
  const PendingStep after = run.step.launch(batch);
  EXPECT_FALSE(bad.wait().is_applied);
  const StepReport report = after.wait();
  EXPECT_TRUE(std::isfinite(report.loss));
  EXPECT_TRUE(std::isfinite(report.grad_norm));
  EXPECT_FALSE(report.is_applied);
  EXPECT_TRUE(at::equal(run.encoder.parameters().values(), before));
  EXPECT_EQ(run.optimizer.num_updates(), 1);
}

TEST(TrainStep, InBf16TheCopyOfTheWeightsFollowsThem) {
  SmallRun run(SmallRun::small(), at::kBFloat16);
  const ops::ParameterSet& parameters = run.encoder.parameters();
  const at::Tensor before = parameters.compute_values().clone();
  (void)run.step(batch_of(0, {pack({{1, 32}})}));
  EXPECT_FALSE(at::equal(parameters.compute_values(), before));
  EXPECT_TRUE(at::equal(parameters.compute_values(), parameters.values().to(at::kBFloat16)));
}

TEST(TrainStep, PhasesTakeTheirTime) {
  SmallRun run;
  const PhaseSeconds seconds = run.step(batch_of(0, {pack({{1, 32}}), pack({{2, 7}})})).seconds;
  for (const double phase : {seconds.forward, seconds.backward, seconds.optimizer}) EXPECT_GT(phase, 0.0);
}

TEST(TrainStep, InBf16TheLossIsThatOfFp32ToBf16Rounding) {
  SmallRun fp32, bf16(SmallRun::small(), at::kBFloat16);
  const GlobalBatch batch = batch_of(0, {pack({{1, 32}, {2, 7}})});
  const double exact = fp32.step(batch).loss;
  EXPECT_NEAR(bf16.step(batch).loss, exact, test::kBFloat16LossRelative * exact);
  EXPECT_EQ(bf16.encoder.parameters().values().scalar_type(), at::kFloat);
}

TEST(TrainStep, ABatchWithoutMaskedTokensIsABug) {
  SmallRun run;
  EXPECT_THROW((void)run.step(GlobalBatch{}), InternalError);
}

}  // namespace
}  // namespace scrna::train
