#include "lib/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/train/agreement.h"
#include "lib/train/feeder.h"
#include "lib/train/matrix_ceiling.h"
#include "lib/train/memory_advice.h"
#include "lib/train/metrics.h"
#include "lib/train/prepared_run.h"
#include "lib/train/run_directory.h"
#include "lib/train/run_state.h"
#include "lib/train/start.h"
#include "lib/train/step.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;

// Network file systems remember for up to a minute that a folder was not there.
constexpr double kSharedSeconds = 90;

// For messages: the sign of a NaN says nothing.
std::string number_text(double value) { return std::isnan(value) ? "nan" : fmt::format("{:.4g}", value); }

// What MFU is counted against: all ranks' GPUs, taken to be alike. On the CPU it is not measured: a run there
// is not about speed.
std::optional<double> matrix_ceiling(const PreparedRun& run, int64_t num_ranks) {
  if (run.device.is_cpu()) return std::nullopt;
  const double flop_per_second = measure_matrix_ceiling(run.device, run.compute_type);
  log::info("[model] matrix products reach {:.0f} TFLOP/s here ({:.1f} s of them, the median of the second half); MFU is the "
            "model's part of that", flop_per_second * 1e-12, kMatrixCeilingSeconds);
  return flop_per_second * static_cast<double>(num_ranks);
}

// The running of one run; what train() put together stays valid for its lifetime.
class Trainer {
 public:
  /// saved: the checkpoint in this directory that `state` comes from, or empty. With several ranks all run
  /// this loop; the first alone writes.
  Trainer(const TrainConfig& config, dist::Communicator& communicator, PreparedRun& run,
          const RunDirectory& directory, RunState state, fs::path saved)
      : config_(config),
        communicator_(communicator),
        run_(run),
        directory_(directory),
        state_(std::move(state)),
        config_yaml_(config::dump(config)),
        train_step_(*run.encoder, *run.optimizer, config, &communicator, run.shards.get()),
        meters_(config.model, run.corpus->vocabulary().size(), run.device,
                matrix_ceiling(run, communicator.num_ranks())),
        last_saved_step_(saved.empty() ? -1 : state_.step) {
    result_.checkpoint = std::move(saved);
    if (communicator.is_first()) metrics_.emplace(directory.metrics());
    if (config.heldout.every_steps > 0) {
      heldout_loader_ = std::make_unique<data::HeldoutLoader>(
          *run.corpus, loader_options(config, 0, communicator, run.corpus->vocabulary().size()));
      evaluator_ = std::make_unique<eval::HeldoutEvaluator>(*heldout_loader_, run.corpus->token_frequencies(),
                                                            data::Vocabulary::kNumSpecial);
    }
  }

  TrainResult operator()() {
    Feeder feeder(*run_.corpus,
                  loader_options(config_, state_.step, communicator_, run_.corpus->vocabulary().size()),
                  run_.device);
    ProgressBar bar("train", config_.train.steps, "steps", state_.step);
    evaluate_if_due();
    std::optional<Flight> in_flight;
    while (state_.step + (in_flight ? 1 : 0) < config_.train.steps) {
      std::optional<Flight> next;
      try {
        next = launch(feeder, in_flight.has_value());
      } catch (...) {
        // The step before was done all the same: its line is written, and if it diverged, that is what is said. Not
        // with other ranks, which may be what failed: its sums might then never end.
        if (in_flight && communicator_.num_ranks() == 1) finish(std::move(*in_flight), bar);
        throw;
      }
      if (!next) break;
      if (in_flight) finish(std::move(*in_flight), bar);
      in_flight = std::move(next);
      if (run_.device.is_cuda() && !is_end_of_stretch(state_.step + 1)) continue;
      finish(std::move(*in_flight), bar);
      in_flight.reset();
      evaluate_if_due();
      if (is_due(config_.checkpoint.every_steps, state_.step)) save();
    }
    if (in_flight) finish(std::move(*in_flight), bar);
    bar.finish();
    if (last_saved_step_ != state_.step) save();
    if (metrics_) metrics_->sync();
    result_.run_directory = directory_.path();
    result_.steps = state_.step;
    result_.cells = state_.cells;
    result_.tokens = state_.tokens;
    result_.seconds = state_.training_seconds;
    result_.meters = meters_.total();
    result_.stop_signal = state_.step < config_.train.steps ? stop_signal_ : 0;
    return std::move(result_);
  }

 private:
  // A step on its way. On a GPU one is under way while the next is launched, so that the device never waits for the
  // host; what looks at the weights (evaluation, checkpoint) comes after the last of them is finished.
  struct Flight {
    PendingStep pending;
    bool is_behind_another;  // enqueued while the step before was under way
    double data_wait_seconds;
    StepLoad load;
    at::Tensor first_cells;  // [B] ids of the first micro-batch, for the message when it fails
  };

  // Nothing when a rank was asked to stop: all stop before the same step.
  std::optional<Flight> launch(Feeder& feeder, bool is_behind_another) {
    const double waited = feeder.waited_seconds();
    const SharedStep step = share_step(communicator_, [&] { return feeder.next(); });
    const double data_wait = feeder.waited_seconds() - waited;
    stop_signal_ = step.stop_signal;
    if (stop_signal_ != 0) return std::nullopt;
    return Flight{train_step_.launch(step.batch), is_behind_another, data_wait, step.load,
                  step.batch.micro_batches.front().cell_ids};
  }

  // Waits for the step and writes what it did. Its time is that on the device from the end of the step before to its
  // own end. After a pause (evaluation, checkpoint) and on the CPU, which both find the device with nothing to do, it is
  // the wait for the cells and the step itself.
  void finish(Flight&& flight, ProgressBar& bar) {
    StepReport report = flight.pending.wait();
    const PhaseClock& clock = flight.pending.clock();
    PhaseSeconds& seconds = report.seconds;
    seconds.data_wait = flight.data_wait_seconds;
    seconds.idle = flight.is_behind_another ? clock.seconds_after(before_->clock()) : seconds.data_wait;
    seconds.total = seconds.idle + clock.span_seconds();
    // Of the host's wait only as much is lost as the device was idle.
    const MeterReading reading = meters_.add(flight.load, seconds.total, std::min(seconds.idle, seconds.data_wait));
    if (metrics_) metrics_->append(step_line(report, run_.encoder->parameters().layer_names(), reading));
    if (!report.is_finite) throw_not_finite(report, flight);
    state_.step = report.step;
    state_.epoch = report.epoch;
    state_.cells += report.cells;
    state_.tokens += report.tokens;
    state_.training_seconds += report.seconds.total;
    const MeterReading recent = meters_.recent();
    bar.update(state_.step, fmt::format("loss {:.3f}  grad norm {:.3g}  {:.0f} cells/s{}", report.loss, report.grad_norm,
                                        recent.cells_per_second,
                                        recent.mfu ? fmt::format("  {:.0f} % MFU", 100 * *recent.mfu) : ""));
    before_ = std::move(flight.pending);
  }

  [[noreturn]] void throw_not_finite(const StepReport& report, const Flight& flight) const {
    const std::string last_good = fs::exists(directory_.checkpoints() / "latest")
                                      ? fmt::format("the last checkpoint is {}",
                                                    fs::canonical(directory_.checkpoints() / "latest").string())
                                      : "no checkpoint was saved before";
    throw NumericError(
        "step {}: loss {}, gradient norm {}: training has diverged (the step's first cell has id {:016x}); the weights were "
        "left as they were after step {}, {}. Lower optim.learning_rate, set optim.clip_norm, or train in fp32",
        report.step, number_text(report.loss), number_text(report.grad_norm),
        static_cast<uint64_t>(flight.first_cells[0].item<int64_t>()), report.step - 1, last_good);
  }

  // The last step counts as due, so that every run ends with an evaluation and a checkpoint.
  [[nodiscard]] bool is_due(int64_t every_steps, int64_t step) const {
    return every_steps > 0 && (step % every_steps == 0 || step == config_.train.steps);
  }

  // Whether something looks at the weights after this step.
  [[nodiscard]] bool is_end_of_stretch(int64_t step) const {
    return is_due(config_.heldout.every_steps, step) || is_due(config_.checkpoint.every_steps, step);
  }

  void evaluate_if_due() {
    if (!evaluator_ || !is_due(config_.heldout.every_steps, state_.step) || state_.last_heldout_step == state_.step) return;
    const double start = now_seconds();
    eval::HeldoutLoss heldout;
    if (!evaluator_->evaluate(
            *run_.encoder, [] { return stop_signal() != 0; }, heldout, &communicator_))
      return;
    state_.last_heldout_step = state_.step;
    if (metrics_) metrics_->append(heldout_line(state_.step, heldout, now_seconds() - start));
    log::info("[heldout] step {}: loss {:.4f} nats per masked token on {} cells (gene frequencies {:.4f}, uniform {:.4f})",
              state_.step, heldout.loss, grouped(heldout.cells), heldout.gene_frequency_loss, heldout.uniform_loss);
    if (!result_.first_heldout) result_.first_heldout = heldout;
    result_.last_heldout = heldout;
  }

  void save() {
    require_same_weights(communicator_, *run_.encoder, *run_.optimizer,
                         fmt::format("after step {}", state_.step));
    result_.checkpoint = directory_.checkpoints() / checkpoint::folder_name(state_.step);
    const Moments moments = collect_moments(*run_.optimizer, run_.shards.get());
    communicator_.together([&] {
      if (!communicator_.is_first()) return;
      metrics_->sync();
      result_.checkpoint = checkpoint::save(directory_.checkpoints(), state_.step,
                                            snapshot(*run_.encoder, moments, state_, config_yaml_),
                                            config_.checkpoint.keep_last);
    });
    last_saved_step_ = state_.step;
    log::debug("[checkpoint] {}", result_.checkpoint.string());
  }

  const TrainConfig& config_;
  dist::Communicator& communicator_;
  PreparedRun& run_;
  const RunDirectory& directory_;
  RunState state_;
  std::string config_yaml_;
  std::optional<LineAppender> metrics_;  // of the first rank
  TrainStep train_step_;
  Meters meters_;
  std::unique_ptr<data::HeldoutLoader> heldout_loader_;
  std::unique_ptr<eval::HeldoutEvaluator> evaluator_;
  int64_t last_saved_step_;
  int stop_signal_ = 0;                // that all ranks know of
  std::optional<PendingStep> before_;  // the step finished last: its clock is where the next one's time begins
  TrainResult result_;
};

// Files of a new run directory; when one cannot be written, the folder goes again.
RunDirectory begin(const TrainConfig& config, const PreparedRun& run) {
  RunDirectory directory = RunDirectory::create(config.run.dir);
  try {
    write_file_atomically(directory.config(), config::dump(config));
    run.corpus->vocabulary().save(directory.vocabulary());
    if (const auto& groups = run.corpus->sampling_groups(); !groups.empty())
      write_file_atomically(directory.path() / "sampling.tsv", data::sampling_table(groups));
    log::open_file(directory.log());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(directory.path(), ignored);
    throw;
  }
  return directory;
}

// The directory of a run that goes on: metrics beyond the checkpoint are set aside, a changed configuration is kept
// under the step up to which it held.
RunDirectory go_on(const TrainConfig& config, const LoadedCheckpoint& loaded, RunDirectory directory) {
  log::open_file(directory.log());
  const int64_t num_moved = rewind_metrics(directory.metrics(), loaded.state.step);
  if (num_moved > 0) {
    log::info("[resume] {} lines of metrics.jsonl beyond step {} moved to metrics.superseded.jsonl", num_moved,
              loaded.state.step);
  }
  const std::string yaml = config::dump(config);
  const std::string before = read_file(directory.config());
  if (yaml != before) {
    write_file_atomically(directory.path() / fmt::format("config.until-{}.yaml", checkpoint::folder_name(loaded.state.step)),
                          before);
    write_file_atomically(directory.config(), yaml);
  }
  return directory;
}

// Whether the resumed run continues in its own folder; otherwise it branches off into a new one.
bool continues_in_place(const TrainConfig& config, const ResumePoint& resume) {
  return fs::weakly_canonical(config.run.dir) == fs::weakly_canonical(resume.run_directory);
}

// Steps in which a rank may fail for a reason of its own (a file it cannot read) are taken together, so that
// every rank knows at once and says why.
TrainResult run_training(const TrainConfig& config, const std::optional<ResumePoint>& resume,
                         at::Device device, dist::Communicator& communicator) {
  if (communicator.is_connected()) log::info("[dist] {}", communicator.description());
  require_same_configuration(communicator, config, resume);
  const bool in_place = resume && continues_in_place(config, *resume);
  std::optional<RunDirectory> directory;
  communicator.together([&] {
    if (!communicator.is_first()) return;
    if (!in_place) RunDirectory::require_free(config.run.dir);
    if (in_place) directory.emplace(RunDirectory::open(resume->run_directory));
  });
  Start start;
  communicator.together([&] { start = prepare_start(config, resume, device, communicator); });
  require_same_weights(communicator, *start.run.encoder, *start.run.optimizer, "before the first step");
  communicator.together([&] {
    RunDirectory made = !communicator.is_first() ? RunDirectory::unlocked(config.run.dir)
                        : in_place               ? go_on(config, *start.loaded, std::move(*directory))
                                                 : begin(config, start.run);
    directory.emplace(std::move(made));
  });
  communicator.together([&] {
    if (communicator.is_first()) return;
    RunDirectory::require_shared(config.run.dir, config::dump(config),
                                 std::min(kSharedSeconds, 0.5 * static_cast<double>(config.dist.timeout_seconds)));
  });
  RunState state = resume ? start.loaded->state : first_state(config, start.run);
  fs::path saved = in_place ? start.loaded->folder : fs::path();
  start.loaded.reset();  // the weights are in the model now
  log::info("[train] {} steps into {}", config.train.steps - state.step, directory->path().string());
  TrainResult result =
      Trainer(config, communicator, start.run, *directory, std::move(state), std::move(saved))();
  log::close_file();
  return result;
}

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
  data::TrainLoader loader(*start.run.corpus,
                           loader_options(config, resume ? start.loaded->state.step : 0, communicator,
                                          start.run.corpus->vocabulary().size()));
  GlobalBatch batch;
  const SharedStep step = share_step(communicator, [&] {
    batch = loader.next();
    return to_device(batch, device);
  });
  const double begin_seconds = now_seconds();
  const StepReport report =
      TrainStep(*start.run.encoder, *start.run.optimizer, config, &communicator, start.run.shards.get())
          .launch(step.batch)
          .wait();
  const double seconds = now_seconds() - begin_seconds;
  if (!report.is_finite) {
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

TrainResult train(const TrainConfig& config, const std::optional<ResumePoint>& resume, at::Device device,
                  dist::Communicator& communicator) {
  TrainResult result;
  with_memory_advice(
      config, [&] { result = run_training(config, resume, device, communicator); }, communicator.num_ranks());
  return result;
}

TrainResult train(const TrainConfig& config, const std::optional<ResumePoint>& resume) {
  dist::Communicator alone;
  return train(config, resume, choose_device(config.train.device, {}), alone);
}

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
