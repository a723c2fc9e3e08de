// Forward: a block of 512 threads per row; each thread keeps a running maximum and sum of its octets,
// rescaled when the maximum grows, and the block merges them. Backward: the walk of device/row_tiles.h, four
// rows in flight. A NaN or a logit of +infinity makes its row's loss and gradient NaN, as in LibTorch.
#include "kernels/column_sums_cuda.h"
#include "kernels/cross_entropy_cuda.h"
#include "kernels/device/row_tiles.h"
#include "kernels/device/sigmoid.h"

namespace scrna::kernels {
namespace {

using device::exp2_approx;
using device::kOctet;
using device::Octet;

constexpr int kRowThreads = 512;
constexpr int kRowsInFlight = 2;
constexpr float kLog2e = 1.44269504F;

/// sum of exp(x - maximum) over some elements.
struct Softmax {
  float maximum = -INFINITY;
  float sum = 0;

  /// What is subtracted in exponents: exp(-inf - (-inf)) would be NaN where nothing but -inf was seen.
  [[nodiscard]] __device__ __forceinline__ float reference() const {
    return maximum == -INFINITY ? 0.0F : maximum;
  }
  __device__ __forceinline__ void add(const float (&values)[kOctet]) {
    float largest = values[0];
#pragma unroll
    for (int i = 1; i < kOctet; ++i) largest = fmaxf(largest, values[i]);
    if (largest > maximum) {
      sum *= exp2_approx((maximum - largest) * kLog2e);
      maximum = largest;
    }
    const float shift = reference();
#pragma unroll
    for (int i = 0; i < kOctet; ++i) sum += exp2_approx((values[i] - shift) * kLog2e);
  }
  __device__ __forceinline__ void merge(float other_maximum, float other_sum) {
    const float before = reference();
    const float other = other_maximum == -INFINITY ? 0.0F : other_maximum;
    maximum = fmaxf(maximum, other_maximum);
    const float after = reference();
    sum = sum * exp2_approx((before - after) * kLog2e) + other_sum * exp2_approx((other - after) * kLog2e);
  }
};

template <class Element>
__global__ void __launch_bounds__(kRowThreads, 3) forward_kernel(CrossEntropy call, float* losses) {
  __shared__ Softmax of_warp[kRowThreads / 32];
  const int64_t row = blockIdx.x;
  const auto* logits = static_cast<const Element*>(call.logits) + row * call.row_stride;
  const int num_octets = static_cast<int>((call.num_classes + kOctet - 1) / kOctet);
  Softmax softmax;
#pragma unroll 4
  for (int octet = static_cast<int>(threadIdx.x); octet < num_octets; octet += kRowThreads) {
    float values[kOctet];
    device::load_octet(logits + int64_t{octet} * kOctet, values);
    const int64_t left = call.num_classes - int64_t{octet} * kOctet;
    if (left < kOctet)
#pragma unroll
      for (int i = 0; i < kOctet; ++i)
        if (i >= left) values[i] = -INFINITY;
    softmax.add(values);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    softmax.merge(__shfl_xor_sync(~0U, softmax.maximum, step), __shfl_xor_sync(~0U, softmax.sum, step));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = softmax;
  __syncthreads();
  if (threadIdx.x > 0) return;
#pragma unroll
  for (int warp = 1; warp < kRowThreads / 32; ++warp) softmax.merge(of_warp[warp].maximum, of_warp[warp].sum);
  const int64_t target = call.targets[row];
  const bool valid = target >= 0 && target < call.num_classes;
  const float lse = valid ? softmax.maximum + logf(softmax.sum) : NAN;
  call.lse[row] = lse;
  losses[row] = valid ? lse - static_cast<float>(logits[target]) : NAN;
}

template <class Element>
__global__ void __launch_bounds__(device::kTileWarps * 32)
    backward_kernel(CrossEntropy call, float scale, float* partials) {
  const int64_t column = int64_t{blockIdx.x} * device::kTileColumns + threadIdx.x % 32 * kOctet;
  const int64_t step = int64_t{gridDim.y} * device::kTileWarps;
  float d_bias[kOctet] = {};
  if (column < call.row_stride) {
    const int64_t left = call.num_classes - column;
    auto* logits = static_cast<Element*>(call.logits) + column;
    for (int64_t first = int64_t{blockIdx.y} * device::kTileWarps + threadIdx.x / 32; first < call.num_rows;
         first += kRowsInFlight * step) {
      Octet<Element> in[kRowsInFlight];
      float lse[kRowsInFlight];
      int64_t target[kRowsInFlight];
#pragma unroll
      for (int r = 0; r < kRowsInFlight; ++r) {
        const int64_t row = first + r * step;
        if (row >= call.num_rows) break;
        in[r] = Octet<Element>::load(logits + row * call.row_stride);
        lse[r] = call.lse[row];
        target[r] = call.targets[row] - column;
      }
#pragma unroll
      for (int r = 0; r < kRowsInFlight; ++r) {
        const int64_t row = first + r * step;
        if (row >= call.num_rows) break;
        float values[kOctet];
        in[r].unpack_to(values);
#pragma unroll
        for (int i = 0; i < kOctet; ++i) {
          const float share = exp2_approx((values[i] - lse[r]) * kLog2e) - (i == target[r] ? 1.0F : 0.0F);
          values[i] = i < left ? scale * share : 0.0F;
          d_bias[i] += values[i];
        }
        device::store_octet(logits + row * call.row_stride, values);
      }
    }
  }
  if (partials != nullptr) device::store_column_sums(d_bias, call.row_stride, partials);
}

}  // namespace

size_t cross_entropy_workspace_bytes(const CrossEntropy& call) {
  return static_cast<size_t>(device::tile_rows(call.num_rows, call.row_stride) * call.row_stride) *
         sizeof(float);
}

cudaError_t cross_entropy_forward_cuda(const CrossEntropy& call, float* losses, cudaStream_t stream) {
  if (call.element_type == ElementType::kFloat16 || call.row_stride % kOctet != 0)
    return cudaErrorInvalidValue;
  if (call.num_rows == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(call.num_rows);
  if (call.element_type == ElementType::kFloat32)
    forward_kernel<float><<<blocks, kRowThreads, 0, stream>>>(call, losses);
  else
    forward_kernel<__nv_bfloat16><<<blocks, kRowThreads, 0, stream>>>(call, losses);
  return cudaGetLastError();
}

cudaError_t cross_entropy_backward_cuda(const CrossEntropy& call, const CrossEntropyGradient& gradient,
                                        cudaStream_t stream) {
  if (call.element_type == ElementType::kFloat16 || call.row_stride % kOctet != 0)
    return cudaErrorInvalidValue;
  if (call.num_rows == 0 || call.row_stride == 0) return cudaSuccess;
  const dim3 grid = device::tile_grid(call.num_rows, call.row_stride);
  float* const partials = gradient.d_bias == nullptr ? nullptr : gradient.partials;
  if (call.element_type == ElementType::kFloat32)
    backward_kernel<float><<<grid, device::kTileWarps * 32, 0, stream>>>(call, gradient.scale, partials);
  else
    backward_kernel<__nv_bfloat16>
        <<<grid, device::kTileWarps * 32, 0, stream>>>(call, gradient.scale, partials);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || gradient.d_bias == nullptr) return error;
  return column_sums_cuda({.partials = partials,
                           .stride = call.row_stride,
                           .num_partials = device::tile_rows(call.num_rows, call.row_stride),
                           .width = call.num_classes,
                           .accumulate = true,
                           .first = gradient.d_bias},
                          stream);
}

}  // namespace scrna::kernels
