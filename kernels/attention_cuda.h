// Sigmoid attention on CUDA: kernels/attention.h launched on a stream. Asynchronous; no allocation, no
// synchronisation, so it can be captured in a graph; scratch memory comes from the caller and belongs to one
// call at a time.
//
// Sigmoid attention in bf16 and fp16 with everything of the interface (packed and padded, strided views,
// other key lengths, all biases, zero-length cells), in two forms:
//
//   Hopper     compute capability 9.0, head widths 64 and 128 attention_{forward,backward}_sm90.cu portable
//   compute capability 8.0 and later, 32, 64, 96 and 128       attention_{forward,backward}_sm80.cu
//
// The functions below look at the current device; set it before the workspace is measured, not only before
// the launch.
#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

/// Which kernels serve: the Hopper ones where they can and the caller does not ask for the portable ones.
CudaPath attention_cuda_path(int compute_capability, int64_t head_width,
                             CudaPath wanted = CudaPath::kFastest);

/// Why no kernel here computes this kind of call on a device of this compute capability (9.0: 90); null if
/// one does.
const char* attention_cuda_unsupported(int compute_capability, AttentionKind kind, ElementType type,
                                       int64_t head_width);

/// Whether the kernels can read or write this view in place: base and strides in multiples of 16 bytes.
bool attention_cuda_view_possible(const TokenView& view, int64_t num_tokens, int64_t num_heads);

/// Scratch memory of a call, in device memory aligned to 256 bytes. Contents need no initialisation.
size_t attention_forward_workspace_bytes(const AttentionShape& shape);
size_t attention_backward_workspace_bytes(const AttentionShape& shape);

/// Writes call.o. cudaErrorInvalidValue: a call that the functions above refuse.
cudaError_t attention_forward_cuda(const AttentionForward& call, void* workspace, cudaStream_t stream);
/// Writes call.d_q, d_k, d_v and, where given, d_cell_bias. With call.deterministic the sums over key tiles
/// have one order, and results are bitwise equal from run to run; d_k, d_v and d_cell_bias always are.
cudaError_t attention_backward_cuda(const AttentionBackward& call, void* workspace, cudaStream_t stream);

}  // namespace scrna::kernels
