// Sigmoid attention forward for Hopper: O = sigmoid(scale Q K^T + bias [+ key bias]) V.
//
// One persistent block per multiprocessor draws tiles of 192 (K = 64) or 128 (K = 128) queries of one cell
// and head (attention_plan.h). Warpgroup 0 produces: warp 0 issues all loads, warp 1 clears what must not be
// seen, warp 2 stages the key bias. The other warpgroups own 64 queries each and never wait for one another.
// In each of them
//
//   tensor cores   | PV(j)   QK(j+2)        | PV(j+1) QK(j+3)        |
//   sigmoid        |        sigma(S(j+1))   |        sigma(S(j+2))   |
//
// so a whole block of matrix work is queued behind the one that is waited for; the products and the sigmoid
// otherwise take turns, because issuing a product blocks until the tensor cores have nearly caught up
// (measured). Rounded weights have two sets of registers, too: rounding P(j + 1) need not wait for P(j) V(j)
// (one set: 543 instead of 595 TFLOP/s at K = 64, T = 8,192).
//
// Nothing is masked: the weights are not normalised, so a key counts for nothing if its row of V is zero.
// Warp 1 zeroes the rows of K and V beyond the cell's length in the last block (K too, or NaN times zero
// would be NaN); rows of Q beyond it only reach rows of O that are not stored. Bytes moved: Q, K, V read and
// O written once, K and V again for each tile from L2.
#include "kernels/attention_forward_consume.h"
#include "kernels/attention_forward_load.h"
#include "kernels/attention_sm90.h"
#include "kernels/launch.h"
#include "kernels/tensor_map.h"

namespace scrna::kernels {
namespace {

using namespace sm90;

template <class T>
__global__ void __launch_bounds__(T::kThreads, 1)
    forward_kernel(const __grid_constant__ ForwardParams params) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& shared = *reinterpret_cast<ForwardShared<T>*>(memory);
  static_assert(sizeof(ForwardShared<T>) <= kMaxSharedBytes);
  const int warp = __shfl_sync(~0U, threadIdx.x / 32, 0);  // the same in all lanes, and the compiler knows
  if (threadIdx.x == 0) shared.init();
  __syncthreads();
  if (warp < 4) {
    lower_registers<T::kProducerRegisters>();
    if (warp == 0)
      produce<T>(params, shared);
    else if (warp == 1)
      clear_tails<T>(shared);
    else if (T::kKeyBias && warp == 2)
      stage_key_bias<T>(params, shared);
  } else {
    raise_registers<T::kConsumerRegisters>();
    ForwardConsumer<T>(params, shared, warp / 4 - 1).run(params);
  }
}

template <class Element, int kWidth, SigmoidForm kForm, bool kKeyBias>
cudaError_t launch(const AttentionForward& call, void* workspace, cudaStream_t stream) {
  using T = ForwardTraits<Element, kWidth, kForm, kKeyBias>;
  const AttentionShape& shape = call.shape;
  ForwardParams params{.q = {},
                       .k = {},
                       .v = {},
                       .plan = plan_in(workspace, shape),
                       .o = call.o,
                       .key_bias = shape.key_bias,
                       .scale = shape.scale};
  const auto map = [&](CUtensorMap& m, const TokenView& view, const Ragged& ragged, int box) {
    return make_tensor_map(m, view, ragged.total_tokens, shape.num_heads, kWidth, box, shape.element_type);
  };
  SCRNA_CUDA_TRY(map(params.q, call.q, shape.query, T::kQueries));
  if (shape.key.total_tokens > 0) {
    SCRNA_CUDA_TRY(map(params.k, call.k, shape.key, T::kKeys));
    SCRNA_CUDA_TRY(map(params.v, call.v, shape.key, T::kKeys));
  }
  SCRNA_CUDA_TRY(
      make_plan(params.plan, {.shape = &shape, .tile_queries = true, .tile_tokens = T::kQueries}, stream));
  return launch_persistent(forward_kernel<T>, params, T::kThreads, sizeof(ForwardShared<T>),
                           max_tiles(shape, true, T::kQueries), stream);
}

template <class Element, int kWidth>
cudaError_t launch_form(const AttentionForward& call, void* workspace, cudaStream_t stream) {
  // With a key bias one exact form serves both precisions: the tanh form does not fit the registers at
  // width 64.
  if (call.shape.key_bias != nullptr)
    return launch<Element, kWidth, SigmoidForm::kSmall, true>(call, workspace, stream);
  return call.shape.precision == SigmoidPrecision::kFast
             ? launch<Element, kWidth, SigmoidForm::kTanh, false>(call, workspace, stream)
             : launch<Element, kWidth, SigmoidForm::kSmall, false>(call, workspace, stream);
}

template <class Element>
cudaError_t launch_width(const AttentionForward& call, void* workspace, cudaStream_t stream) {
  return call.shape.head_width == 64 ? launch_form<Element, 64>(call, workspace, stream)
                                     : launch_form<Element, 128>(call, workspace, stream);
}

}  // namespace

size_t forward_sm90_workspace_bytes(const AttentionShape& shape) { return plan_bytes(shape); }

cudaError_t forward_sm90(const AttentionForward& call, void* workspace, cudaStream_t stream) {
  return call.shape.element_type == ElementType::kBFloat16
             ? launch_width<__nv_bfloat16>(call, workspace, stream)
             : launch_width<__half>(call, workspace, stream);
}

}  // namespace scrna::kernels
