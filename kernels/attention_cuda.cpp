// Chooses among the CUDA attention kernels and refuses what they cannot do.
#include "kernels/attention_cuda.h"

#include <cstdint>
#include <initializer_list>

#include "kernels/attention_sm80.h"
#include "kernels/attention_sm90.h"
#include "kernels/tensor_map.h"

namespace scrna::kernels {
namespace {

constexpr int kHopper = 90;
constexpr int kAmpere = 80;

/// Of the current device; 0 without one.
int compute_capability() {
  int device = 0;
  int major = 0;
  int minor = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
    return 0;
  return 10 * major + minor;
}

bool on_hopper_path(const AttentionShape& shape) {
  return attention_cuda_path(compute_capability(), shape.head_width, shape.cuda_path) == CudaPath::kFastest;
}

/// Token indices, tile counts and workspace entries are 32-bit in the kernels.
constexpr int64_t kMaxTokens = int64_t{1} << 30;

bool shape_possible(const AttentionShape& shape) {
  return attention_cuda_unsupported(compute_capability(), shape.kind, shape.element_type, shape.head_width) ==
             nullptr &&
         shape.query.total_tokens <= kMaxTokens && shape.key.total_tokens <= kMaxTokens &&
         (shape.query.total_tokens + shape.key.total_tokens + shape.num_cells) * shape.num_heads <
             INT32_MAX &&
         (shape.bias_kind != BiasKind::kPerCell || shape.cell_bias != nullptr);
}

}  // namespace

CudaPath attention_cuda_path(int compute_capability, int64_t head_width, CudaPath wanted) {
  const bool hopper = compute_capability == kHopper && (head_width == 64 || head_width == 128);
  return hopper ? wanted : CudaPath::kPortable;
}

const char* attention_cuda_unsupported(int compute_capability, AttentionKind kind, ElementType type,
                                       int64_t head_width) {
  if (compute_capability < kAmpere)
    return "the CUDA attention kernels of this program need compute capability 8.0 or later";
  if (kind != AttentionKind::kSigmoid) return "the CUDA attention kernels compute sigmoid attention only";
  if (type == ElementType::kFloat32) return "the CUDA attention kernels take bf16 and fp16, not fp32";
  if (head_width != 32 && head_width != 64 && head_width != 96 && head_width != 128)
    return "the CUDA attention kernels take head widths 32, 64, 96 and 128";
  return nullptr;
}

bool attention_cuda_view_possible(const TokenView& view, int64_t num_tokens, int64_t num_heads) {
  return tensor_map_possible(view, num_tokens, num_heads);
}

size_t attention_forward_workspace_bytes(const AttentionShape& shape) {
  return on_hopper_path(shape) ? forward_sm90_workspace_bytes(shape) : forward_sm80_workspace_bytes(shape);
}

size_t attention_backward_workspace_bytes(const AttentionShape& shape) {
  return on_hopper_path(shape) ? backward_sm90_workspace_bytes(shape) : backward_sm80_workspace_bytes(shape);
}

cudaError_t attention_forward_cuda(const AttentionForward& call, void* workspace, cudaStream_t stream) {
  const AttentionShape& shape = call.shape;
  if (!shape_possible(shape)) return cudaErrorInvalidValue;
  const auto possible = [&](const TokenView& view, const Ragged& ragged) {
    return tensor_map_possible(view, ragged.total_tokens, shape.num_heads);
  };
  if (!possible(call.q, shape.query) || !possible(call.k, shape.key) || !possible(call.v, shape.key) ||
      !possible(call.o, shape.query))
    return cudaErrorInvalidValue;
  if (shape.query.total_tokens == 0 || shape.num_heads == 0) return cudaSuccess;
  return on_hopper_path(shape) ? forward_sm90(call, workspace, stream)
                               : forward_sm80(call, workspace, stream);
}

cudaError_t attention_backward_cuda(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  const AttentionShape& shape = call.shape;
  if (!shape_possible(shape)) return cudaErrorInvalidValue;
  const auto possible = [&](const TokenView& view, const Ragged& ragged) {
    return tensor_map_possible(view, ragged.total_tokens, shape.num_heads);
  };
  for (const TokenView& view : {call.q, call.d_o, call.d_q})
    if (!possible(view, shape.query)) return cudaErrorInvalidValue;
  for (const TokenView& view : {call.k, call.v, call.d_k, call.d_v})
    if (!possible(view, shape.key)) return cudaErrorInvalidValue;
  const bool has_tokens = shape.query.total_tokens + shape.key.total_tokens > 0;
  if (shape.num_cells == 0 || (!has_tokens && call.d_cell_bias == nullptr)) return cudaSuccess;
  return on_hopper_path(shape) ? backward_sm90(call, workspace, stream)
                               : backward_sm80(call, workspace, stream);
}

}  // namespace scrna::kernels
