// The planning kernel of attention_plan.h. Block 0 sorts the cells by counting (1,024 classes of 64 tokens of
// inner loop, longest first; order within a class is arbitrary and influences no result) and sums up their
// tiles; the other blocks zero the workspace that the backward pass accumulates into. Cost: a few
// microseconds for block 0 whatever B.
#include <algorithm>

#include "kernels/attention_plan.h"

namespace scrna::kernels {
namespace {

constexpr int kThreads = 1024;
constexpr int kClasses = 1024;
constexpr int kTokensPerClass = 64;
constexpr size_t kHeaderBytes = 32;
constexpr int64_t kZeroBytesPerBlock = int64_t{256} << 10;

struct PlanParams {
  Plan plan;
  Ragged tiled, looped;
  bool tile_queries;
  int tile_tokens;
  BiasKind bias_kind;
  float scalar_bias;
  const float* cell_bias;
  uint4* zero;
  int64_t zero_pieces;  // of 16 bytes
};

struct Tokens {
  int32_t begin;
  int32_t length;
};

__device__ Tokens tokens_of(const Ragged& ragged, int cell) {
  if (ragged.padded_length > 0)
    return {static_cast<int32_t>(cell * ragged.padded_length), ragged.lengths[cell]};
  return {ragged.cu_seqlens[cell], ragged.cu_seqlens[cell + 1] - ragged.cu_seqlens[cell]};
}

__device__ float bias_of(const PlanParams& params, int cell, int num_keys) {
  if (num_keys == 0) return 0.0F;
  switch (params.bias_kind) {
    case BiasKind::kNegativeLogLength:
      return -logf(static_cast<float>(num_keys));
    case BiasKind::kScalar:
      return params.scalar_bias;
    case BiasKind::kPerCell:
      return params.cell_bias[cell];
  }
  return 0.0F;
}

/// Sum over the threads up to and including this one; `total` of all.
__device__ int inclusive_sum(int value, int& total) {
  __shared__ int warp_sums[32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(~0U, value, step);
    if (lane >= step) value += other;
  }
  if (lane == 31) warp_sums[warp] = value;
  __syncthreads();
  if (warp == 0) {
    int sum = warp_sums[lane];
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0U, sum, step);
      if (lane >= step) sum += other;
    }
    warp_sums[lane] = sum;
  }
  __syncthreads();
  if (warp > 0) value += warp_sums[warp - 1];
  total = warp_sums[31];
  __syncthreads();
  return value;
}

__device__ void plan_cells(const PlanParams& params) {
  __shared__ int places[kClasses];  // first the size of each class, then where its next cell goes
  const Plan& plan = params.plan;
  const auto class_of = [](int length) {
    return kClasses - 1 - min(kClasses - 1, (length + kTokensPerClass - 1) / kTokensPerClass);
  };
  static_assert(kThreads == kClasses);
  places[threadIdx.x] = 0;
  __syncthreads();
  for (int cell = threadIdx.x; cell < plan.num_cells; cell += kThreads)
    atomicAdd(&places[class_of(tokens_of(params.looped, cell).length)], 1);
  __syncthreads();
  int total = 0;
  const int size = places[threadIdx.x];
  places[threadIdx.x] = inclusive_sum(size, total) - size;
  __syncthreads();
  for (int cell = threadIdx.x; cell < plan.num_cells; cell += kThreads) {
    const Tokens tiled = tokens_of(params.tiled, cell);
    const Tokens looped = tokens_of(params.looped, cell);
    const int rows =
        params.tiled.padded_length > 0 ? static_cast<int>(params.tiled.padded_length) : tiled.length;
    const int num_keys = params.tile_queries ? looped.length : tiled.length;
    plan.cells[atomicAdd(&places[class_of(looped.length)], 1)] = {
        .tile_end = (rows + params.tile_tokens - 1) / params.tile_tokens * plan.num_heads,
        .cell = cell,
        .tile_token = tiled.begin,
        .tile_length = tiled.length,
        .tile_rows = rows,
        .loop_token = looped.begin,
        .loop_length = looped.length,
        .bias = bias_of(params, cell, num_keys)};
  }
  __syncthreads();
  int before = 0;
  for (int first = 0; first < plan.num_cells; first += kThreads) {
    const int place = first + static_cast<int>(threadIdx.x);
    const bool used = place < plan.num_cells;
    const int end = inclusive_sum(used ? plan.cells[place].tile_end : 0, total);
    if (used) plan.cells[place].tile_end = before + end;
    before += total;
  }
  if (threadIdx.x == 0) {
    *plan.next_tile = 0;
    *plan.num_tiles = before;
  }
}

__global__ void __launch_bounds__(kThreads) plan_kernel(const __grid_constant__ PlanParams params) {
  if (blockIdx.x == 0) {
    plan_cells(params);
    return;
  }
  const int64_t stride = int64_t{gridDim.x - 1} * kThreads;
  for (int64_t piece = int64_t{blockIdx.x - 1} * kThreads + threadIdx.x; piece < params.zero_pieces;
       piece += stride)
    params.zero[piece] = make_uint4(0, 0, 0, 0);
}

}  // namespace

size_t plan_bytes(const AttentionShape& shape) {
  return kHeaderBytes + static_cast<size_t>(shape.num_cells) * sizeof(PlannedCell);
}

int64_t max_tiles(const AttentionShape& shape, bool tile_queries, int tile_tokens) {
  const Ragged& tiled = tile_queries ? shape.query : shape.key;
  const int64_t per_head = tiled.padded_length > 0
                               ? shape.num_cells * ((tiled.padded_length + tile_tokens - 1) / tile_tokens)
                               : tiled.total_tokens / tile_tokens + shape.num_cells;
  return per_head * shape.num_heads;
}

Plan plan_in(void* memory, const AttentionShape& shape) {
  auto* header = static_cast<int32_t*>(memory);
  return {.next_tile = header,
          .num_tiles = header + 1,
          .cells = reinterpret_cast<PlannedCell*>(static_cast<char*>(memory) + kHeaderBytes),
          .num_cells = static_cast<int32_t>(shape.num_cells),
          .num_heads = static_cast<int32_t>(shape.num_heads)};
}

cudaError_t make_plan(const Plan& plan, const PlanRequest& request, cudaStream_t stream) {
  const AttentionShape& shape = *request.shape;
  const auto zero_bytes = static_cast<int64_t>(request.zero_bytes);
  const PlanParams params{.plan = plan,
                          .tiled = request.tile_queries ? shape.query : shape.key,
                          .looped = request.tile_queries ? shape.key : shape.query,
                          .tile_queries = request.tile_queries,
                          .tile_tokens = request.tile_tokens,
                          .bias_kind = shape.bias_kind,
                          .scalar_bias = shape.scalar_bias,
                          .cell_bias = shape.cell_bias,
                          .zero = static_cast<uint4*>(request.zero),
                          .zero_pieces = zero_bytes / 16};
  const int64_t zero_blocks =
      std::min<int64_t>((zero_bytes + kZeroBytesPerBlock - 1) / kZeroBytesPerBlock, 1024);
  plan_kernel<<<static_cast<unsigned>(1 + zero_blocks), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace scrna::kernels
