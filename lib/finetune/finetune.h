// Fine-tuning from its command line's words to the folder it leaves: labels looked at first (cheap, where
// most mistakes are), then the model, the cells, and only then a folder. After every epoch that is the best
// so far, encoder, head and results are saved, so a run that is killed has lost the epochs after it and
// nothing else. It is not resumed but begun again: with the same seed it takes the same way.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lib/finetune/finetune_config.h"
#include "lib/finetune/result_files.h"

namespace scrna::finetune {

struct FinetuneRequest {
  std::filesystem::path checkpoint;      // as train::load_trained_model() takes it
  std::filesystem::path out;             // folder to make
  FinetuneConfig config;                 // not resolved
  std::vector<std::string> assignments;  // "train.device=cpu": train::config_for_use()
  std::string program;                   // its version, for the record
};

/// Trains and writes; shows progress and listens to signals. A stop signal after the first epoch: what it
/// returns is the best so far, with Ending::kSignal. Throws ConfigError when `out` exists; DataError for
/// labels, files and classes that cannot be used; CheckpointError for the model; Interrupted when a signal
/// arrives before the first epoch is done (nothing is left), NumericError, DeviceError.
FinetuneResult finetune(const FinetuneRequest& request);

}  // namespace scrna::finetune
