// From the packed micro-batch of the data path to tensors on the device: one buffer in host memory, one copy,
// and the tensors are views of it. Six small copies instead would each cost a launch and a pinned allocation.
#pragma once

#include <ATen/core/Tensor.h>

#include "lib/core/micro_batch.h"
#include "lib/model/context.h"

namespace scrna::model {

/// Copies; the micro-batch may be destroyed afterwards. All tensors but cu_seqlens_host are contiguous views
/// of one storage, each at a multiple of 512 bytes. Copies to a GPU are ordered on its current stream, the
/// host does not wait for them.
TokenTensors to_device(const PackedMicroBatch& micro_batch, at::Device device);

}  // namespace scrna::model
