// Going on with an earlier run: where its checkpoint is, and which settings may differ from the ones it began with.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "lib/train/train_config.h"

namespace scrna::train {

struct ResumePoint {
  std::filesystem::path run_directory;
  std::filesystem::path checkpoint;  // one whose manifest verifies
};

/// Where a run that may have been begun before goes on (--resume auto): at the newest whole checkpoint in
/// run_dir, or nowhere, at its first step. A run directory without any checkpoint, which a run that died
/// early leaves behind, is renamed to make room. Throws ConfigError for an empty run_dir or a folder that is
/// no run directory.
std::optional<ResumePoint> resume_or_begin(const std::filesystem::path& run_dir);

/// `argument` of --resume: "latest" (the newest whole checkpoint of run_dir), a run directory (its newest), or one
/// checkpoint folder. Throws ConfigError when there is none, CheckpointError when none is whole.
ResumePoint find_resume_point(const std::string& argument, const std::filesystem::path& run_dir);

/// Compares the settings with those of the run. Throws ConfigError for a setting that the position in the data, the
/// masks or the shape of the model depend on; logs every other difference (a warning for what bends the curve).
void require_compatible(const TrainConfig& before, const TrainConfig& now, const std::filesystem::path& run_directory);

}  // namespace scrna::train
