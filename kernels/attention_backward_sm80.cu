// Sigmoid attention backward without wgmma, for every GPU from compute capability 8.0 on. One pass of five
// products per step of 32 (K <= 64) or 64 queries x 128 keys:
//
//   S^T = K Q^T    dP^T = V dO^T    dV += P^T dO    dK += dS^T Q    dQ += dS K      with dS = dP P (1 - P)
//
// Persistent blocks draw tiles of 128 keys of one cell and head (attention_plan.h) and run over the cell's
// queries, Q two steps deep in shared memory, dO one. Four warps of 32 keys (K <= 64, two or three blocks on
// a multiprocessor) or eight of 16 keys own dK and dV of their keys in registers; as on Hopper, scores are
// transposed, so that P^T and dS^T are their A operands as they stand. dS^T goes through shared memory once,
// for dQ, which the warps share by queries and columns and add to an fp32 workspace with fire-and-forget
// atomics, 128 bytes per instruction (attention_backward_finish.h). Two barriers per step: before S^T and
// before dQ. All fits 99 KB of shared memory, the least of all devices; for that the wide kernels keep V in
// registers and use its place.
//
// Nothing is masked: rows beyond an end arrive as zeros. Deterministic mode: two passes without dQ, the
// second of which computes dQ as if it were dK, with the roles of queries and keys, and of dO and V,
// exchanged. Biases and the form of the sigmoid are chosen at run time: 16 instances, not 128.
//
// Measured on an H100 (8,192 tokens, exact, TFLOP/s): the atomics cost 3-5 %; at width 128, 32 queries per
// step 239, K in registers besides 252, 64 queries and V in registers 254-263; at width 96 232, 245, 270-274.
// At width 64 eight warps of 16 keys were 10 % slower than four of 32. What limits width 128 is one block of
// eight warps that does all phases in step, with 255 registers and no room to read operands ahead.
#include "kernels/attention_backward_sm80_block.h"
#include "kernels/attention_sm80.h"
#include "kernels/launch.h"

namespace scrna::kernels {
namespace {

using namespace sm80;

constexpr int kTileKeys = 128;

template <class T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    backward_kernel(const __grid_constant__ BackwardParams params) {
  extern __shared__ __align__(128) uint8_t memory[];
  auto& shared = *reinterpret_cast<BackwardShared<T>*>(memory);
  static_assert(sizeof(BackwardShared<T>) <= sm80::kMaxSharedBytes);
  TileDrawer<T::kKeys> drawer(params.plan, threadIdx.x < 32);
  BackwardBlock<T> block(params, shared);
  while (next_tile(drawer, shared.tile)) {
    block.attend(shared.tile);
    ask_for_next(drawer);
    block.store(shared.tile);
  }
}

/// Parts of the workspace. The deterministic mode uses the plan and the partial sums only.
struct Workspace {
  Plan plan;
  QueryGradient d_q;
  float* bias_partials;
  size_t bytes;
};

Workspace lay_out(void* memory, const AttentionShape& shape) {
  constexpr size_t kAlignment = 256;
  size_t used = 0;
  const auto take = [&](size_t bytes) {
    char* part = static_cast<char*>(memory) + used;
    used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return part;
  };
  Workspace w{};
  w.plan = plan_in(take(plan_bytes(shape)), shape);
  w.d_q = query_gradient(shape);
  w.d_q.pieces = reinterpret_cast<float*>(take(w.d_q.bytes()));
  w.bias_partials = reinterpret_cast<float*>(
      take(static_cast<size_t>(max_tiles(shape, false, kTileKeys)) * kBiasPartialsPerTile * sizeof(float)));
  w.bytes = used;
  return w;
}

/// Plan and kernel.
template <class T>
cudaError_t run_pass(const AttentionShape& shape, bool tile_queries, const BackwardParams& params,
                     cudaStream_t stream) {
  static_assert(T::kKeys == kTileKeys);
  constexpr bool kAdds = T::kPass == Pass::kAll;
  SCRNA_CUDA_TRY(make_plan(params.plan,
                           {.shape = &shape,
                            .tile_queries = tile_queries,
                            .tile_tokens = kTileKeys,
                            .zero = kAdds ? params.d_q.pieces : nullptr,
                            .zero_bytes = kAdds ? params.d_q.bytes() : 0},
                           stream));
  const Ragged& tiled = tile_queries ? shape.query : shape.key;
  if (tiled.total_tokens == 0) return cudaSuccess;
  return launch_blocks(backward_kernel<T>, params, T::kThreads, sizeof(BackwardShared<T>), T::kBlocks,
                       max_tiles(shape, tile_queries, kTileKeys), stream);
}

template <class Element, int kWidth>
cudaError_t launch(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  const AttentionShape& shape = call.shape;
  const Workspace parts = lay_out(workspace, shape);
  const bool bias_gradient = call.d_cell_bias != nullptr;
  BackwardParams params{.q = call.q,
                        .k = call.k,
                        .v = call.v,
                        .d_o = call.d_o,
                        .d_k = call.d_k,
                        .d_v = call.d_v,
                        .plan = parts.plan,
                        .d_q = parts.d_q,
                        .row_bias = shape.key_bias,
                        .loop_bias = nullptr,
                        .bias_partials = bias_gradient ? parts.bias_partials : nullptr,
                        .scale = shape.scale,
                        .fast = uses_fast_sigmoid(shape)};
  if (call.deterministic) {
    SCRNA_CUDA_TRY((run_pass<BackwardTraits<Element, kWidth, Pass::kKeys>>(shape, false, params, stream)));
  } else {
    SCRNA_CUDA_TRY((run_pass<BackwardTraits<Element, kWidth, Pass::kAll>>(shape, false, params, stream)));
    SCRNA_CUDA_TRY(round_query_gradient(parts.d_q, SumOrder::kByValue, call, stream));
  }
  if (bias_gradient)
    SCRNA_CUDA_TRY(sum_bias_gradient(parts.plan, parts.bias_partials, call.d_cell_bias, stream));
  if (!call.deterministic) return cudaSuccess;
  params.q = call.k, params.k = call.q, params.v = call.d_o, params.d_o = call.v;
  params.d_k = call.d_q, params.d_v = {};
  params.row_bias = nullptr, params.loop_bias = shape.key_bias;
  params.bias_partials = nullptr;
  return run_pass<BackwardTraits<Element, kWidth, Pass::kKeys>>(shape, true, params, stream);
}

template <class Element>
cudaError_t launch_width(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  switch (call.shape.head_width) {
    case 32:
      return launch<Element, 32>(call, workspace, stream);
    case 64:
      return launch<Element, 64>(call, workspace, stream);
    case 96:
      return launch<Element, 96>(call, workspace, stream);
    default:
      return launch<Element, 128>(call, workspace, stream);
  }
}

}  // namespace

size_t backward_sm80_workspace_bytes(const AttentionShape& shape) { return lay_out(nullptr, shape).bytes; }

cudaError_t backward_sm80(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  return call.shape.element_type == ElementType::kBFloat16
             ? launch_width<__nv_bfloat16>(call, workspace, stream)
             : launch_width<__half>(call, workspace, stream);
}

}  // namespace scrna::kernels
