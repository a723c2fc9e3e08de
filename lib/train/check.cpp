#include "lib/train/check.h"

#include <algorithm>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/data/loader.h"
#include "lib/train/agreement.h"
#include "lib/train/divergence.h"
#include "lib/train/memory_advice.h"
#include "lib/train/prepared_run.h"
#include "lib/train/run_directory.h"
#include "lib/train/run_files.h"
#include "lib/train/start.h"
#include "lib/train/step.h"

namespace scrna::train {
namespace {

// The plan for the micro-batch of the step that needs most, and what it took.
CheckReport::Measured measured_step(const TrainConfig& config, const PreparedRun& run, const GlobalBatch& batch) {
  const PackedMicroBatch& largest = *std::ranges::max_element(batch.micro_batches, {}, &PackedMicroBatch::num_tokens);
  MemoryProblem problem = memory_problem_of(config, run);
  problem.tokens = largest.num_tokens();
  problem.masked_tokens = largest.num_masked();
  problem.cells = largest.num_cells();
  const DeviceMemory memory = device_memory(run.device);
  return {.tokens = problem.tokens,
          .predicted_bytes = plan_memory(problem).total_bytes(),
          .peak_bytes = memory.peak_bytes,
          .total_bytes = memory.total_bytes};
}

CheckReport run_check(const TrainConfig& config, const std::optional<ResumePoint>& resume, at::Device device,
                      dist::Communicator& communicator) {
  require_same_configuration(communicator, config, resume);
  Start start;
  communicator.together([&] {
    if (!config.run.dir.empty() && !(resume && continues_in_place(config, *resume))) {
      RunDirectory::require_free(config.run.dir);
    }
    start = prepare_start(config, resume, device, communicator);
  });
  require_same_weights(communicator, *start.run.encoder, *start.run.optimizer, "before the first step");
  const RunState state = resume ? start.loaded->state : RunState();
  data::TrainLoader loader(*start.run.corpus, loader_options(config, state.step + state.data_offset, communicator,
                                                             start.run.corpus->vocabulary().size()));
  GlobalBatch batch;
  const SharedStep step = share_step(communicator, [&] {
    batch = loader.next();
    return to_device(batch, device);
  });
  const double begin_seconds = now_seconds();
  const StepReport report =
      TrainStep(*start.run.encoder, *start.run.optimizer, config, &communicator, start.run.shards.get())
          .launch(step.batch, state.step)
          .wait();
  const double seconds = now_seconds() - begin_seconds;
  if (!report.is_applied) {
    throw NumericError(
        "the first step has loss {} and gradient norm {}: training would end at once; lower optim.learning_rate, or train "
        "in fp32 (train.precision)",
        number_text(report.loss), number_text(report.grad_norm));
  }
  const MemoryProblem largest = memory_problem_of(config, start.run);
  CheckReport result{.parameters = start.run.encoder->parameters().num_elements(),
          .training_cells = start.run.corpus->num_training_cells(),
          .heldout_cells = start.run.corpus->num_heldout_cells(),
          .seconds_per_step = seconds,
          .loss = report.loss,
          .peak_memory_bytes = peak_resident_bytes(),
          .plan = plan_memory(largest),
          .plan_tokens = largest.tokens};
  if (!start.run.device.is_cpu()) result.measured = measured_step(config, start.run, batch);
  return result;
}

}  // namespace

CheckReport check(const TrainConfig& config, const std::optional<ResumePoint>& resume, at::Device device,
                  dist::Communicator& communicator) {
  CheckReport result;
  with_memory_advice(
      config, [&] { result = run_check(config, resume, device, communicator); }, communicator.num_ranks());
  return result;
}

CheckReport check(const TrainConfig& config, const std::optional<ResumePoint>& resume) {
  dist::Communicator alone;
  return check(config, resume, choose_device(config.train.device, {}), alone);
}

}  // namespace scrna::train
