// Runs the arms of a table as processes of their own (`scrna-train train --resume auto`): several side by
// side, on their GPUs, each a run directory below one folder. What came of an arm is read from its run
// directory, so a table that was interrupted goes on where it was, arms that have ended are not run again,
// and an arm that crashes takes no other with it. An arm that was cut in the middle goes on at its checkpoint
// if it could save one, and else begins anew; what it had is moved aside (lib/train/resume.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/stress/claims.h"
#include "lib/stress/stress_plan.h"

namespace scrna::stress {

enum class ArmState { kWaiting, kFinished, kDiverged, kFailed, kInterrupted };

struct ArmResult {
  ArmState state = ArmState::kWaiting;
  std::string failure;  // last words of an arm that failed
};

struct RunnerOptions {
  std::filesystem::path program;  // scrna-train
  std::filesystem::path out;      // folder of all arms
  std::vector<int64_t> gpus;  // CUDA device numbers; empty: the processes choose (the CPU, or the first GPU)
  int64_t jobs_per_gpu = 1;   // arms side by side on each, or in all without gpus
  double seconds = 0;         // after so many no further arm begins; 0: no limit
};

/// The run directory of an arm.
std::filesystem::path folder_of(const RunnerOptions& options, const Arm& arm);
/// What an arm's run directory says of it.
ArmState state_of(const RunnerOptions& options, const Arm& arm);

/// Gives settings that came to be after the run was made their defaults, in the order of configs/README.md, so that
/// arms of several versions of the program compare.
void complete_settings(report::RunData& run);

/// All arms that have metrics, in the plan's order; read by as many threads as the machine has, since a
/// table's files are hundreds of megabytes. Throws DataError for the first that cannot be understood.
std::vector<ArmData> read_arms(const StressPlan& plan, const RunnerOptions& options);

/// Writes OUT/NAME.yaml for each arm, runs those that have not ended, its output in OUT/NAME.log. Logs each
/// start and end. Throws ConfigError for an arm that was begun with other settings, before anything is written. A stop signal of this process is passed on; the arms save, and the result says
/// kInterrupted. Arms that options.seconds left no time for stay kWaiting; those that run then go on to their
/// end. Throws DataError when files cannot be written, DeviceError when no process can be started.
std::vector<ArmResult> run_arms(const StressPlan& plan, const RunnerOptions& options);

}  // namespace scrna::stress
