#include "lib/train/step.h"

#include <cmath>
#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "lib/core/error.h"
#include "lib/optim/schedule.h"

namespace scrna::train {
namespace {

constexpr int64_t kOutcomes = 3;  // of AdamW::step

/// A copy on its way to the host.
at::Tensor fetch(const at::Tensor& numbers) {
  if (numbers.is_cpu()) return numbers;
  const at::Tensor host =
      at::empty(numbers.sizes(), at::TensorOptions(numbers.scalar_type()).pinned_memory(true));
  host.copy_(numbers, /*non_blocking=*/true);
  return host;
}

}  // namespace

StepReport PendingStep::wait() const {
  clock_.wait();
  StepReport report = known_;
  clock_.add_to(report.seconds);
  const double* numbers = numbers_.const_data_ptr<double>();
  report.loss = numbers[0];
  report.grad_norm = numbers[1];
  report.is_finite = numbers[kOutcomes] == 1.0;
  const double* squares = numbers + 1 + kOutcomes;
  for (int64_t layer = 0; layer < num_layers_; ++layer)
    report.grad_norm_per_layer.push_back(std::sqrt(squares[layer]));
  report.max_score_per_layer.assign(squares + num_layers_, numbers + numbers_.numel());
  return report;
}

TrainStep::TrainStep(model::Encoder& encoder, optim::AdamW& optimizer, const TrainConfig& config,
                     dist::Communicator* communicator, const dist::Shards* shards)
    : encoder_(encoder),
      optimizer_(optimizer),
      config_(config),
      communicator_(communicator != nullptr && communicator->is_connected() ? communicator : nullptr),
      shards_(communicator_ != nullptr ? shards : nullptr),
      reducer_(communicator_ != nullptr
                   ? std::make_unique<GradientReducer>(
                         *communicator_, encoder, config.dist,
                         shards != nullptr ? dist::Summed::kShard : dist::Summed::kWhole)
                   : nullptr),
      poison_(at::zeros({}, encoder.parameters().values().options())) {
  SCRNA_CHECK(optimizer.is_whole() == (shards_ == nullptr), "an optimizer of {} without the others",
              optimizer.is_whole() ? "everything" : "a part");
}

StepReport TrainStep::operator()(const GlobalBatch& batch) {
  return launch(to_device(batch, encoder_.device())).wait();
}

PendingStep TrainStep::launch(const DeviceBatch& batch) {
  SCRNA_CHECK(batch.num_masked > 0, "step {}: a batch without masked tokens", batch.step);
  PhaseClock clock(encoder_.device());
  loss_ = at::zeros({}, poison_.options().dtype(at::kDouble));
  scores_.reset();
  encoder_.parameters().zero_gradients();
  for (std::size_t index = 0; index < batch.micro_batches.size(); ++index) accumulate(batch, index, clock);
  if (communicator_ != nullptr) reduce(clock);

  const at::NoGradGuard no_grad;
  if (shards_ == nullptr) squares_ = encoder_.parameters().squared_gradient_norm_per_layer();
  const double learning_rate = optim::learning_rate_at(config_.optim, batch.step, config_.train.steps);
  const at::Tensor outcome = optimizer_.step(learning_rate, squares_, loss_.to(at::kFloat).add_(poison_));
  if (shards_ != nullptr) spread_weights(clock);
  poison_.masked_fill_(outcome.select(0, kOutcomes - 1).eq(0), std::numeric_limits<double>::quiet_NaN());
  std::vector<at::Tensor> numbers{loss_.view({1}), outcome, squares_};
  if (scores_.defined()) numbers.push_back(scores_.to(at::kDouble));

  PendingStep pending({.step = batch.step + 1,
                       .epoch = batch.epoch,
                       .learning_rate = learning_rate,
                       .tokens = batch.num_tokens,
                       .masked_tokens = batch.num_masked,
                       .cells = batch.num_cells,
                       .micro_batches = batch.num_micro_batches},
                      std::move(clock));
  pending.numbers_ = fetch(at::cat(numbers));
  pending.num_layers_ = squares_.numel();
  pending.clock_.end(&PhaseSeconds::optimizer);
  return pending;
}

void TrainStep::reduce(PhaseClock& clock) {
  reducer_->finish();
  const at::NoGradGuard no_grad;
  if (shards_ != nullptr) {
    // Every rank adds what it alone has summed, in one exchange with the loss.
    const at::Tensor sums = at::cat(
        {loss_.view({1}), encoder_.parameters().squared_gradient_norm_per_layer(shards_->counted())});
    communicator_->all_reduce(sums).wait();
    loss_ = sums[0];
    squares_ = sums.narrow(0, 1, sums.numel() - 1).clone();
  } else {
    communicator_->all_reduce(loss_).wait();
  }
  if (scores_.defined()) {
    // The larger of a number and NaN is either; infinity stays, and is as little a number in the metrics.
    scores_ = at::nan_to_num(scores_, std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::infinity());
    communicator_->all_reduce(scores_, dist::Reduction::kMax).wait();
  }
  clock.end(&PhaseSeconds::reduce);
}

// Everybody gets everybody's weights, in fp32: also a step that was not applied does, and finds what it had.
void TrainStep::spread_weights(PhaseClock& clock) {
  clock.end(&PhaseSeconds::optimizer);
  shards_->spread(encoder_.parameters().values());
  encoder_.parameters().refresh_compute_values();
  clock.end(&PhaseSeconds::reduce);
}

void TrainStep::accumulate(const DeviceBatch& batch, std::size_t index, PhaseClock& clock) {
  model::ForwardContext context{.seed = config_.train.seed,
                                .step = batch.step,
                                .micro_batch = static_cast<int64_t>(index),
                                .training = true,
                                .recompute = config_.train.recompute,
                                .probe_queries = config_.train.probe_queries};
  const double scale = 1.0 / static_cast<double>(batch.num_masked);
  model::TrainingPass pass = encoder_.forward_for_training(batch.micro_batches[index], scale, context);
  {
    const at::NoGradGuard no_grad;
    loss_.add_(pass.loss_sum(), scale);
    if (!context.max_scores.empty()) {
      const at::Tensor scores = at::stack(context.max_scores);
      scores_ = scores_.defined() ? at::maximum(scores_, scores) : scores;  // a NaN is kept
    }
  }
  clock.end(&PhaseSeconds::forward);
  if (reducer_ && index + 1 == batch.micro_batches.size()) reducer_->begin();
  pass.backward();
  clock.end(&PhaseSeconds::backward);
}

}  // namespace scrna::train
