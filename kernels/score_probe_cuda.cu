// A block per sampled query and head; a thread per key. Numbers without sign compare like their bits, and the
// bits of a NaN are above those of infinity, so an integer maximum in memory is exact, keeps a NaN and does
// not depend on the order.
#include "kernels/device/octet.h"
#include "kernels/score_probe_cuda.h"

namespace scrna::kernels {
namespace {

using device::kOctet;

constexpr int kThreads = 256;
constexpr int64_t kMaxWidth = 256;

/// The cell that holds the token: the last one that begins at or before it and is not empty.
__device__ int64_t cell_of(const int32_t* cu_seqlens, int64_t num_cells, int64_t token) {
  int64_t low = 0, high = num_cells;  // cu_seqlens[low] <= token < cu_seqlens[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (cu_seqlens[middle] <= token ? low : high) = middle;
  }
  return low;
}

template <class Element>
__global__ void __launch_bounds__(kThreads) probe_kernel(ScoreProbe call) {
  __shared__ float query[kMaxWidth];
  __shared__ unsigned block_largest;
  const int64_t token = (int64_t{blockIdx.x} * call.num_tokens + call.offset) / call.num_queries;
  const int64_t head = blockIdx.y;
  const auto* q =
      static_cast<const Element*>(call.q.data) + token * call.q.token_stride + head * call.q.head_stride;
  for (int64_t i = threadIdx.x; i < call.head_width; i += kThreads) query[i] = static_cast<float>(q[i]);
  if (threadIdx.x == 0) block_largest = 0;
  __syncthreads();
  const int64_t cell = cell_of(call.cu_seqlens, call.num_cells, token);
  unsigned largest = 0;
  for (int64_t key = call.cu_seqlens[cell] + threadIdx.x; key < call.cu_seqlens[cell + 1]; key += kThreads) {
    const auto* k =
        static_cast<const Element*>(call.k.data) + key * call.k.token_stride + head * call.k.head_stride;
    float sum = 0;
    for (int64_t i = 0; i < call.head_width; i += kOctet) {
      float values[kOctet];
      device::load_octet(k + i, values);
#pragma unroll
      for (int j = 0; j < kOctet; ++j) sum = fmaf(query[i + j], values[j], sum);
    }
    largest = max(largest, __float_as_uint(fabsf(call.scale * sum)));
  }
  atomicMax(&block_largest, largest);
  __syncthreads();
  if (threadIdx.x == 0) atomicMax(reinterpret_cast<unsigned*>(call.result), block_largest);
}

}  // namespace

const char* score_probe_unsupported(const ScoreProbe& call) {
  if (call.element_type == ElementType::kFloat16) return "the kernel takes fp32 and bf16";
  if (call.head_width % kOctet != 0 || call.head_width > kMaxWidth)
    return "the kernel takes head widths that are multiples of 8 up to 256";
  const int64_t octet = call.element_type == ElementType::kFloat32 ? 4 : 8;
  for (const TokenView& view : {call.q, call.k})
    if (view.token_stride % octet != 0 || view.head_stride % octet != 0 ||
        reinterpret_cast<uintptr_t>(view.data) % 16 != 0)
      return "the kernel takes rows at multiples of 16 bytes";
  return nullptr;
}

cudaError_t score_probe_cuda(const ScoreProbe& call, cudaStream_t stream) {
  if (score_probe_unsupported(call) != nullptr || call.num_queries > call.num_tokens)
    return cudaErrorInvalidValue;
  const cudaError_t error = cudaMemsetAsync(call.result, 0, sizeof(float), stream);
  if (error != cudaSuccess || call.num_queries == 0 || call.num_heads == 0) return error;
  const dim3 grid(static_cast<unsigned>(call.num_queries), static_cast<unsigned>(call.num_heads));
  if (call.element_type == ElementType::kFloat32)
    probe_kernel<float><<<grid, kThreads, 0, stream>>>(call);
  else
    probe_kernel<__nv_bfloat16><<<grid, kThreads, 0, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace scrna::kernels
