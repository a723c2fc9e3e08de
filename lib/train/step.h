// One optimizer step on the cells of a global batch:
//
//   zero the gradients; for each micro-batch: forward, sum of the masked tokens' cross-entropy divided by the
//   masked tokens of the whole global batch, backward; gradient norms; clip; AdamW.
//
// So the loss is the mean over all masked tokens of the global batch, however the cells were packed.
// With several ranks each takes its cells of the global batch; gradients and loss are summed over them, the
// gradients while the backward pass of the last micro-batch goes on. Norm, clipping and the decision to apply
// are then made on every rank from the same numbers, so the weights stay the same bits everywhere. With
// dist.shard_optimizer a rank gets the sums of its part alone, updates it, and the parts are exchanged.
//
// launch() only enqueues on a GPU: loss, norms, clipping and the decision to update stay there, and what the
// report says is copied to the host behind the step's back. So the next step can be launched while this one
// runs, and nothing in a step waits for the device. A step that diverges (loss or gradients not finite, or a
// gradient norm above the limit that it was launched with) changes nothing. With train.on_divergence stop and
// rollback neither does any step launched after it, since the host learns of it too late to hold them back; the
// trainer decides what follows.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/core/micro_batch.h"
#include "lib/dist/communicator.h"
#include "lib/dist/shards.h"
#include "lib/model/encoder.h"
#include "lib/optim/adamw.h"
#include "lib/train/device_batch.h"
#include "lib/train/gradient_reducer.h"
#include "lib/train/phase_clock.h"
#include "lib/train/train_config.h"

namespace scrna::train {

struct StepReport {
  int64_t step = 0;   // optimizer steps done, this one included: the first is 1
  int64_t epoch = 0;  // 0-based, of the first cell
  double loss = 0;    // nats per masked token
  double learning_rate = 0;
  double grad_norm = 0;                     // global L2 norm before clipping
  std::vector<double> grad_norm_per_layer;  // as ParameterSet::layer_names()
  std::vector<double> max_score_per_layer;  // [L] largest |score| of the sampled queries; empty without the probe
  int64_t tokens = 0;
  int64_t masked_tokens = 0;
  int64_t cells = 0;
  int64_t micro_batches = 0;
  PhaseSeconds seconds;    // data_wait, idle and total are the caller's
  bool is_applied = true;  // false: the weights were left as they are, because of this step or of one before
  int64_t skipped_steps = 0;              // of the run so far, this one included; the caller's
  std::optional<MonitorReading> monitor;  // of a monitored step
};

/// A step that was launched. Dropping it is fine: the step goes on.
class PendingStep {
 public:
  /// Waits until the step is done.
  [[nodiscard]] StepReport wait() const;
  /// Its first mark is before everything the step does, its last behind it.
  [[nodiscard]] const PhaseClock& clock() const { return clock_; }

 private:
  friend class TrainStep;
  PendingStep(StepReport known, PhaseClock clock) : known_(std::move(known)), clock_(std::move(clock)) {}

  StepReport known_;     // what the host knows beforehand
  PhaseClock clock_;     // its last mark is behind the copy of the numbers
  // fp64 on the host, pinned: loss, AdamW::step, squared gradients by layer; scores by block; and of a monitored
  // step squared weights and squared updates by layer, and the statistics of the blocks.
  at::Tensor numbers_;
  int64_t num_layers_ = 0;
  int64_t num_scores_ = 0;
  int64_t num_blocks_monitored_ = 0;
};

class TrainStep {
 public:
  /// All arguments must outlive this object. communicator: null or alone, a step of one process. shards: what
  /// the optimizer owns of gradient_buckets_of(encoder); null when it owns everything.
  TrainStep(model::Encoder& encoder, optim::AdamW& optimizer, const TrainConfig& config,
            dist::Communicator* communicator = nullptr, const dist::Shards* shards = nullptr);

  /// Enqueues the step; on the CPU it is done on return. The batch holds this rank's cells and the counts of
  /// all ranks (share_step). step: the optimizer step (0-based), which the learning rate depends on; masks, dropout and
  /// probes follow batch.step, the position in the data. grad_norm_limit: above it the step is not applied. Throws InternalError for an empty batch, c10::Error when LibTorch fails (out of
  /// memory), DeviceError when a rank is gone.
  [[nodiscard]] PendingStep launch(const DeviceBatch& batch, int64_t step,
                                   double grad_norm_limit = std::numeric_limits<double>::infinity());
  /// At its position in the data, as long as no data were left out.
  [[nodiscard]] PendingStep launch(const DeviceBatch& batch) { return launch(batch, batch.step); }
  /// Steps launched from now on are applied again: after the weights went back to a checkpoint.
  void forget_divergence();
  /// Copies the batch to the device, launches, waits. For one process.
  StepReport operator()(const GlobalBatch& batch);

 private:
  void reduce(PhaseClock& clock);
  void spread_weights(PhaseClock& clock);
  void accumulate(const DeviceBatch& batch, std::size_t index, bool is_monitored, PhaseClock& clock);

  model::Encoder& encoder_;
  optim::AdamW& optimizer_;
  const TrainConfig& config_;
  dist::Communicator* communicator_;          // null: one process
  const dist::Shards* shards_;                // null: this optimizer updates everything
  std::unique_ptr<GradientReducer> reducer_;  // null: one process
  at::Tensor poison_;  // 0-d fp32 on the device: 0, or NaN once a step was not applied
  at::Tensor loss_;    // 0-d fp64 on the device, of the step being launched
  at::Tensor squares_;  // [layers] fp64 on the device, of the step being launched: squared gradient norms
  at::Tensor scores_;  // [L] fp32 on the device, of the step being launched; undefined without the probe
  at::Tensor statistics_;  // [L, LayerStatistic::kCount] fp32 on the device, of a monitored step being launched
};

}  // namespace scrna::train
