// The cells of one optimizer step on the device that trains on them: what TrainStep takes, whoever made it
// (to_device below, or a feeder that copies ahead on a stream of its own).
#pragma once

#include <cstdint>
#include <vector>

#include <c10/core/Device.h>

#include "lib/core/micro_batch.h"
#include "lib/model/context.h"

namespace scrna::train {

struct DeviceBatch {
  int64_t step = 0;       // optimizer step (0-based) these cells belong to
  int64_t epoch = 0;      // 0-based, of the first cell
  int64_t num_cells = 0;  // of all micro-batches, as the next two
  int64_t num_tokens = 0;
  int64_t num_masked = 0;         // the loss is a mean over this many tokens
  int64_t num_micro_batches = 0;  // of all ranks, where there are several (as the counts above)
  std::vector<model::TokenTensors> micro_batches;  // readable by the device's current stream
};

/// Copies; the batch may be destroyed afterwards. To a GPU the copies are ordered on its current stream and
/// do not wait.
DeviceBatch to_device(const GlobalBatch& batch, at::Device device);

}  // namespace scrna::train
