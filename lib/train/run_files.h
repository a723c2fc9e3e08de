// The files with which a run begins, or goes on, in its directory (run_directory.h): settings, facts, vocabulary, log.
// For the first rank.
#pragma once

#include <cstdint>

#include "lib/train/prepared_run.h"
#include "lib/train/resume.h"
#include "lib/train/run_directory.h"
#include "lib/train/start.h"
#include "lib/train/train_config.h"

namespace scrna::train {

/// Makes the directory of a new run, with its files, and opens its log. When a file cannot be written the folder goes
/// again. Throws ConfigError and what writing a file does.
RunDirectory begin_directory(const TrainConfig& config, const PreparedRun& run, int64_t num_ranks);

/// The directory of a run that goes on there: its log is opened, metrics beyond the checkpoint are set aside, a changed
/// configuration is kept under the step up to which it held.
RunDirectory continue_in(RunDirectory directory, const TrainConfig& config, const LoadedCheckpoint& loaded);

/// Whether the resumed run continues in its own folder; otherwise it branches off into a new one.
bool continues_in_place(const TrainConfig& config, const ResumePoint& resume);

}  // namespace scrna::train
