#include "lib/train/step.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/stack.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/model/token_tensors.h"
#include "lib/optim/schedule.h"

namespace scrna::train {

TrainStep::TrainStep(model::Encoder& encoder, optim::AdamW& optimizer, const TrainConfig& config,
                     at::ScalarType compute_type)
    : encoder_(encoder), optimizer_(optimizer), config_(config), compute_type_(compute_type) {}

StepReport TrainStep::operator()(const GlobalBatch& batch) {
  SCRNA_CHECK(batch.num_masked > 0, "step {}: a batch without masked tokens", batch.step);
  StepReport report{.step = batch.step + 1,
                    .epoch = batch.epoch,
                    .learning_rate = optim::learning_rate_at(config_.optim, batch.step, config_.train.steps),
                    .tokens = batch.num_tokens,
                    .masked_tokens = batch.num_masked,
                    .cells = batch.num_cells,
                    .micro_batches = std::ssize(batch.micro_batches)};
  encoder_.parameters().zero_gradients();
  for (std::size_t index = 0; index < batch.micro_batches.size(); ++index) accumulate(batch, index, report);
  const ScopedTimer timer(report.seconds.optimizer);
  measure_gradients(report);
  report.is_finite = std::isfinite(report.loss) && std::isfinite(report.grad_norm);
  if (report.is_finite) {
    optim::clip_by_global_norm(encoder_.parameters().gradients(), report.grad_norm, config_.optim.clip_norm);
    optimizer_.step(report.learning_rate);
  }
  return report;
}

void TrainStep::accumulate(const GlobalBatch& batch, std::size_t index, StepReport& report) {
  model::ForwardContext context{.seed = config_.train.seed,
                                .step = batch.step,
                                .micro_batch = static_cast<int64_t>(index),
                                .training = true,
                                .compute_type = compute_type_,
                                .probe_queries = config_.train.probe_queries};
  at::Tensor loss;
  {
    const ScopedTimer timer(report.seconds.forward);
    const model::TokenTensors input = model::to_device(batch.micro_batches[index], encoder_.device());
    loss = encoder_.masked_loss_sum(input, context).div(static_cast<double>(batch.num_masked));
    report.loss += loss.item<double>();
    if (!context.max_scores.empty()) {
      const at::Tensor scores = at::stack(context.max_scores).to(at::kCPU, at::kDouble);
      report.max_score_per_layer.resize(context.max_scores.size(), 0.0);
      for (std::size_t layer = 0; layer < context.max_scores.size(); ++layer) {
        const double score = scores.const_data_ptr<double>()[layer];
        double& largest = report.max_score_per_layer[layer];
        if (!(score <= largest)) largest = score;  // a NaN is kept
      }
    }
  }
  const ScopedTimer timer(report.seconds.backward);
  loss.backward();
}

void TrainStep::measure_gradients(StepReport& report) {
  const at::Tensor squares = encoder_.parameters().squared_gradient_norm_per_layer().to(at::kCPU);
  double sum = 0;
  for (int64_t layer = 0; layer < squares.numel(); ++layer) {
    const double square = squares.const_data_ptr<double>()[layer];
    report.grad_norm_per_layer.push_back(std::sqrt(square));
    sum += square;
  }
  report.grad_norm = std::sqrt(sum);
}

}  // namespace scrna::train
