// A training run from its first step, or from a checkpoint, to its last: the loop around TrainStep that evaluates,
// saves, writes metrics and listens to signals. What the loop writes: lib/train/README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "lib/eval/heldout_loss.h"
#include "lib/train/resume.h"
#include "lib/train/train_config.h"

namespace scrna::train {

struct TrainResult {
  std::filesystem::path run_directory;
  std::filesystem::path checkpoint;  // the newest
  int64_t steps = 0;                 // done, with those before a resume
  int64_t cells = 0;
  int64_t tokens = 0;
  double seconds = 0;                // of training, without preparation and evaluation
  int stop_signal = 0;               // not 0: a signal ended the run early, after its checkpoint
  std::optional<eval::HeldoutLoss> first_heldout;  // of this process
  std::optional<eval::HeldoutLoss> last_heldout;
};

/// Throws ConfigError, DataError, CheckpointError, DeviceError; NumericError when a step's loss or gradients are not
/// finite (its metrics line is written, the weights are left as they were).
TrainResult train(const TrainConfig& config, const std::optional<ResumePoint>& resume);

struct CheckReport {
  int64_t parameters = 0;
  int64_t training_cells = 0;
  int64_t heldout_cells = 0;
  double seconds_per_step = 0;  // measured on the first step
  double loss = 0;
  int64_t peak_memory_bytes = 0;  // resident memory of the process
};

/// Does everything up to and including one optimizer step, in memory; writes nothing. Throws what train() would.
CheckReport check(const TrainConfig& config, const std::optional<ResumePoint>& resume);

}  // namespace scrna::train
