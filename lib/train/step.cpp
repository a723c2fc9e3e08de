#include "lib/train/step.h"

#include <algorithm>
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
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A copy on its way to the host.
at::Tensor fetch(const at::Tensor& numbers) {
  if (numbers.is_cpu()) return numbers;
  const at::Tensor host =
      at::empty(numbers.sizes(), at::TensorOptions(numbers.scalar_type()).pinned_memory(true));
  host.copy_(numbers, /*non_blocking=*/true);
  return host;
}

/// Takes the fetched numbers one group after another.
class Reader {
 public:
  explicit Reader(const double* next) : next_(next) {}
  std::vector<double> plain(int64_t count) {
    const double* begin = next_;
    next_ += count;
    return {begin, next_};
  }
  std::vector<double> roots(int64_t count) {
    std::vector<double> values = plain(count);
    for (double& value : values) value = std::sqrt(value);
    return values;
  }

 private:
  const double* next_;
};

}  // namespace

StepReport PendingStep::wait() const {
  clock_.wait();
  StepReport report = known_;
  clock_.add_to(report.seconds);
  const double* numbers = numbers_.const_data_ptr<double>();
  report.loss = numbers[0];
  report.grad_norm = numbers[1];
  report.is_applied = numbers[kOutcomes] == 1.0;
  Reader reader(numbers + 1 + kOutcomes);
  report.grad_norm_per_layer = reader.roots(num_layers_);
  report.max_score_per_layer = reader.plain(num_scores_);
  if (num_blocks_monitored_ == 0) return report;
  MonitorReading& monitor = report.monitor.emplace();
  const std::vector<double> before = reader.roots(num_layers_), updates = reader.roots(num_layers_);
  monitor.weight_norm = reader.roots(num_layers_);
  for (std::size_t layer = 0; layer < before.size(); ++layer) monitor.update_ratio.push_back(updates[layer] / before[layer]);
  monitor.blocks.resize(static_cast<std::size_t>(num_blocks_monitored_));
  for (auto& block : monitor.blocks) std::ranges::copy(reader.plain(std::ssize(block)), block.begin());
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

void TrainStep::forget_divergence() { poison_.zero_(); }

PendingStep TrainStep::launch(const DeviceBatch& batch, int64_t step, double grad_norm_limit) {
  SCRNA_CHECK(batch.num_masked > 0, "step {}: a batch without masked tokens", batch.step);
  const bool is_monitored = train::is_monitored(config_.monitor, step);
  PhaseClock clock(encoder_.device());
  loss_ = at::zeros({}, poison_.options().dtype(at::kDouble));
  scores_.reset();
  statistics_.reset();
  encoder_.parameters().zero_gradients();
  for (std::size_t index = 0; index < batch.micro_batches.size(); ++index) {
    accumulate(batch, index, is_monitored && index == 0, clock);
  }
  if (communicator_ != nullptr) reduce(clock);

  const at::NoGradGuard no_grad;
  ops::ParameterSet& parameters = encoder_.parameters();
  if (shards_ == nullptr) squares_ = parameters.squared_gradient_norm_per_layer();
  const double learning_rate = optim::learning_rate_at(config_.optim, step, config_.train.steps);
  const at::Tensor gate = loss_.to(at::kFloat).add_(poison_);
  if (std::isfinite(grad_norm_limit)) gate.masked_fill_(squares_.sum().gt(grad_norm_limit * grad_norm_limit), kNaN);
  const at::Tensor before = is_monitored ? parameters.values().clone() : at::Tensor();
  const at::Tensor outcome = optimizer_.step(learning_rate, squares_, gate);
  if (shards_ != nullptr) spread_weights(clock);
  if (config_.train.on_divergence != OnDivergence::kSkip) {
    poison_.masked_fill_(outcome.select(0, kOutcomes - 1).eq(0), kNaN);
  }
  std::vector<at::Tensor> numbers{loss_.view({1}), outcome, squares_};
  if (scores_.defined()) numbers.push_back(scores_.to(at::kDouble));
  if (is_monitored) {
    numbers.push_back(parameters.squared_norm_per_layer(before));
    numbers.push_back(parameters.squared_norm_per_layer(before.sub_(parameters.values())));
    numbers.push_back(parameters.squared_norm_per_layer(parameters.values()));
    numbers.push_back(statistics_.to(at::kDouble).flatten());
  }

  PendingStep pending({.step = step + 1,
                       .epoch = batch.epoch,
                       .learning_rate = learning_rate,
                       .tokens = batch.num_tokens,
                       .masked_tokens = batch.num_masked,
                       .cells = batch.num_cells,
                       .micro_batches = batch.num_micro_batches},
                      std::move(clock));
  pending.numbers_ = fetch(at::cat(numbers));
  pending.num_layers_ = squares_.numel();
  pending.num_scores_ = scores_.defined() ? scores_.numel() : 0;
  pending.num_blocks_monitored_ = is_monitored ? statistics_.size(0) : 0;
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

void TrainStep::accumulate(const DeviceBatch& batch, std::size_t index, bool is_monitored, PhaseClock& clock) {
  model::ForwardContext context{.seed = config_.train.seed,
                                .step = batch.step,
                                .micro_batch = static_cast<int64_t>(index),
                                .training = true,
                                .recompute = config_.train.recompute,
                                .probe_queries = config_.train.probe_queries,
                                .max_scores = {},
                                .statistics_queries = is_monitored ? config_.monitor.queries : 0,
                                .exact_scores = config_.monitor.exact_scores,
                                .layer_statistics = {}};
  const double scale = 1.0 / static_cast<double>(batch.num_masked);
  model::TrainingPass pass = encoder_.forward_for_training(batch.micro_batches[index], scale, context);
  {
    const at::NoGradGuard no_grad;
    loss_.add_(pass.loss_sum(), scale);
    if (!context.max_scores.empty()) {
      const at::Tensor scores = at::stack(context.max_scores);
      scores_ = scores_.defined() ? at::maximum(scores_, scores) : scores;  // a NaN is kept
    }
    if (is_monitored) statistics_ = at::stack(context.layer_statistics);
  }
  clock.end(&PhaseSeconds::forward);
  if (reducer_ && index + 1 == batch.micro_batches.size()) reducer_->begin();
  pass.backward();
  clock.end(&PhaseSeconds::backward);
}

}  // namespace scrna::train
