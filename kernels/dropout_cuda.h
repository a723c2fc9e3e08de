// The CUDA form of kernels/dropout.h: the same mask, bit for bit.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/dropout.h"

namespace scrna::kernels {

/// fp32, bf16 and fp16; pointers are device memory. Asynchronous on `stream`; no allocation, no
/// synchronisation.
cudaError_t dropout_cuda(const Dropout& call, cudaStream_t stream);

}  // namespace scrna::kernels
