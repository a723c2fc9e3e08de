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
// (measured).
//
// Nothing is masked: the weights are not normalised, so a key counts for nothing if its row of V is zero.
// Warp 1 zeroes the rows of K and V beyond the cell's length in the last block (K too, or NaN times zero
// would be NaN); rows of Q beyond it only reach rows of O that are not stored. Bytes moved: Q, K, V read and
// O written once, K and V again for each tile from L2.
#include "kernels/attention_plan.h"
#include "kernels/attention_sm90.h"
#include "kernels/attention_tuning.h"
#include "kernels/device/fragment.h"
#include "kernels/device/named_barrier.h"
#include "kernels/device/tma.h"
#include "kernels/device/wgmma.h"
#include "kernels/launch.h"
#include "kernels/tensor_map.h"

namespace scrna::kernels {
namespace {

using namespace device;

struct ForwardParams {
  CUtensorMap q, k, v;
  Plan plan;
  TokenView o;
  const float* key_bias;
  float scale;
};

template <class Element_, int kWidth_, SigmoidForm kForm_, bool kKeyBias_>
struct ForwardTraits : ForwardTuning<kWidth_> {
  using Element = Element_;
  using Tuning = ForwardTuning<kWidth_>;
  static constexpr int kWidth = kWidth_;
  static constexpr SigmoidForm kForm = kForm_;
  static constexpr bool kKeyBias = kKeyBias_;
  static constexpr int kQueries = 64 * Tuning::kWarpgroups;  // per tile
  static constexpr int kThreads = 128 * (Tuning::kWarpgroups + 1);
  static constexpr int kPanels = kWidth / 64;
  static constexpr int kTileBuffers = 2;
  static constexpr int kBlockBytes = Tuning::kKeys * kWidth * 2;  // of K or V
  static constexpr int kQueryBytes = kQueries * kWidth * 2;
};

struct ForwardTile {
  int num_blocks;  // of keys; -1: there are no more tiles
  int key_tail;    // keys of the last block
  int query_token;
  int key_token;
  int head;
  int num_valid;  // queries of this tile, may be <= 0
  int num_rows;   // rows to write
  float bias;     // premultiplied
};

template <class T>
struct ForwardShared {
  alignas(1024) typename T::Element q[T::kTileBuffers][T::kQueries * T::kWidth];
  alignas(1024) typename T::Element k[T::kStages][T::kKeys * T::kWidth];
  alignas(1024) typename T::Element v[T::kStages][T::kKeys * T::kWidth];
  alignas(
      16) float key_bias[T::kStages][T::kKeyBias ? T::kKeys : 4];  // premultiplied, the cell's bias included
  ForwardTile tile[T::kTileBuffers];
  Barrier q_full[T::kTileBuffers], q_empty[T::kTileBuffers];  // guard tile[] too
  Barrier k_full[T::kStages], k_empty[T::kStages], v_full[T::kStages], v_empty[T::kStages];
  Barrier k_tail[T::kStages], v_tail[T::kStages];  // loaded, not yet cleared

  __device__ void init() {
    for (int i = 0; i < T::kTileBuffers; ++i) {
      barrier_init(q_full[i], 1);
      barrier_init(q_empty[i],
                   T::kWarpgroups + (T::kKeyBias ? 2 : 1));  // consumers, clearing warp, key bias warp
    }
    for (int i = 0; i < T::kStages; ++i) {
      barrier_init(k_full[i], T::kKeyBias ? 2 : 1);
      barrier_init(v_full[i], 1);
      barrier_init(k_empty[i],
                   T::kWarpgroups * (T::kKeyBias ? 4 : 1));  // with key bias every warp reads by itself
      barrier_init(v_empty[i], T::kWarpgroups);
      barrier_init(k_tail[i], 1);
      barrier_init(v_tail[i], 1);
    }
    fence_barrier_init();
  }
};

/// Warp 0: draws tiles, loads Q once per tile and K and V block by block.
template <class T>
__device__ void produce(const ForwardParams& params, ForwardShared<T>& shared) {
  const bool issues = threadIdx.x % 32 == 0;
  wait_for_previous_kernel();
  TileDrawer<T::kQueries> drawer(params.plan);
  Ring<T::kTileBuffers> slot;
  Ring<T::kStages> ring;
  for (;; slot.advance()) {
    const DrawnTile drawn = drawer.draw();
    if (issues) {
      wait(shared.q_empty[slot.index], slot.phase ^ 1);
      ForwardTile& tile = shared.tile[slot.index];
      if (drawn.cell == nullptr) {
        tile.num_blocks = -1;
        arrive(shared.q_full[slot.index]);
        return;
      }
      const PlannedCell& cell = *drawn.cell;
      const int first = drawn.number_in_head * T::kQueries;
      const int num_blocks = first < cell.tile_length ? (cell.loop_length + T::kKeys - 1) / T::kKeys : 0;
      const int key_tail = cell.loop_length - (num_blocks - 1) * T::kKeys;
      const int query_token = cell.tile_token + first;
      const int key_token = cell.loop_token;
      tile = {.num_blocks = num_blocks,
              .key_tail = key_tail,
              .query_token = query_token,
              .key_token = key_token,
              .head = drawn.head,
              .num_valid = cell.tile_length - first,
              .num_rows = cell.tile_rows - first,
              .bias = cell.bias * kSigmoidFactor<T::kForm>};
      if (num_blocks == 0) {
        arrive(shared.q_full[slot.index]);
      } else {
        arrive_expecting(shared.q_full[slot.index], T::kQueryBytes);
        for (int panel = 0; panel < T::kPanels; ++panel)
          load_box(&shared.q[slot.index][panel * T::kQueries * 64], params.q, shared.q_full[slot.index],
                   panel * 64, query_token, drawn.head);
      }
      for (int block = 0; block < num_blocks; ++block, ring.advance()) {
        const int stage = ring.index;
        const int token = key_token + block * T::kKeys;
        const bool tail = block == num_blocks - 1 && key_tail < T::kKeys;
        const auto load = [&](auto& buffer, const CUtensorMap& map, Barrier& empty, Barrier& full) {
          wait(empty, ring.phase ^ 1);
          arrive_expecting(full, T::kBlockBytes);
          for (int panel = 0; panel < T::kPanels; ++panel)
            load_box(&buffer[panel * T::kKeys * 64], map, full, panel * 64, token, drawn.head);
        };
        load(shared.k[stage], params.k, shared.k_empty[stage],
             tail ? shared.k_tail[stage] : shared.k_full[stage]);
        load(shared.v[stage], params.v, shared.v_empty[stage],
             tail ? shared.v_tail[stage] : shared.v_full[stage]);
      }
    } else if (drawn.cell == nullptr) {
      return;
    }
    __syncwarp();
  }
}

/// Warp 1: zeroes the rows of the last block that belong to no key, then hands the block to the consumers.
template <class T>
__device__ void clear_tails(ForwardShared<T>& shared) {
  const int lane = threadIdx.x % 32;
  Ring<T::kTileBuffers> slot;
  uint32_t tail_phases = 0;  // one bit per stage
  int stage = 0;
  for (;; slot.advance()) {
    wait(shared.q_full[slot.index], slot.phase);
    const int num_blocks = shared.tile[slot.index].num_blocks;
    const int key_tail = shared.tile[slot.index].key_tail;
    __syncwarp();
    if (num_blocks < 0) return;
    if (lane == 0) arrive(shared.q_empty[slot.index]);
    if (num_blocks == 0) continue;
    const int last = (stage + num_blocks - 1) % T::kStages;
    stage = (last + 1) % T::kStages;
    if (key_tail == T::kKeys) continue;
    const uint32_t phase = (tail_phases >> last) & 1;
    tail_phases ^= 1U << last;
    const auto clear = [&](typename T::Element* buffer, Barrier& loaded, Barrier& full) {
      wait(loaded, phase);
      for (int panel = 0; panel < T::kPanels; ++panel) {
        auto* rows = reinterpret_cast<uint4*>(buffer + panel * T::kKeys * 64);
        for (int piece = key_tail * 8 + lane; piece < T::kKeys * 8; piece += 32)
          rows[piece] = make_uint4(0, 0, 0, 0);
      }
      fence_async_proxy();
      __syncwarp();
      if (lane == 0) arrive(full);
    };
    clear(shared.k[last], shared.k_tail[last], shared.k_full[last]);
    clear(shared.v[last], shared.v_tail[last], shared.v_full[last]);
  }
}

/// Warp 2, with a key bias: the bias of each block's keys beside the block itself.
template <class T>
__device__ void stage_key_bias(const ForwardParams& params, ForwardShared<T>& shared) {
  const int lane = threadIdx.x % 32;
  Ring<T::kTileBuffers> slot;
  Ring<T::kStages> ring;
  for (;; slot.advance()) {
    wait(shared.q_full[slot.index], slot.phase);
    const ForwardTile tile = shared.tile[slot.index];
    __syncwarp();
    if (tile.num_blocks < 0) return;
    if (lane == 0) arrive(shared.q_empty[slot.index]);
    for (int block = 0; block < tile.num_blocks; ++block, ring.advance()) {
      const int num_keys = block == tile.num_blocks - 1 ? tile.key_tail : T::kKeys;
      const float* bias = params.key_bias + tile.key_token + block * T::kKeys;
      wait(shared.k_empty[ring.index], ring.phase ^ 1);
      for (int key = lane; key < T::kKeys; key += 32)
        shared.key_bias[ring.index][key] =
            key < num_keys ? fmaf(bias[key], kSigmoidFactor<T::kForm>, tile.bias) : 0.0F;
      __syncwarp();
      if (lane == 0) arrive(shared.k_full[ring.index]);
    }
  }
}

/// One warpgroup: 64 queries of every tile.
template <class T>
class ForwardConsumer {
 public:
  static constexpr int kScores = T::kKeys / 2;  // per thread

  __device__ __forceinline__ ForwardConsumer(const ForwardParams& params, ForwardShared<T>& shared, int group)
      : shared_(shared),
        group_(group),
        leads_(threadIdx.x % 128 == 0),
        scale_(params.scale * kSigmoidFactor<T::kForm>),
        q_(panel_descriptor(shared.q[0]) + (group * 64 * 128 >> 4)),
        k_(panel_descriptor(shared.k[0])),
        v_(panel_descriptor(shared.v[0], T::kKeys * 128)) {}

  __device__ __forceinline__ void run(const ForwardParams& params) {
    Ring<T::kTileBuffers> slot;
    for (;; slot.advance()) {
      wait(shared_.q_full[slot.index], slot.phase);
      const ForwardTile tile = shared_.tile[slot.index];
      if (tile.num_blocks < 0) return;
      const bool has_work = tile.num_blocks > 0 && group_ * 64 < tile.num_valid;
#pragma unroll
      for (int i = 0; i < T::kWidth / 2; ++i) o_[i] = 0.0F;
      if (has_work)
        attend(tile, slot.index);
      else
        skip(tile.num_blocks);
      // All four warps have read the tile and Q: products are issued by the whole warpgroup, and skip()
      // synchronises.
      if (leads_) arrive(shared_.q_empty[slot.index]);
      store(params, tile, has_work);
    }
  }

 private:
  /// Blocks that the other warpgroups need and this one does not. Only warps whose arrival is counted may
  /// wait for a block: nothing else keeps the producer from running two phases ahead of a slow one, which
  /// would then wait forever.
  __device__ __forceinline__ void skip(int num_blocks) {
    const bool first_warp = threadIdx.x % 128 < 32;
    if (first_warp || T::kKeyBias) {
      Ring<T::kStages> k = k_ring_;
      Ring<T::kStages> v = v_ring_;
      for (int block = 0; block < num_blocks; ++block, k.advance(), v.advance()) {
        wait(shared_.k_full[k.index], k.phase);
        release_keys(k.index);
        if (!first_warp) continue;
        wait(shared_.v_full[v.index], v.phase);
        __syncwarp();
        if (leads_) arrive(shared_.v_empty[v.index]);
      }
    }
    // Outside of the branch, which not all warps take: the positions must stay in uniform registers.
    k_ring_.advance(num_blocks);
    v_ring_.advance(num_blocks);
    named_sync(1 + group_, 128);
  }

  __device__ __forceinline__ void attend(const ForwardTile& tile, int slot) {
    float first[kScores], second[kScores];  // scores of two blocks
    bias_ = tile.bias;
    q_tile_ = q_ + slot * (T::kQueryBytes >> 4);
    if constexpr (T::kQueryInRegisters) {
#pragma unroll
      for (int step = 0; step < T::kWidth / 16; ++step)
        load_tiles(shared_address(shared_.q[slot]) + (step / 4) * T::kQueries * 128 +
                       tile_offset(group_ * 64 + threadIdx.x % 128 / 32 * 16, step % 4),
                   &q_fragment_[4 * step]);
    }
    issue_scores(first);
    products_wait<0>();
    pin(first);
    weigh(first);
    round(first);
    int left = tile.num_blocks - 1;  // blocks whose weights are not formed yet
    if (left > 0) {
      issue_scores(second);
      products_wait<0>();
      pin(second);
      if constexpr (!T::kKeyBias) release_keys(scored_);
      // Every step forms the weights of one block and issues the scores of the next.
      while (left > kForwardBodySteps) {
        step<false, true>(second, first);
#pragma unroll
        for (int i = 0; i < kForwardBodySteps / 2 - 1; ++i) {
          step<true, true>(first, second);
          step<true, true>(second, first);
        }
        step<true, false>(first, second);
        left -= kForwardBodySteps;
      }
      while (left > 2) {
        step<false, true>(second, first);
        step<true, false>(first, second);
        left -= 2;
      }
      if (left == 2) {
        step<false, false>(second, first);
        last_step(first);
      } else {
        last_step(second);
      }
    }
    issue_output();
    products_wait<0>();
    pin(o_);
    release_values();
  }

  /// P(j) is rounded, S(j + 1) is in `current` (or still in flight there). Leaves P(j + 1) rounded and S(j +
  /// 2) in `next`.
  template <bool kInFlight, bool kLeaveInFlight>
  __device__ __forceinline__ void step(float (&current)[kScores], float (&next)[kScores]) {
    issue_output();
    if constexpr (kInFlight) {
      products_wait<1>();
      pin(current);
      if constexpr (!T::kKeyBias) release_keys(scored_);
    }
    const int stage = scored_;
    issue_scores(next);
    weigh(current, stage);
    pin(current);
    products_wait<kLeaveInFlight ? 1 : 0>();
    if constexpr (!kLeaveInFlight) {
      pin(next);
      if constexpr (!T::kKeyBias) release_keys(scored_);
    }
    pin(o_);
    pin(p_);
    release_values();
    round(current);
  }

  /// The same without a block after it.
  __device__ __forceinline__ void last_step(float (&current)[kScores]) {
    issue_output();
    weigh(current, scored_);
    products_wait<0>();
    pin(o_);
    pin(p_);
    release_values();
    round(current);
  }

  /// S = Q K^T of the next block of keys.
  __device__ __forceinline__ void issue_scores(float (&s)[kScores]) {
    wait(shared_.k_full[k_ring_.index], k_ring_.phase);
    scored_ = k_ring_.index;
    const uint64_t k = k_ + scored_ * (T::kBlockBytes >> 4);
    k_ring_.advance();
    pin(s);
    products_begin();
#pragma unroll
    for (int step = 0; step < T::kWidth / 16; ++step) {
      const int panel = step / 4;
      const int column_bytes = step % 4 * 32;
      const uint64_t k_step = k + ((panel * T::kKeys * 128 + column_bytes) >> 4);
      using Scores = Product<typename T::Element, T::kKeys, Major::kInner, Major::kInner>;
      if constexpr (T::kQueryInRegisters)
        Scores::registers(s, &q_fragment_[4 * step], k_step, step != 0);
      else
        Scores::shared(s, q_tile_ + ((panel * T::kQueries * 128 + column_bytes) >> 4), k_step, step != 0);
    }
    products_commit();
  }

  /// O += P V of the block whose weights are rounded.
  __device__ __forceinline__ void issue_output() {
    wait(shared_.v_full[v_ring_.index], v_ring_.phase);
    const uint64_t v = v_ + v_ring_.index * (T::kBlockBytes >> 4);
    pin(p_);
    pin(o_);
    products_begin();
#pragma unroll
    for (int step = 0; step < T::kKeys / 16; ++step)
      Product<typename T::Element, T::kWidth, Major::kInner, Major::kOuter>::registers(
          o_, &p_[4 * step], v + (step * 2048 >> 4), 1);
    products_commit();
  }

  __device__ __forceinline__ void weigh(float (&s)[kScores], int stage) {
    if constexpr (T::kKeyBias) {
      const float* bias = shared_.key_bias[stage] + 2 * (threadIdx.x % 4);
      sigmoid<T::kForm>(s, scale_, [&](int i) {
        const float2 pair = *reinterpret_cast<const float2*>(bias + i / 4 * 8);
        return i % 2 == 0 ? pair.x : pair.y;
      });
      release_keys(stage);
    } else {
      sigmoid<T::kForm>(s, scale_, [this](int) { return bias_; });
    }
  }

  __device__ __forceinline__ void weigh(float (&s)[kScores]) {
    if constexpr (!T::kKeyBias) release_keys(scored_);
    weigh(s, scored_);
  }

  __device__ __forceinline__ void round(const float (&s)[kScores]) {
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) p_[i] = pack<typename T::Element>(s[2 * i], s[2 * i + 1]);
  }

  /// In attend() the products, which a warpgroup issues together, keep its warps in step.
  __device__ __forceinline__ void release_keys(int stage) {
    if constexpr (T::kKeyBias) {
      __syncwarp();
      if (threadIdx.x % 32 == 0) arrive(shared_.k_empty[stage]);
    } else if (leads_) {
      arrive(shared_.k_empty[stage]);
    }
  }

  __device__ __forceinline__ void release_values() {
    if (leads_) arrive(shared_.v_empty[v_ring_.index]);
    v_ring_.advance();
  }

  __device__ __forceinline__ void store(const ForwardParams& params, const ForwardTile& tile, bool has_work) {
    const int row = group_ * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    auto* out = static_cast<typename T::Element*>(params.o.data) +
                (tile.query_token + row) * params.o.token_stride + tile.head * params.o.head_stride;
    store_rows<typename T::Element, T::kWidth>(out, params.o.token_stride, o_, 1.0F,
                                               has_work ? tile.num_valid - row : 0, tile.num_rows - row);
  }

  ForwardShared<T>& shared_;
  const int group_;
  const bool leads_;
  const float scale_;
  float bias_ = 0.0F;
  const uint64_t q_, k_, v_;
  uint64_t q_tile_ = 0;
  Ring<T::kStages> k_ring_, v_ring_;
  int scored_ = 0;  // stage of the newest scores
  float o_[T::kWidth / 2];
  uint32_t p_[T::kKeys / 4];
  uint32_t q_fragment_[T::kQueryInRegisters ? T::kWidth / 4 : 1];
};

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
  // With a key bias one exact form serves both precisions: kReciprocal gives weights of exactly zero where
  // the bias is minus infinity, and the tanh form does not fit the registers at width 64.
  if (call.shape.key_bias != nullptr)
    return launch<Element, kWidth, SigmoidForm::kReciprocal, true>(call, workspace, stream);
  return call.shape.precision == SigmoidPrecision::kFast
             ? launch<Element, kWidth, SigmoidForm::kTanh, false>(call, workspace, stream)
             : launch<Element, kWidth, ForwardTuning<kWidth>::kExactForm, false>(call, workspace, stream);
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
