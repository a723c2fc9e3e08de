#include "lib/bench/train_bench.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <ATen/Parallel.h>

#include "lib/bench/kernel_profile.h"
#include "lib/core/error.h"
#include "lib/model/encoder.h"
#include "lib/optim/adamw.h"
#include "lib/train/matrix_ceiling.h"
#include "lib/train/memory_advice.h"
#include "lib/train/memory_plan.h"
#include "lib/train/prepared_run.h"
#include "lib/train/step.h"

namespace scrna::bench {
namespace {

constexpr int64_t kWarmUpSteps = 3;

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

TrainProblem problem_of(const train::TrainConfig& config, const TrainBenchOptions& options) {
  return {.lengths = options.lengths,
          .cells = options.cells,
          .context = options.context,
          .vocabulary = options.vocabulary,
          .mask_fraction = config.masking.fraction,
          .tokens_per_micro_batch = config.data.tokens_per_micro_batch};
}

// What the step's largest pack will need of a GPU.
int64_t predicted_bytes(const train::TrainConfig& config, const model::Encoder& encoder,
                        const GlobalBatch& batch) {
  const PackedMicroBatch& largest =
      *std::ranges::max_element(batch.micro_batches, {}, &PackedMicroBatch::num_tokens);
  return train::plan_memory({.model = config.model,
                             .vocabulary_size = encoder.vocabulary_size(),
                             .buffer_elements = encoder.parameters().values().numel(),
                             .compute_type = encoder.compute_type(),
                             .recompute = config.train.recompute,
                             .tokens = largest.num_tokens(),
                             .masked_tokens = largest.num_masked(),
                             .cells = largest.num_cells(),
                             .is_monitored = config.monitor.every_steps > 0})
      .total_bytes();
}

// The model and its training on one batch that stays on the device.
class Training {
 public:
  Training(const train::TrainConfig& config, const TrainBenchOptions& options, at::Device device,
           at::ScalarType compute_type, const GlobalBatch& batch)
      : encoder_(config.model, options.vocabulary, options.context, config.train.seed, device, compute_type),
        optimizer_(encoder_.parameters(), config.optim),
        step_(encoder_, optimizer_, config),
        batch_(train::to_device(batch, device)) {}

  /// `count` steps, the next one launched before this one's report is waited for. Calls `done` with each
  /// report, its idle and total seconds from the end of the step before (of the first: from its begin).
  void run(int64_t count, const std::function<void(const train::StepReport&)>& done) {
    std::optional<train::PendingStep> before, in_flight;
    const auto finish = [&] {
      train::StepReport report = in_flight->wait();
      if (!report.is_applied) throw NumericError("step {}: the loss or a gradient is not finite", report.step);
      if (before) report.seconds.idle = in_flight->clock().seconds_after(before->clock());
      report.seconds.total = report.seconds.idle + in_flight->clock().span_seconds();
      done(report);
      before = std::exchange(in_flight, std::nullopt);
    };
    for (int64_t i = 0; i < count; ++i) {
      train::PendingStep next = step_.launch(batch_);
      ++batch_.step;
      if (in_flight) finish();
      in_flight = std::move(next);
    }
    finish();
  }
  [[nodiscard]] const model::Encoder& encoder() const { return encoder_; }

 private:
  model::Encoder encoder_;
  optim::AdamW optimizer_;
  train::TrainStep step_;
  train::DeviceBatch batch_;
};

void time_steps(Training& training, int64_t steps, TrainBenchResult& result) {
  training.run(kWarmUpSteps, [&](const train::StepReport& report) {
    if (result.first_loss == 0) result.first_loss = report.loss;
  });
  training.run(steps, [&](const train::StepReport& report) {
    result.step_milliseconds.push_back(report.seconds.total * 1e3);
    result.last_loss = report.loss;
  });
  result.median_milliseconds = median(result.step_milliseconds);
}

void profile_steps(Training& training, at::Device device, TrainBenchResult& result) {
  if (device.is_cpu()) {
    result.breakdown_problem = profile_device(device, [] {}).problem;
    return;
  }
  const DeviceProfile profile =
      profile_device(device, [&] { training.run(kProfiledSteps, [](const train::StepReport&) {}); });
  result.breakdown_problem = profile.problem;
  if (!profile.events.empty()) result.breakdown = break_down(profile.events, kProfiledSteps);
}

}  // namespace

TrainBenchResult bench_training(const train::TrainConfig& config, const TrainBenchOptions& options,
                                const std::function<void(std::string_view)>& tell) {
  SCRNA_CHECK(config.tokenizer.max_tokens == options.context, "context {} of a model for {}", options.context,
              config.tokenizer.max_tokens);
  if (options.device == Device::kCuda) require_gpu("bench train");
  const at::Device device = options.device == Device::kCuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (config.train.num_threads > 0) at::set_num_threads(static_cast<int>(config.train.num_threads));
  const at::ScalarType compute_type = train::choose_compute_type(config.train.precision, device);
  const GlobalBatch batch = make_batch(problem_of(config, options));

  TrainBenchResult result{.load = load_of(batch), .micro_batches = std::ssize(batch.micro_batches)};
  for (const PackedMicroBatch& pack : batch.micro_batches) {
    result.longest_cell_tokens = std::max<int64_t>(result.longest_cell_tokens, pack.max_cell_tokens);
  }
  result.compute_type = compute_type == at::kBFloat16 ? "bf16" : "fp32";
  result.flop = train::step_flop(config.model, options.vocabulary, result.load);
  train::with_memory_advice(config, [&] {
    tell("making the model");
    Training training(config, options, device, compute_type, batch);
    result.parameters = training.encoder().parameters().num_elements();
    result.predicted_memory_bytes = predicted_bytes(config, training.encoder(), batch);
    result.attention = training.encoder().describe_attention();
    tell("timing matrix products");
    result.ceiling_flop_per_second = train::measure_matrix_ceiling(device, compute_type);
    tell("timing steps");
    time_steps(training, options.steps, result);
    if (!device.is_cpu()) result.memory = train::device_memory(device);
    result.peak_resident_bytes = train::peak_resident_bytes();
    tell("recording kernels");
    profile_steps(training, device, result);
  });
  return result;
}

}  // namespace scrna::bench
