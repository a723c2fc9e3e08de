// run.json: what a run is besides its settings, for reports.
#pragma once

#include <cstdint>
#include <string>

#include "lib/train/prepared_run.h"
#include "lib/train/train_config.h"

namespace scrna::train {

/// A JSON object with the device and its name, types, attention, processes, and sizes of model and data.
std::string facts_of(const TrainConfig& config, const PreparedRun& run, int64_t num_ranks);

}  // namespace scrna::train
