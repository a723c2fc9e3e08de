// What a run begins with: everything prepared (prepared_run.h) and, when it goes on with an earlier one, that
// run's checkpoint checked against it and restored. Cheap comparisons come first: settings, then vocabulary,
// then cells.
#pragma once

#include <filesystem>
#include <optional>

#include "lib/checkpoint/checkpoint.h"
#include "lib/train/prepared_run.h"
#include "lib/train/resume.h"
#include "lib/train/run_state.h"
#include "lib/train/train_config.h"

namespace scrna::train {

struct LoadedCheckpoint {
  std::filesystem::path folder;
  checkpoint::Contents contents;
  RunState state;
};

struct Start {
  PreparedRun run;
  std::optional<LoadedCheckpoint> loaded;
};

/// Prepares the run and restores the checkpoint into it. Writes nothing. Throws what prepare() does;
/// ConfigError for settings that cannot change within a run, CheckpointError for a checkpoint that is damaged
/// or does not fit.
Start prepare_start(const TrainConfig& config, const std::optional<ResumePoint>& resume, at::Device device,
                    dist::Communicator& communicator);

/// Of a run that begins at its first step.
RunState first_state(const TrainConfig& config, const PreparedRun& run);

}  // namespace scrna::train
