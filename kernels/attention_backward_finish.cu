// Rounding of dQ: a thread turns the four float4 of one quad of lanes (8 columns of rows r and r + 8, 64
// bytes side by side) into two stores of 16 bytes; eight neighbouring threads cover a row's 64 columns. Bytes
// moved: 4 T H K read, 2 T H K written.
#include "kernels/attention_backward_finish.h"
#include "kernels/device/fragment.h"

namespace scrna::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kPiecesPerBlock = 8;

struct RoundParams {
  QueryGradient sums;
  Ragged query;
  int num_cells;
  TokenView d_q;
  float scale;
};

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

template <class Element>
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
  const int octet = threadIdx.x % 8;
  const int quad = threadIdx.x / 8;
  const int row = first + quad / 8 * 16 + quad % 8;  // and row + 8
  const int num_pieces = params.sums.num_heads * params.sums.num_panels;
  for (int i = 0; i < kPiecesPerBlock; ++i) {
    const int piece = blockIdx.y * kPiecesPerBlock + i;
    if (piece >= num_pieces || row >= num_rows) return;
    const int head = piece / params.sums.num_panels;
    const int panel = piece % params.sums.num_panels;
    const auto* sums = reinterpret_cast<const float4*>(params.sums.piece(block, head, panel) +
                                                       QueryGradient::offset(octet, quad * 4));
    float4 sum[4];
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) sum[lane] = __ldcs(sums + lane);
    auto* out = static_cast<Element*>(params.d_q.data) + (token + row) * params.d_q.token_stride +
                head * params.d_q.head_stride + panel * 64 + octet * 8;
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
          .num_panels = static_cast<int32_t>(shape.head_width / 64),
          .num_blocks = per_cell > 0 ? shape.num_cells * per_cell
                                     : query.total_tokens / QueryGradient::kRows + shape.num_cells};
}

cudaError_t round_query_gradient(const QueryGradient& sums, const AttentionBackward& call,
                                 cudaStream_t stream) {
  if (call.shape.query.total_tokens == 0) return cudaSuccess;
  const RoundParams params{.sums = sums,
                           .query = call.shape.query,
                           .num_cells = static_cast<int>(call.shape.num_cells),
                           .d_q = call.d_q,
                           .scale = call.shape.scale};
  const int num_pieces = sums.num_heads * sums.num_panels;
  const dim3 grid(static_cast<unsigned>(sums.num_blocks),
                  static_cast<unsigned>((num_pieces + kPiecesPerBlock - 1) / kPiecesPerBlock));
  if (call.shape.element_type == ElementType::kBFloat16)
    round_kernel<__nv_bfloat16><<<grid, kThreads, 0, stream>>>(params);
  else
    round_kernel<__half><<<grid, kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t sum_bias_gradient(const Plan& plan, const float* partials, float* d_cell_bias,
                              cudaStream_t stream) {
  bias_gradient_kernel<<<static_cast<unsigned>(plan.num_cells), 32, 0, stream>>>(plan, partials, d_cell_bias);
  return cudaGetLastError();
}

}  // namespace scrna::kernels
