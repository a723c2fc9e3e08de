// Rounding of dQ: a thread turns the four float4 of one quad of lanes (8 columns of rows r and r + 8) into
// two stores of 16 bytes; eight neighbouring threads cover 64 columns of a row. Bytes moved: 4 T H K read, 2
// T H K written.
#include "kernels/attention_backward_finish.h"
#include "kernels/device/fragment.h"

namespace scrna::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kOctetsPerPass = 8;
constexpr int kPasses = 8;

struct RoundParams {
  QueryGradient sums;
  Ragged query;
  int num_cells;
  TokenView d_q;
  float scale;
};

__device__ void transpose(float4 (&x)[4]) {
  const float4 y[4] = {x[0], x[1], x[2], x[3]};
  x[0] = make_float4(y[0].x, y[1].x, y[2].x, y[3].x);
  x[1] = make_float4(y[0].y, y[1].y, y[2].y, y[3].y);
  x[2] = make_float4(y[0].z, y[1].z, y[2].z, y[3].z);
  x[3] = make_float4(y[0].w, y[1].w, y[2].w, y[3].w);
}

/// The packed cell whose first block is the last one not after `block`.
__device__ int cell_of(const RoundParams& params, int block) {
  int low = 0;
  int high = params.num_cells;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (params.sums.first_block(params.query.cu_seqlens[middle], middle) <= block)
      low = middle;
    else
      high = middle;
  }
  return low;
}

template <class Element, SumOrder kOrder>
__global__ void __launch_bounds__(kThreads) round_kernel(const __grid_constant__ RoundParams params) {
  const int block = blockIdx.x;
  int64_t token = 0;
  int length = 0;
  int num_rows = 0;
  int first = 0;  // row of the cell
  if (params.sums.blocks_per_cell > 0) {
    const int cell = block / params.sums.blocks_per_cell;
    first = (block - cell * params.sums.blocks_per_cell) * QueryGradient::kRows;
    token = cell * params.query.padded_length;
    length = params.query.lengths[cell];
    num_rows = static_cast<int>(params.query.padded_length);
  } else {
    const int cell = cell_of(params, block);
    token = params.query.cu_seqlens[cell];
    length = num_rows = params.query.cu_seqlens[cell + 1] - static_cast<int>(token);
    first = (block - params.sums.first_block(static_cast<int>(token), cell)) * QueryGradient::kRows;
  }
  const int quad = threadIdx.x / 8;
  const int row = first + quad / 8 * 16 + quad % 8;  // and row + 8
  const int num_octets = params.sums.num_heads * params.sums.num_octets;
  for (int i = 0; i < kPasses; ++i) {
    const int index = (blockIdx.y * kPasses + i) * kOctetsPerPass + threadIdx.x % kOctetsPerPass;
    if (index >= num_octets || row >= num_rows) return;
    const int head = index / params.sums.num_octets;
    const int octet = index % params.sums.num_octets;
    const float* sums = params.sums.octet(block, head, octet);
    float4 sum[4];  // of each lane of the quad
#pragma unroll
    for (int piece = 0; piece < 4; ++piece)
      sum[piece] = __ldcs(reinterpret_cast<const float4*>(
          sums + (kOrder == SumOrder::kByLane ? QueryGradient::offset(0, quad * 4 + piece)
                                              : quad / 8 * 128 + piece * 32 + quad % 8 * 4)));
    if constexpr (kOrder == SumOrder::kByValue) transpose(sum);
    auto* out = static_cast<Element*>(params.d_q.data) + (token + row) * params.d_q.token_stride +
                head * params.d_q.head_stride + octet * 8;
    const float scale = params.scale;
    uint4 low = make_uint4(0, 0, 0, 0);
    uint4 high = low;
    if (row < length)
      low = make_uint4(device::pack<Element>(scale * sum[0].x, scale * sum[0].y),
                       device::pack<Element>(scale * sum[1].x, scale * sum[1].y),
                       device::pack<Element>(scale * sum[2].x, scale * sum[2].y),
                       device::pack<Element>(scale * sum[3].x, scale * sum[3].y));
    if (row + 8 < length)
      high = make_uint4(device::pack<Element>(scale * sum[0].z, scale * sum[0].w),
                        device::pack<Element>(scale * sum[1].z, scale * sum[1].w),
                        device::pack<Element>(scale * sum[2].z, scale * sum[2].w),
                        device::pack<Element>(scale * sum[3].z, scale * sum[3].w));
    *reinterpret_cast<uint4*>(out) = low;
    if (row + 8 < num_rows) *reinterpret_cast<uint4*>(out + 8 * params.d_q.token_stride) = high;
  }
}

/// One warp per cell.
__global__ void __launch_bounds__(32)
    bias_gradient_kernel(Plan plan, const float* partials, float* d_cell_bias) {
  const int place = blockIdx.x;
  const int64_t begin = place == 0 ? 0 : plan.cells[place - 1].tile_end;
  const int64_t end = plan.cells[place].tile_end;
  double sum = 0;
  for (int64_t i = begin * kBiasPartialsPerTile + threadIdx.x; i < end * kBiasPartialsPerTile; i += 32)
    sum += static_cast<double>(partials[i]);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0U, sum, step);
  if (threadIdx.x == 0) d_cell_bias[plan.cells[place].cell] = static_cast<float>(sum);
}

}  // namespace

QueryGradient query_gradient(const AttentionShape& shape) {
  const Ragged& query = shape.query;
  const int64_t per_cell = (query.padded_length + QueryGradient::kRows - 1) / QueryGradient::kRows;
  return {.pieces = nullptr,
          .blocks_per_cell = static_cast<int32_t>(per_cell),
          .num_heads = static_cast<int32_t>(shape.num_heads),
          .num_octets = static_cast<int32_t>(shape.head_width / 8),
          .num_blocks = per_cell > 0 ? shape.num_cells * per_cell
                                     : query.total_tokens / QueryGradient::kRows + shape.num_cells};
}

cudaError_t round_query_gradient(const QueryGradient& sums, SumOrder order, const AttentionBackward& call,
                                 cudaStream_t stream) {
  if (call.shape.query.total_tokens == 0) return cudaSuccess;
  const RoundParams params{.sums = sums,
                           .query = call.shape.query,
                           .num_cells = static_cast<int>(call.shape.num_cells),
                           .d_q = call.d_q,
                           .scale = call.shape.scale};
  constexpr int kOctetsPerBlock = kOctetsPerPass * kPasses;
  const int num_octets = sums.num_heads * sums.num_octets;
  const dim3 grid(static_cast<unsigned>(sums.num_blocks),
                  static_cast<unsigned>((num_octets + kOctetsPerBlock - 1) / kOctetsPerBlock));
  const auto launch = [&]<class Element>() {
    if (order == SumOrder::kByLane)
      round_kernel<Element, SumOrder::kByLane><<<grid, kThreads, 0, stream>>>(params);
    else
      round_kernel<Element, SumOrder::kByValue><<<grid, kThreads, 0, stream>>>(params);
  };
  if (call.shape.element_type == ElementType::kBFloat16)
    launch.template operator()<__nv_bfloat16>();
  else
    launch.template operator()<__half>();
  return cudaGetLastError();
}

cudaError_t sum_bias_gradient(const Plan& plan, const float* partials, float* d_cell_bias,
                              cudaStream_t stream) {
  bias_gradient_kernel<<<static_cast<unsigned>(plan.num_cells), 32, 0, stream>>>(plan, partials, d_cell_bias);
  return cudaGetLastError();
}

}  // namespace scrna::kernels
