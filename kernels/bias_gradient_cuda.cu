// Walks rows as device/row_tiles.h says, four rows of a warp in flight at a time.
#include "kernels/bias_gradient_cuda.h"
#include "kernels/column_sums_cuda.h"
#include "kernels/device/row_tiles.h"

namespace scrna::kernels {
namespace {

using device::kOctet;
using device::Octet;

constexpr int kRowsInFlight = 4;

template <class Element>
__global__ void __launch_bounds__(device::kTileWarps * 32) sum_kernel(BiasGradient call, float* partials) {
  const int64_t column = int64_t{blockIdx.x} * device::kTileColumns + threadIdx.x % 32 * kOctet;
  const int64_t step = int64_t{gridDim.y} * device::kTileWarps;
  float sums[kOctet] = {};
  if (column < call.width) {
    const auto* d_y = static_cast<const Element*>(call.d_y) + column;
    for (int64_t first = int64_t{blockIdx.y} * device::kTileWarps + threadIdx.x / 32; first < call.num_rows;
         first += kRowsInFlight * step) {
      Octet<Element> in[kRowsInFlight];
#pragma unroll
      for (int r = 0; r < kRowsInFlight; ++r)
        if (first + r * step < call.num_rows)
          in[r] = Octet<Element>::load(d_y + (first + r * step) * call.width);
#pragma unroll
      for (int r = 0; r < kRowsInFlight; ++r) {
        if (first + r * step >= call.num_rows) break;
        float values[kOctet];
        in[r].unpack_to(values);
#pragma unroll
        for (int i = 0; i < kOctet; ++i) sums[i] += values[i];
      }
    }
  }
  device::store_column_sums(sums, call.width, partials);
}

}  // namespace

const char* bias_gradient_unsupported(const BiasGradient& call) {
  if (call.element_type == ElementType::kFloat16) return "the kernel takes fp32 and bf16";
  if (call.width % kOctet != 0) return "the kernel takes widths that are multiples of 8";
  return nullptr;
}

size_t bias_gradient_workspace_bytes(const BiasGradient& call) {
  return static_cast<size_t>(device::tile_rows(call.num_rows, call.width) * call.width) * sizeof(float);
}

cudaError_t bias_gradient_cuda(const BiasGradient& call, float* partials, cudaStream_t stream) {
  if (bias_gradient_unsupported(call) != nullptr) return cudaErrorInvalidValue;
  if (call.num_rows == 0 || call.width == 0) return cudaSuccess;
  const dim3 grid = device::tile_grid(call.num_rows, call.width);
  constexpr int kThreads = device::kTileWarps * 32;
  if (call.element_type == ElementType::kFloat32)
    sum_kernel<float><<<grid, kThreads, 0, stream>>>(call, partials);
  else
    sum_kernel<__nv_bfloat16><<<grid, kThreads, 0, stream>>>(call, partials);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  return column_sums_cuda({.partials = partials,
                           .num_partials = device::tile_rows(call.num_rows, call.width),
                           .width = call.width,
                           .accumulate = true,
                           .first = call.d_bias},
                          stream);
}

}  // namespace scrna::kernels
