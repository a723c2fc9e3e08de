// From the packed micro-batch of the data path to tensors on the device.
#pragma once

#include <ATen/core/Tensor.h>

#include "lib/core/micro_batch.h"
#include "lib/model/context.h"

namespace scrna::model {

/// Copies; the micro-batch may be destroyed afterwards. Copies to a GPU are ordered on its current stream,
/// the host does not wait for them.
TokenTensors to_device(const PackedMicroBatch& micro_batch, at::Device device);

}  // namespace scrna::model
