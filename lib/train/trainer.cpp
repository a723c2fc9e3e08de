#include "lib/train/trainer.h"

#include <algorithm>
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
#include "lib/train/divergence.h"
#include "lib/train/feeder.h"
#include "lib/train/matrix_ceiling.h"
#include "lib/train/memory_advice.h"
#include "lib/train/metrics.h"
#include "lib/train/prepared_run.h"
#include "lib/train/recovery.h"
#include "lib/train/run_directory.h"
#include "lib/train/run_files.h"
#include "lib/train/run_state.h"
#include "lib/train/start.h"
#include "lib/train/step.h"
#include "lib/train/step_dump.h"
#include "lib/train/tensorboard.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;

// Network file systems remember for up to a minute that a folder was not there.
constexpr double kSharedSeconds = 90;

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
        watch_(config.monitor, state_.watch),
        config_yaml_(config::dump(config)),
        train_step_(*run.encoder, *run.optimizer, config, &communicator, run.shards.get()),
        meters_(config.model, run.corpus->vocabulary().size(), run.device,
                matrix_ceiling(run, communicator.num_ranks())),
        last_saved_step_(saved.empty() ? -1 : state_.step) {
    result_.checkpoint = std::move(saved);
    if (communicator.is_first()) {
      metrics_.emplace(directory.metrics());
      if (config.monitor.tensorboard) events_.emplace(directory.tensorboard(), state_.step);
    }
    if (config.heldout.every_steps > 0) {
      heldout_loader_ = std::make_unique<data::HeldoutLoader>(
          *run.corpus, loader_options(config, 0, communicator, run.corpus->vocabulary().size()));
      evaluator_ = std::make_unique<eval::HeldoutEvaluator>(*heldout_loader_, run.corpus->token_frequencies(),
                                                            data::Vocabulary::kNumSpecial);
    }
  }

  TrainResult operator()() {
    open_feeder();
    ProgressBar bar("train", config_.train.steps, "steps", state_.step);
    evaluate_if_due();
    std::optional<Flight> in_flight;
    while (state_.step + (in_flight ? 1 : 0) < config_.train.steps) {
      std::optional<Flight> next;
      try {
        next = launch(in_flight.has_value());
      } catch (...) {
        // The step before was done all the same: its line is written, and if it diverged, that is what is said. Not
        // with other ranks, which may be what failed: its sums might then never end.
        if (in_flight && communicator_.num_ranks() == 1) finish(std::move(*in_flight), bar);
        throw;
      }
      if (!next) break;
      if (in_flight && !finish(std::move(*in_flight), bar)) {  // gone back: the step behind it was launched for nothing
        in_flight.reset();
        continue;
      }
      in_flight = std::move(next);
      if (run_.device.is_cuda() && !is_end_of_stretch(state_.step + 1)) continue;
      const bool goes_on = finish(std::move(*in_flight), bar);
      in_flight.reset();
      if (!goes_on) continue;
      evaluate_if_due();
      if (is_saving_due()) save();
    }
    if (in_flight && !finish(std::move(*in_flight), bar)) return (*this)();  // gone back from the last step
    bar.finish();
    if (last_saved_step_ != state_.step && (config_.checkpoint.save_last || stop_signal_ != 0)) save();
    if (metrics_) metrics_->sync();
    if (events_) events_->flush();
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
    int64_t data_step;       // 0-based position in the data
    double grad_norm_limit;  // above it the step is not applied
    std::vector<model::TokenTensors> cells;  // for the dump of a step that diverges
  };

  void open_feeder() {
    feeder_.reset();
    feeder_ = std::make_unique<Feeder>(
        *run_.corpus, loader_options(config_, state_.step + state_.data_offset, communicator_, run_.corpus->vocabulary().size()), run_.device);
  }

  // Nothing when a rank was asked to stop: all stop before the same step.
  std::optional<Flight> launch(bool is_behind_another) {
    const double waited = feeder_->waited_seconds();
    const SharedStep shared = share_step(communicator_, [&] { return feeder_->next(); });
    const double data_wait = feeder_->waited_seconds() - waited;
    stop_signal_ = shared.stop_signal;
    if (stop_signal_ != 0) return std::nullopt;
    const int64_t step = state_.step + (is_behind_another ? 1 : 0);
    const double limit = watch_.grad_norm_limit(step);
    return Flight{train_step_.launch(shared.batch, step, limit), is_behind_another, data_wait, shared.load,
                  shared.batch.step, limit, shared.batch.micro_batches};
  }

  // Waits for the step and writes what it did. Its time is that on the device from the end of the step before to its
  // own end. After a pause (evaluation, checkpoint) and on the CPU, which both find the device with nothing to do, it is
  // the wait for the cells and the step itself. False: the step diverged and the run went back to a checkpoint.
  bool finish(Flight&& flight, ProgressBar& bar) {
    StepReport report = flight.pending.wait();
    const Divergence divergence = watch_.observe(report);
    report.skipped_steps = watch_.state().skipped_steps;
    const PhaseClock& clock = flight.pending.clock();
    PhaseSeconds& seconds = report.seconds;
    seconds.data_wait = flight.data_wait_seconds;
    seconds.idle = flight.is_behind_another ? clock.seconds_after(before_->clock()) : seconds.data_wait;
    seconds.total = seconds.idle + clock.span_seconds();
    // Of the host's wait only as much is lost as the device was idle.
    const MeterReading reading = meters_.add(flight.load, seconds.total, std::min(seconds.idle, seconds.data_wait));
    write_line(step_line(report, run_.encoder->parameters().layer_names(), reading),
               report.monitor.has_value() || config_.monitor.every_steps == 0);
    if (divergence != Divergence::kNone && !go_on_after(divergence, report, flight)) return false;
    state_.step = report.step;
    state_.epoch = report.epoch;
    state_.cells += report.cells;
    state_.tokens += report.tokens;
    state_.training_seconds += report.seconds.total;
    for (const model::TokenTensors& pack : flight.cells) {
      const auto* begin = pack.cu_seqlens_host.const_data_ptr<int32_t>();
      for (int64_t cell = 0; cell < pack.cell_ids.numel(); ++cell) state_.cells_by_length.add(begin[cell + 1] - begin[cell]);
    }
    const MeterReading recent = meters_.recent();
    bar.update(state_.step, fmt::format("loss {:.3f}  grad norm {:.3g}  {:.0f} cells/s{}", report.loss, report.grad_norm,
                                        recent.cells_per_second,
                                        recent.mfu ? fmt::format("  {:.0f} % MFU", 100 * *recent.mfu) : ""));
    before_ = std::move(flight.pending);
    return true;
  }

  void write_line(const std::string& line, bool by_layer) {
    if (metrics_) metrics_->append(line);
    if (!events_) return;
    events_->append_line(line, by_layer);
    if (by_layer) events_->flush();
  }

  // What train.on_divergence says; the step is written down first. True: skipped, the run goes on; false: it went back to
  // a checkpoint. Throws NumericError to stop.
  bool go_on_after(Divergence divergence, const StepReport& report, const Flight& flight) {
    const fs::path dump = write_dump_of(divergence, report, flight);
    const std::string what = fmt::format("step {}: loss {}, gradient norm {}: training has diverged: {} ({} describes the step)",
                                         report.step, number_text(report.loss), number_text(report.grad_norm),
                                         describe(divergence), dump.string());
    const bool is_skippable = config_.train.on_divergence == OnDivergence::kSkip && !report.is_applied;
    if (is_skippable && watch_.state().skipped_in_a_row < config_.train.max_recoveries) {
      log::warning("[train] {}; it is skipped", what);
      return true;
    }
    if (config_.train.on_divergence == OnDivergence::kRollback && state_.rollbacks < config_.train.max_recoveries) {
      roll_back(divergence, report, flight, what);
      return false;
    }
    throw_diverged(directory_, report, what);
  }

  void roll_back(Divergence divergence, const StepReport& report, const Flight& flight, const std::string& what) {
    const int64_t bad_steps = divergence == Divergence::kLossAboveStart ? config_.monitor.loss_above_start_steps : 1;
    int64_t step = 0;
    RunState state;
    communicator_.together([&] {
      step = checkpoint_to_return_to(directory_, report.step - bad_steps, what);
      state = return_to_checkpoint(directory_, step, flight.data_step + 1, *run_.encoder, *run_.optimizer);
    });
    state.rollbacks = state_.rollbacks + 1;
    log::warning("[rollback] {}; back to the checkpoint of step {}, on with the data behind step {}", what, step, report.step);
    communicator_.together([&] {
      if (!communicator_.is_first()) return;
      metrics_.reset();
      events_.reset();
      forget_later(directory_, step);
      metrics_.emplace(directory_.metrics());
      if (config_.monitor.tensorboard) events_.emplace(directory_.tensorboard(), step);
      metrics_->append(rollback_line(step, report.step, state.data_offset, describe(divergence)));
    });
    watch_.go_back_to(state.watch);
    state_ = std::move(state);
    last_saved_step_ = step;
    before_.reset();
    train_step_.forget_divergence();
    open_feeder();
  }

  // Every rank's cells, written by the first.
  fs::path write_dump_of(Divergence divergence, const StepReport& report, const Flight& flight) {
    StepDump dump = dump_of(report, divergence, config_, run_, state_);
    dump.data_step = flight.data_step;
    dump.grad_norm_limit = flight.grad_norm_limit;
    dump.num_ranks = communicator_.num_ranks();
    for (const std::string& text : communicator_.all_gather(cells_text(cells_of(flight.cells, communicator_.rank())))) {
      append_cells(text, dump.cells);
    }
    const fs::path file = directory_.divergence() / dump_name(report.step);
    communicator_.together([&] {
      if (!communicator_.is_first()) return;
      fs::create_directories(directory_.divergence());
      write_dump(file, dump);
      metrics_->sync();
    });
    return file;
  }

  // The last step counts as due, so that every run ends with an evaluation and a checkpoint.
  [[nodiscard]] bool is_due(int64_t every_steps, int64_t step) const {
    return every_steps > 0 && (step % every_steps == 0 || step == config_.train.steps);
  }

  [[nodiscard]] bool is_saving_due() const {
    const bool is_last = state_.step == config_.train.steps;
    return is_due(config_.checkpoint.every_steps, state_.step) && (!is_last || config_.checkpoint.save_last);
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
    write_line(heldout_line(state_.step, heldout, now_seconds() - start), false);
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
      state_.watch = watch_.state();
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
  RunState state_;  // its watch is brought up to date when it is saved
  DivergenceWatch watch_;
  std::string config_yaml_;
  std::optional<LineAppender> metrics_;      // of the first rank
  std::optional<TensorBoardWriter> events_;  // of the first rank
  std::unique_ptr<Feeder> feeder_;
  TrainStep train_step_;
  Meters meters_;
  std::unique_ptr<data::HeldoutLoader> heldout_loader_;
  std::unique_ptr<eval::HeldoutEvaluator> evaluator_;
  int64_t last_saved_step_;
  int stop_signal_ = 0;                // that all ranks know of
  std::optional<PendingStep> before_;  // the step finished last: its clock is where the next one's time begins
  TrainResult result_;
};

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
                        : in_place               ? continue_in(std::move(*directory), config, *start.loaded)
                                                 : begin_directory(config, start.run, communicator.num_ranks());
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

}  // namespace scrna::train
