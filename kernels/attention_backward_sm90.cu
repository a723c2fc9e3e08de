// Sigmoid attention backward for Hopper, one pass of five products per 64 queries x 128 keys:
//
//   S^T = K Q^T    dP^T = V dO^T    dV += P^T dO    dK += dS^T Q    dQ += dS K      with dS = dP P (1 - P)
//
// One persistent block per multiprocessor draws tiles of 128 keys of one cell and head (attention_plan.h) and
// runs over the cell's queries. Scores are computed transposed, so that P^T and dS^T already are register
// operands of dV and dK; only dS^T visits shared memory, for dQ. Four warpgroups:
//
//   0  producer: warp 0 loads, warp 1 clears rows beyond a cell's length (zero rows of Q and dO, K and V make
//   every
//      product of theirs zero, so nothing is masked)
//   1, 2  64 keys each: S, dP, dV, dK; they never wait for each other
//   3  dQ: multiplies dS by K and adds 64 x 64 pieces to an fp32 workspace by bulk reduction. These
//   reductions are the
//      slowest part of the chip in this kernel (3.8 TB/s); issued by the key groups they cost 15 %.
//
// Order inside a key group:   [dP(i), dV(i)]  dS(i), publish  [S(i+1), dK(i)]  sigmoid(i+1)   (brackets: in
// flight together). No saved O, no statistics. The workspace is zeroed by the planning launch and converted
// to dQ afterwards.
//
// Deterministic mode: floating-point sums by reduction have no order, so it runs two passes of the same
// kernel without warpgroup 3. One computes dK and dV. The other computes dQ as if it were dK, with the roles
// of queries and keys (and of dO and V) exchanged: seven products instead of five, and no workspace. (Adding
// the pieces in turn, guarded by counters, was measured: half as fast, because the tiles of one head wait for
// each other.)
#include "kernels/attention_backward_keys.h"
#include "kernels/attention_backward_load.h"
#include "kernels/attention_backward_queries.h"
#include "kernels/attention_sm90.h"
#include "kernels/launch.h"
#include "kernels/tensor_map.h"

namespace scrna::kernels {
namespace {

using namespace sm90;

template <class T>
__global__ void __launch_bounds__(T::kThreads, 1)
    backward_kernel(const __grid_constant__ BackwardParams params) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& shared = *reinterpret_cast<BackwardShared<T>*>(memory);
  static_assert(sizeof(BackwardShared<T>) <= kMaxSharedBytes);
  const int warp = __shfl_sync(~0U, threadIdx.x / 32, 0);  // the same in all lanes, and the compiler knows
  if (threadIdx.x == 0) shared.init();
  __syncthreads();
  if (warp < 4) {
    lower_registers<T::kProducerRegisters>();
    if (warp == 0)
      produce<T>(params, shared);
    else if (warp == 1)
      clear_tails<T>(shared);
  } else if (warp < 12) {
    raise_registers<T::kKeyRegisters>();
    KeyGroup<T>(params, shared, warp / 4 - 1).run(params);
  } else if constexpr (T::kQueryGroup) {
    lower_registers<T::kQueryRegisters>();
    add_query_gradients<T>(params, shared);
  }
}

/// Parts of the workspace. The deterministic mode uses the plan and the partial sums only.
struct Workspace {
  Plan plan;
  QueryGradient d_q;
  size_t d_q_bytes;
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
  w.d_q_bytes = w.d_q.bytes();
  w.d_q.pieces = reinterpret_cast<float*>(take(w.d_q_bytes));
  w.bias_partials = reinterpret_cast<float*>(
      take(static_cast<size_t>(max_tiles(shape, false, kKeys)) * kBiasPartialsPerTile * sizeof(float)));
  w.bytes = used;
  return w;
}

/// One pass: plan and kernel.
template <class T>
cudaError_t run_pass(const AttentionBackward& call, const Workspace& parts, cudaStream_t stream) {
  constexpr bool kSwapped = T::kPass == Pass::kQueries;
  const AttentionShape& shape = call.shape;
  SCRNA_CUDA_TRY(make_plan(parts.plan,
                           {.shape = &shape,
                            .tile_queries = kSwapped,
                            .tile_tokens = kKeys,
                            .zero = T::kQueryGroup ? parts.d_q.pieces : nullptr,
                            .zero_bytes = T::kQueryGroup ? parts.d_q_bytes : 0},
                           stream));
  const Ragged& keys = kSwapped ? shape.query : shape.key;
  const Ragged& queries = kSwapped ? shape.key : shape.query;
  if (keys.total_tokens == 0) return cudaSuccess;
  BackwardParams params{.q = {},
                        .k = {},
                        .v = {},
                        .d_o = {},
                        .plan = parts.plan,
                        .d_k = kSwapped ? call.d_q : call.d_k,
                        .d_v = call.d_v,
                        .d_q = parts.d_q,
                        .key_bias = shape.key_bias,
                        .bias_partials = parts.bias_partials,
                        .scale = shape.scale};
  const auto map = [&](CUtensorMap& m, const TokenView& view, const Ragged& ragged, int box) {
    return make_tensor_map(m, view, ragged.total_tokens, shape.num_heads, T::kWidth, box, shape.element_type);
  };
  SCRNA_CUDA_TRY(map(params.k, kSwapped ? call.q : call.k, keys, kKeys));
  SCRNA_CUDA_TRY(map(params.v, kSwapped ? call.d_o : call.v, keys, kKeys));
  if (queries.total_tokens > 0) {
    SCRNA_CUDA_TRY(map(params.q, kSwapped ? call.k : call.q, queries, kQueries));
    SCRNA_CUDA_TRY(map(params.d_o, kSwapped ? call.v : call.d_o, queries, kQueries));
  }
  return launch_persistent(backward_kernel<T>, params, T::kThreads, sizeof(BackwardShared<T>),
                           max_tiles(shape, kSwapped, kKeys), stream);
}

template <class Element, int kWidth, SigmoidForm kForm, bool kBias>
cudaError_t launch(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  const Workspace parts = lay_out(workspace, call.shape);
  const Pass first = call.deterministic ? Pass::kKeys : Pass::kAll;
  if (first == Pass::kAll) {
    SCRNA_CUDA_TRY(
        (run_pass<BackwardTraits<Element, kWidth, kForm, kBias, Pass::kAll>>(call, parts, stream)));
    SCRNA_CUDA_TRY(round_query_gradient(parts.d_q, SumOrder::kByLane, call, stream));
  } else {
    SCRNA_CUDA_TRY(
        (run_pass<BackwardTraits<Element, kWidth, kForm, kBias, Pass::kKeys>>(call, parts, stream)));
  }
  if (kBias) SCRNA_CUDA_TRY(sum_bias_gradient(parts.plan, parts.bias_partials, call.d_cell_bias, stream));
  if (first == Pass::kAll) return cudaSuccess;
  return run_pass<BackwardTraits<Element, kWidth, kForm, false, Pass::kQueries>>(call, parts, stream);
}

template <class Element, int kWidth>
cudaError_t launch_form(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  const bool bias_gradient = call.d_cell_bias != nullptr;
  // With a key bias one exact form serves both precisions, as in the forward pass. At width 128 kSmall is the
  // fast one as long as weights are small, as -log(n) makes them (T = 8,192: 639 against 605 TFLOP/s).
  const bool is_small =
      kWidth == 128 && call.shape.bias_kind == BiasKind::kNegativeLogLength && !bias_gradient;
  if (call.shape.precision == SigmoidPrecision::kFast && call.shape.key_bias == nullptr && !is_small)
    return bias_gradient ? launch<Element, kWidth, SigmoidForm::kTanh, true>(call, workspace, stream)
                         : launch<Element, kWidth, SigmoidForm::kTanh, false>(call, workspace, stream);
  // kSmall and the bias gradient together do not fit the registers at width 128.
  constexpr SigmoidForm kWithBiasGradient = kWidth == 128 ? SigmoidForm::kReciprocal : SigmoidForm::kSmall;
  return bias_gradient ? launch<Element, kWidth, kWithBiasGradient, true>(call, workspace, stream)
                       : launch<Element, kWidth, SigmoidForm::kSmall, false>(call, workspace, stream);
}

template <class Element>
cudaError_t launch_width(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  return call.shape.head_width == 64 ? launch_form<Element, 64>(call, workspace, stream)
                                     : launch_form<Element, 128>(call, workspace, stream);
}

}  // namespace

size_t backward_sm90_workspace_bytes(const AttentionShape& shape) { return lay_out(nullptr, shape).bytes; }

cudaError_t backward_sm90(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  return call.shape.element_type == ElementType::kBFloat16
             ? launch_width<__nv_bfloat16>(call, workspace, stream)
             : launch_width<__half>(call, workspace, stream);
}

}  // namespace scrna::kernels
