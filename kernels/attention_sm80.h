// What attention_cuda.cpp knows of the portable kernels (mma.sync, compute capability 8.0 and later): one
// launcher per direction, templates inside, arguments checked before.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

size_t forward_sm80_workspace_bytes(const AttentionShape& shape);
cudaError_t forward_sm80(const AttentionForward& call, void* workspace, cudaStream_t stream);

size_t backward_sm80_workspace_bytes(const AttentionShape& shape);
cudaError_t backward_sm80(const AttentionBackward& call, void* workspace, cudaStream_t stream);

}  // namespace scrna::kernels
