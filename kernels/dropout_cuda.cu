// Dropout on CUDA. One warp owns one token: it finds the token's cell once (binary search, the same address
// in all lanes), then each lane takes every 32nd group of eight features: one Philox call, one 16-byte load
// and store for bf16 (two for fp32). Bytes moved: T D (read + write). Widths that are not a multiple of 8, or
// misaligned rows, take scalar accesses.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/device/dropout_mask.h"
#include "kernels/dropout_cuda.h"

namespace scrna::kernels {
namespace {

constexpr int kWarpsPerBlock = 8;

__device__ float to_float(float x) { return x; }
__device__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ float to_float(__half x) { return __half2float(x); }
__device__ void from_float(float value, float& y) { y = value; }
__device__ void from_float(float value, __nv_bfloat16& y) { y = __float2bfloat16_rn(value); }
__device__ void from_float(float value, __half& y) { y = __float2half_rn(value); }

/// Eight elements that travel in 16-byte pieces.
template <class Element>
struct alignas(16) Group {
  Element element[kDropoutGroup];
};

template <class Element, bool kVector>
__global__ void __launch_bounds__(kWarpsPerBlock * 32) dropout_kernel(Dropout call) {
  const int64_t token = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / 32;
  if (token >= call.num_tokens) return;
  const int64_t cell = device::cell_of(call.cu_seqlens, call.num_cells, token);
  const uint64_t cell_id = call.cell_ids[cell];
  const auto position = static_cast<uint32_t>(token - call.cu_seqlens[cell]);
  const float scale = dropout_scale(call.threshold);
  const auto* x = static_cast<const Element*>(call.x) + token * call.width;
  auto* y = static_cast<Element*>(call.y) + token * call.width;
  for (int64_t first = int64_t{threadIdx.x % 32} * kDropoutGroup; first < call.width;
       first += 32 * kDropoutGroup) {
    const PhiloxWords words =
        dropout_words(call.key, cell_id, position, static_cast<uint32_t>(first / kDropoutGroup));
    const int64_t left = call.width - first;
    Group<Element> group;
    if constexpr (kVector) {
      group = *reinterpret_cast<const Group<Element>*>(x + first);
    } else {
#pragma unroll
      for (int i = 0; i < kDropoutGroup; ++i)
        if (i < left) group.element[i] = x[first + i];
    }
#pragma unroll
    for (int i = 0; i < kDropoutGroup; ++i) {
      const float kept = to_float(group.element[i]) * scale;
      from_float(dropout_keeps(words, i, call.threshold) ? kept : 0.0F, group.element[i]);
    }
    if constexpr (kVector) {
      *reinterpret_cast<Group<Element>*>(y + first) = group;
    } else {
#pragma unroll
      for (int i = 0; i < kDropoutGroup; ++i)
        if (i < left) y[first + i] = group.element[i];
    }
  }
}

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <class Element>
void launch(const Dropout& call, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((call.num_tokens + kWarpsPerBlock - 1) / kWarpsPerBlock);
  const bool vector = call.width % kDropoutGroup == 0 && is_aligned(call.x) && is_aligned(call.y);
  if (vector)
    dropout_kernel<Element, true><<<blocks, kWarpsPerBlock * 32, 0, stream>>>(call);
  else
    dropout_kernel<Element, false><<<blocks, kWarpsPerBlock * 32, 0, stream>>>(call);
}

}  // namespace

cudaError_t dropout_cuda(const Dropout& call, cudaStream_t stream) {
  if (call.num_tokens == 0 || call.width == 0) return cudaSuccess;
  switch (call.element_type) {
    case ElementType::kFloat32:
      launch<float>(call, stream);
      break;
    case ElementType::kBFloat16:
      launch<__nv_bfloat16>(call, stream);
      break;
    case ElementType::kFloat16:
      launch<__half>(call, stream);
      break;
  }
  return cudaGetLastError();
}

}  // namespace scrna::kernels
