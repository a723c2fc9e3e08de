#include "lib/train/device_batch.h"

#include "lib/model/token_tensors.h"

namespace scrna::train {

DeviceBatch to_device(const GlobalBatch& batch, at::Device device) {
  DeviceBatch result{.step = batch.step,
                     .epoch = batch.epoch,
                     .num_cells = batch.num_cells,
                     .num_tokens = batch.num_tokens,
                     .num_masked = batch.num_masked,
                     .num_micro_batches = std::ssize(batch.micro_batches),
                     .micro_batches = {}};
  for (const PackedMicroBatch& micro_batch : batch.micro_batches) {
    result.micro_batches.push_back(model::to_device(micro_batch, device));
  }
  return result;
}

}  // namespace scrna::train
