// Does a step again that diverged, exactly: from the newest checkpoint before it, or from the run's beginning, the steps
// in between are done in memory as the run did them, and the step's cells and numbers are compared with its dump bit for
// bit. Nothing is written. Exact on the CPU, and on a GPU with model.attention_deterministic; a run of several processes
// is done by one, whose sums round differently.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/train/step.h"
#include "lib/train/step_dump.h"

namespace scrna::train {

struct ReplayReport {
  StepDump dump;
  StepReport step;                 // as it came out now, with everything that is monitored and the exact scores
  int64_t first_step = 0;          // optimizer steps done at the checkpoint that it began from; 0: the beginning
  std::filesystem::path checkpoint;  // empty: the beginning
  bool is_exact_expected = true;   // false: another number of processes, device or type, or sums of no fixed order
  std::string why_not_exact;
  std::vector<std::string> differences;  // "loss: 3.5 then, 3.25 now"; empty: the same bits
};

/// dump_file: divergence/step-NNNNNNNN.json in its run directory. overrides: settings over those of the run, for example
/// train.device=cpu. Throws DataError for a file that is no dump or cells that are no longer there, ConfigError when the
/// file is in no run directory, CheckpointError when no checkpoint from which the step can be reached is left.
ReplayReport replay(const std::filesystem::path& dump_file, const std::vector<std::string>& overrides);

}  // namespace scrna::train
