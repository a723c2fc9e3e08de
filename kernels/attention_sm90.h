// What attention_cuda.cu knows of the Hopper kernels: one launcher per direction, templates inside, arguments
// checked before.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

size_t forward_sm90_workspace_bytes(const AttentionShape& shape);
cudaError_t forward_sm90(const AttentionForward& call, void* workspace, cudaStream_t stream);

size_t backward_sm90_workspace_bytes(const AttentionShape& shape);
cudaError_t backward_sm90(const AttentionBackward& call, void* workspace, cudaStream_t stream);

}  // namespace scrna::kernels
