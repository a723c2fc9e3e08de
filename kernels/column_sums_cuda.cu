// A block owns 32 columns; each of its 32 warps adds every 32nd partial row, lane by column (128-byte reads),
// and the first warp adds the 32 results in order. Bytes moved: 4 num_partials columns.
#include "kernels/column_sums_cuda.h"

namespace scrna::kernels {
namespace {

constexpr int kColumns = 32;
constexpr int kWarps = 32;

__global__ void __launch_bounds__(kColumns* kWarps) column_sums_kernel(ColumnSums call, int64_t num_columns) {
  __shared__ float sums[kWarps][kColumns];
  const int lane = threadIdx.x % kColumns;
  const int warp = threadIdx.x / kColumns;
  const int64_t column = int64_t{blockIdx.x} * kColumns + lane;
  float sum = 0;
  if (column < num_columns)
    for (int64_t row = warp; row < call.num_partials; row += kWarps)
      sum += call.partials[row * call.stride + column];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= num_columns) return;
#pragma unroll
  for (int w = 1; w < kWarps; ++w) sum += sums[w][lane];
  float* const out = column < call.width ? call.first + column : call.second + (column - call.width);
  *out = call.accumulate ? *out + sum : sum;
}

}  // namespace

cudaError_t column_sums_cuda(const ColumnSums& given, cudaStream_t stream) {
  ColumnSums call = given;
  const int64_t num_columns = call.width * (call.second == nullptr ? 1 : 2);
  if (call.stride == 0) call.stride = num_columns;
  if (num_columns == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((num_columns + kColumns - 1) / kColumns);
  column_sums_kernel<<<blocks, kColumns * kWarps, 0, stream>>>(call, num_columns);
  return cudaGetLastError();
}

}  // namespace scrna::kernels
