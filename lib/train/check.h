// `train --check`: everything a run does up to and including its first step, in memory, and what the largest step of
// the run will need.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/dist/communicator.h"
#include "lib/train/memory_plan.h"
#include "lib/train/resume.h"
#include "lib/train/train_config.h"

namespace scrna::train {

struct CheckReport {
  int64_t parameters = 0;
  int64_t training_cells = 0;
  int64_t heldout_cells = 0;
  double seconds_per_step = 0;  // measured on the first step
  double loss = 0;
  int64_t peak_memory_bytes = 0;  // resident memory of the process
  // Of the largest forward pass that the configuration allows, on a GPU: this one, or any when the check ran on the CPU.
  MemoryPlan plan;
  int64_t plan_tokens = 0;  // of that forward pass
  /// Prediction and measurement of the step that was done, on a GPU only.
  struct Measured {
    int64_t tokens = 0;  // of its largest micro-batch
    int64_t predicted_bytes = 0;
    int64_t peak_bytes = 0;  // that tensors held
    int64_t total_bytes = 0;  // of the device
  };
  std::optional<Measured> measured;
};

/// Does everything up to and including one optimizer step, in memory; writes nothing. Throws what train() would.
CheckReport check(const TrainConfig& config, const std::optional<ResumePoint>& resume, at::Device device,
                  dist::Communicator& communicator);
CheckReport check(const TrainConfig& config, const std::optional<ResumePoint>& resume);

}  // namespace scrna::train
