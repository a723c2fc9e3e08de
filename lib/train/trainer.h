// A training run from its first step, or from a checkpoint, to its last: the loop around TrainStep that evaluates,
// saves, writes metrics and listens to signals. What the loop writes: lib/train/README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "lib/dist/communicator.h"
#include "lib/eval/heldout_loss.h"
#include "lib/train/meters.h"
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
  MeterReading meters;               // of this process's training steps
  int stop_signal = 0;               // not 0: a signal ended the run early, after its checkpoint
  std::optional<eval::HeldoutLoss> first_heldout;  // of this process
  std::optional<eval::HeldoutLoss> last_heldout;
};

/// Trains on `device` (choose_device) as one rank of `communicator`; every rank must call it with the same
/// configuration. The first rank writes the run directory, the others only read (the cells, and the
/// checkpoint when resuming). All return the same numbers, but for what is measured in their own process.
/// Throws ConfigError, DataError, CheckpointError, DeviceError (also when a rank is gone); NumericError when
/// training diverged (divergence.h) and train.on_divergence does not go on: the step's metrics line and its dump
/// are written; a step that is not finite or exploded has left the weights as they were.
TrainResult train(const TrainConfig& config, const std::optional<ResumePoint>& resume, at::Device device,
                  dist::Communicator& communicator);
/// In this process alone, on the device that train.device asks for.
TrainResult train(const TrainConfig& config, const std::optional<ResumePoint>& resume);

}  // namespace scrna::train
