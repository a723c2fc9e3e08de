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
#include "kernels/attention_backward_finish.h"
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

constexpr int kKeys = 128;             // per tile
constexpr int kQueries = 64;           // per block of the loop
constexpr int kScoreBuffers = 2;       // of dS; three: equal
constexpr int kPieceFloats = 64 * 64;  // of dQ
static_assert(kQueries == QueryGradient::kRows && kPieceFloats == QueryGradient::kPieceFloats);

// Named barriers, one per buffer of dS, one of the dQ group, one per key group.
enum NamedBarrier : int { kScoresReady = 1, kQueryBarrier = kScoresReady + kScoreBuffers, kKeyBarrier };

struct BackwardParams {
  CUtensorMap q, k, v, d_o;
  Plan plan;
  TokenView d_k, d_v;
  QueryGradient d_q;
  const float* key_bias;
  float* bias_partials;  // [tiles, 8 warps]; null: not wanted
  float scale;
};

/// What one pass computes. kQueries: dQ as "dK" of a problem in which q and k, d_o and v are exchanged;
/// below, its keys are called queries and the other way round.
enum class Pass : uint8_t { kAll, kKeys, kQueries };

template <class Element_, int kWidth_, SigmoidForm kForm_, bool kBiasGradient_, Pass kPass_>
struct BackwardTraits : BackwardTuning<kWidth_> {
  using Element = Element_;
  using Tuning = BackwardTuning<kWidth_>;
  static constexpr int kWidth = kWidth_;
  static constexpr SigmoidForm kForm = kForm_;
  static constexpr bool kBiasGradient = kBiasGradient_;
  static constexpr Pass kPass = kPass_;
  static constexpr bool kQueryGroup = kPass == Pass::kAll;  // warpgroup 3 works
  static constexpr bool kValues = kPass != Pass::kQueries;  // dV is wanted
  static constexpr int kThreads = kQueryGroup ? 512 : 384;
  // Without warpgroup 3 there are registers in plenty.
  static constexpr int kKeyRegisters = kQueryGroup ? Tuning::kKeyRegisters : 232;
  static constexpr int kProducerRegisters = kQueryGroup ? Tuning::kProducerRegisters : 40;
  static constexpr bool kKeepWeights = Tuning::kKeepWeights || kPass == Pass::kQueries;
  static constexpr int kPanels = kWidth / 64;
  static constexpr int kKeyBytes = kKeys * kWidth * 2;       // K or V of a tile
  static constexpr int kQueryBytes = kQueries * kWidth * 2;  // Q or dO of a block
};

struct BackwardTile {
  int num_blocks;  // of queries; -1: there are no more tiles
  int query_tail;  // queries of the last block
  int key_token;
  int query_token;
  int num_valid;  // keys of this tile, may be <= 0
  int num_rows;   // rows to write
  int head;
  int query_block;  // index of the first one in the workspace of dQ
  int number;       // in the plan
  float bias;
};

template <class T>
struct BackwardShared {
  alignas(1024) typename T::Element k[T::kKeyBuffers][kKeys * T::kWidth];
  alignas(1024) typename T::Element v[T::kKeyBuffers][kKeys * T::kWidth];
  alignas(1024) typename T::Element q[T::kStages][kQueries * T::kWidth];
  alignas(1024) typename T::Element d_o[T::kStages][kQueries * T::kWidth];
  alignas(1024) typename T::Element d_s[kScoreBuffers][T::kQueryGroup ? kKeys * kQueries : 8];
  alignas(1024) float pieces[2][T::kQueryGroup ? kPieceFloats : 4];
  BackwardTile tile[T::kKeyBuffers];
  Barrier keys_full[T::kKeyBuffers], keys_empty[T::kKeyBuffers];  // guard K, V and tile[]
  Barrier q_full[T::kStages], q_empty[T::kStages], d_o_full[T::kStages], d_o_empty[T::kStages];
  Barrier d_s_empty[kScoreBuffers];
  Barrier keys_loaded[T::kKeyBuffers], queries_tail[T::kStages];  // not yet cleared

  __device__ void init() {
    for (int i = 0; i < T::kKeyBuffers; ++i) {
      barrier_init(keys_full[i], 1);
      barrier_init(keys_empty[i], T::kQueryGroup ? 4 : 3);  // computing warpgroups and the clearing warp
      barrier_init(keys_loaded[i], 1);
    }
    for (int i = 0; i < T::kStages; ++i) {
      barrier_init(q_full[i], 1);
      barrier_init(d_o_full[i], 1);
      barrier_init(q_empty[i], 2);
      barrier_init(d_o_empty[i], 2);
      barrier_init(queries_tail[i], 1);
    }
    for (int i = 0; i < kScoreBuffers; ++i) barrier_init(d_s_empty[i], 1);
    fence_barrier_init();
  }
};

/// Warp 0: draws tiles, loads K and V once per tile, Q and dO block by block.
template <class T>
__device__ void produce(const BackwardParams& params, BackwardShared<T>& shared) {
  const bool issues = threadIdx.x % 32 == 0;
  wait_for_previous_kernel();
  TileDrawer<kKeys> drawer(params.plan);
  Ring<T::kKeyBuffers> slot;
  Ring<T::kStages> ring;
  for (;; slot.advance()) {
    const DrawnTile drawn = drawer.draw();
    if (issues) {
      wait(shared.keys_empty[slot.index], slot.phase ^ 1);
      BackwardTile& tile = shared.tile[slot.index];
      if (drawn.cell == nullptr) {
        tile.num_blocks = -1;
        arrive(shared.keys_loaded[slot.index]);
        return;
      }
      const PlannedCell& cell = *drawn.cell;
      const int first = drawn.number_in_head * kKeys;
      const int num_blocks = first < cell.tile_length ? (cell.loop_length + kQueries - 1) / kQueries : 0;
      const int query_tail = cell.loop_length - (num_blocks - 1) * kQueries;
      const int key_token = cell.tile_token + first;
      const int query_token = cell.loop_token;
      tile = {.num_blocks = num_blocks,
              .query_tail = query_tail,
              .key_token = key_token,
              .query_token = query_token,
              .num_valid = cell.tile_length - first,
              .num_rows = cell.tile_rows - first,
              .head = drawn.head,
              .query_block = params.d_q.first_block(query_token, cell.cell),
              .number = drawn.number,
              .bias = cell.bias};
      Barrier& loaded = shared.keys_loaded[slot.index];
      // Every tile passes through the clearing warp, which hands it on.
      if (num_blocks == 0) {
        arrive(loaded);
      } else {
        arrive_expecting(loaded, 2 * T::kKeyBytes);
        for (int panel = 0; panel < T::kPanels; ++panel) {
          load_box(&shared.k[slot.index][panel * kKeys * 64], params.k, loaded, panel * 64, key_token,
                   drawn.head);
          load_box(&shared.v[slot.index][panel * kKeys * 64], params.v, loaded, panel * 64, key_token,
                   drawn.head);
        }
      }
#pragma unroll 1
      for (int block = 0; block < num_blocks; ++block, ring.advance()) {
        const int stage = ring.index;
        const int token = query_token + block * kQueries;
        const bool tail = block == num_blocks - 1 && query_tail < kQueries;
        const auto load = [&](auto& buffer, const CUtensorMap& map, Barrier& full) {
#pragma unroll 1
          for (int panel = 0; panel < T::kPanels; ++panel)
            load_box(&buffer[panel * kQueries * 64], map, full, panel * 64, token, drawn.head);
        };
        wait(shared.q_empty[stage], ring.phase ^ 1);
        Barrier& q_full = tail ? shared.queries_tail[stage] : shared.q_full[stage];
        arrive_expecting(q_full, tail ? 2 * T::kQueryBytes : T::kQueryBytes);
        load(shared.q[stage], params.q, q_full);
        wait(shared.d_o_empty[stage], ring.phase ^ 1);
        Barrier& d_o_full = tail ? shared.queries_tail[stage] : shared.d_o_full[stage];
        if (!tail) arrive_expecting(d_o_full, T::kQueryBytes);
        load(shared.d_o[stage], params.d_o, d_o_full);
      }
    } else if (drawn.cell == nullptr) {
      return;
    }
    __syncwarp();
  }
}

/// Warp 1: zeroes rows of K and V that belong to no key, of Q and dO that belong to no query, and hands the
/// tiles on.
template <class T>
__device__ void clear_tails(BackwardShared<T>& shared) {
  const int lane = threadIdx.x % 32;
  const auto clear = [lane](typename T::Element* buffer, int first_row, int num_rows) {
    for (int panel = 0; panel < T::kPanels; ++panel) {
      auto* rows = reinterpret_cast<uint4*>(buffer + panel * num_rows * 64);
      for (int piece = first_row * 8 + lane; piece < num_rows * 8; piece += 32)
        rows[piece] = make_uint4(0, 0, 0, 0);
    }
  };
  Ring<T::kKeyBuffers> slot;
  uint32_t tail_phases = 0;  // one bit per stage
  int stage = 0;
  for (;; slot.advance()) {
    wait(shared.keys_loaded[slot.index], slot.phase);
    const int num_blocks = shared.tile[slot.index].num_blocks;
    const int query_tail = shared.tile[slot.index].query_tail;
    const int num_valid = shared.tile[slot.index].num_valid;
    if (num_blocks > 0 && num_valid < kKeys) {
      clear(shared.k[slot.index], num_valid, kKeys);
      clear(shared.v[slot.index], num_valid, kKeys);
      fence_async_proxy();
    }
    __syncwarp();
    if (lane == 0) {
      arrive(shared.keys_full[slot.index]);
      arrive(shared.keys_empty[slot.index]);
    }
    if (num_blocks < 0) return;
    if (num_blocks == 0) continue;
    const int last = (stage + num_blocks - 1) % T::kStages;
    stage = (last + 1) % T::kStages;
    if (query_tail == kQueries) continue;
    wait(shared.queries_tail[last], (tail_phases >> last) & 1);
    tail_phases ^= 1U << last;
    clear(shared.q[last], query_tail, kQueries);
    clear(shared.d_o[last], query_tail, kQueries);
    fence_async_proxy();
    __syncwarp();
    if (lane == 0) {
      arrive(shared.q_full[last]);
      arrive(shared.d_o_full[last]);
    }
  }
}

/// Warpgroup 3: dQ += dS K.
template <class T>
__device__ __forceinline__ void add_query_gradients(const BackwardParams& params, BackwardShared<T>& shared) {
  const int thread = threadIdx.x % 128;
  const bool leads = thread == 0;
  const uint64_t d_s = panel_descriptor(shared.d_s[0], kKeys * 128);
  const uint64_t k = panel_descriptor(shared.k[0], kKeys * 128);
  Ring<T::kKeyBuffers> slot;
  Ring<kScoreBuffers> scores;
  int piece_buffer = 0;
  for (;; slot.advance()) {
    wait(shared.keys_full[slot.index], slot.phase);
    const BackwardTile& tile = shared.tile[slot.index];
    const int num_blocks = tile.num_blocks;
    if (num_blocks < 0) break;
    float* piece = params.d_q.piece(tile.query_block, tile.head, 0);
    if (num_blocks == 0) named_sync(kQueryBarrier, 128);  // all have read the tile
    for (int block = 0; block < num_blocks; ++block, scores.advance()) {
      named_sync(kScoresReady + scores.index, 384);
#pragma unroll
      for (int panel = 0; panel < T::kPanels; ++panel) {
        float d_q[32];
        pin(d_q);
        products_begin();
#pragma unroll
        for (int step = 0; step < kKeys / 16; ++step)
          Product<typename T::Element, 64, Major::kOuter, Major::kOuter>::shared(
              d_q, d_s + ((scores.index * kKeys * kQueries * 2 + step * 2048) >> 4),
              k + ((slot.index * T::kKeyBytes + panel * kKeys * 128 + step * 2048) >> 4), step != 0);
        products_commit();
        if (leads) bulk_wait_read<1>();
        products_wait<0>();
        pin(d_q);
        if (leads && panel == T::kPanels - 1) arrive(shared.d_s_empty[scores.index]);
        named_sync(kQueryBarrier, 128);  // the buffer of two pieces ago has been read
        float* staged = shared.pieces[piece_buffer];
#pragma unroll
        for (int i = 0; i < 8; ++i)
          *reinterpret_cast<float4*>(staged + QueryGradient::offset(i, thread)) =
              make_float4(d_q[4 * i], d_q[4 * i + 1], d_q[4 * i + 2], d_q[4 * i + 3]);
        fence_async_proxy();
        named_sync(kQueryBarrier, 128);
        if (leads) {
          bulk_add(piece + panel * kPieceFloats, staged, kPieceFloats * sizeof(float));
          bulk_commit();
        }
        piece_buffer ^= 1;
      }
      piece += params.d_q.block_stride();
    }
    if (leads) arrive(shared.keys_empty[slot.index]);
  }
  if (leads) bulk_wait<0>();
}

/// Warpgroups 1 and 2: 64 keys each.
template <class T>
class KeyGroup {
 public:
  static constexpr int kScores = kQueries / 2;  // per thread

  __device__ __forceinline__ KeyGroup(const BackwardParams& params, BackwardShared<T>& shared, int group)
      : shared_(shared),
        group_(group),
        leads_(threadIdx.x % 128 == 0),
        scale_(params.scale * kSigmoidFactor<T::kForm>),
        k_(panel_descriptor(shared.k[0]) + (group * 64 * 128 >> 4)),
        v_(panel_descriptor(shared.v[0]) + (group * 64 * 128 >> 4)),
        q_(panel_descriptor(shared.q[0], kQueries * 128)),
        d_o_(panel_descriptor(shared.d_o[0], kQueries * 128)),
        d_s_address_(shared_address(shared.d_s[0]) +
                     tile_offset(group * 64 + threadIdx.x % 128 / 32 * 16, 0)) {}

  __device__ __forceinline__ void run(const BackwardParams& params) {
    const int row = group_ * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;  // and row + 8
    Ring<T::kKeyBuffers> slot;
    for (;; slot.advance()) {
      wait(shared_.keys_full[slot.index], slot.phase);
      const BackwardTile& tile = shared_.tile[slot.index];
      const int num_blocks = tile.num_blocks;
      if (num_blocks < 0) return;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool biased = T::kValues && params.key_bias != nullptr && row + 8 * half < tile.num_valid;
        const float key_bias = biased ? params.key_bias[tile.key_token + row + 8 * half] : 0.0F;
        bias_[half] = (tile.bias + key_bias) * kSigmoidFactor<T::kForm>;
      }
#pragma unroll
      for (int i = 0; i < T::kWidth / 2; ++i) d_k_[i] = 0.0F;
#pragma unroll
      for (int i = 0; T::kValues && i < T::kWidth / 2; ++i) d_v_[i] = 0.0F;
      bias_gradient_ = 0.0F;
      if constexpr (!T::kValues) {
        column_bias_ = params.key_bias == nullptr ? nullptr : params.key_bias + tile.query_token;
        columns_left_ = (num_blocks - 1) * kQueries + tile.query_tail;
      }
      if (num_blocks > 0) attend(num_blocks, slot.index);
      const int64_t token = tile.key_token + row;
      const int head = tile.head;
      const int num_valid = num_blocks > 0 ? tile.num_valid - row : 0;
      const int num_rows = tile.num_rows - row;
      const int number = tile.number;
      named_sync(kKeyBarrier + group_, 128);  // all have read the tile
      if (leads_) arrive(shared_.keys_empty[slot.index]);
      const auto store = [&](const TokenView& view, const float(&gradient)[T::kWidth / 2], float factor) {
        auto* out = static_cast<typename T::Element*>(view.data) + token * view.token_stride +
                    head * view.head_stride;
        store_rows<typename T::Element, T::kWidth>(out, view.token_stride, gradient, factor, num_valid,
                                                   num_rows);
      };
      store(params.d_k, d_k_, params.scale);
      if constexpr (T::kValues) store(params.d_v, d_v_, 1.0F);
      if constexpr (T::kBiasGradient) {
        for (int step = 16; step > 0; step /= 2) bias_gradient_ += __shfl_xor_sync(~0U, bias_gradient_, step);
        if (threadIdx.x % 32 == 0)
          params.bias_partials[int64_t{number} * kBiasPartialsPerTile + threadIdx.x / 32 - 4] =
              bias_gradient_;
      }
    }
  }

 private:
  __device__ __forceinline__ void attend(int num_blocks, int slot) {
    const uint64_t k = k_ + slot * (T::kKeyBytes >> 4);
    const uint64_t v = v_ + slot * (T::kKeyBytes >> 4);
    wait(shared_.q_full[ring_.index], ring_.phase);
    pin(scores());
    products_begin();
    issue_transposed(scores(), k, q_, ring_.index);
    products_commit();
    products_wait<0>();
    pin(scores());
    weigh();
    round_weights();
    for (int left = num_blocks - 1; left > 0; --left) {
      const int stage = ring_.index;
      score_gradients(v, stage);
      ring_.advance();
      wait(shared_.q_full[ring_.index], ring_.phase);
      pin(scores());
      pin(d_s_);
      pin(d_k_);
      products_begin();
      issue_transposed(scores(), k, q_, ring_.index);
      products_commit();
      issue_gradient(d_k_, d_s_, q_, stage);
      products_commit();
      products_wait<1>();
      pin(scores());
      if constexpr (T::kKeepWeights) finish_values(stage);
      weigh();
      if constexpr (T::kKeepWeights) round_weights();
      products_wait<0>();
      pin(d_k_);
      pin(d_s_);
      if (leads_) arrive(shared_.q_empty[stage]);
      if constexpr (!T::kKeepWeights) round_weights();
    }
    const int stage = ring_.index;
    score_gradients(v, stage);
    pin(d_s_);
    pin(d_k_);
    products_begin();
    issue_gradient(d_k_, d_s_, q_, stage);
    products_commit();
    products_wait<0>();
    pin(d_k_);
    pin(d_s_);
    if constexpr (T::kKeepWeights) finish_values(stage);
    if (leads_) arrive(shared_.q_empty[stage]);
    ring_.advance();
  }

  /// dP and dV of the block whose weights are formed, then its dS, rounded and published for dQ. With
  /// kKeepWeights dV may still run (finish_values).
  __device__ __forceinline__ void score_gradients(uint64_t v, int stage) {
    wait(shared_.d_o_full[stage], ring_.phase);
    pin(x_);
    if constexpr (T::kValues) {
      pin(p_);
      pin(d_v_);
    }
    products_begin();
    issue_transposed(x_, v, d_o_, stage);
    products_commit();
    if constexpr (T::kValues) {
      issue_gradient(d_v_, p_, d_o_, stage);
      products_commit();
    }
    products_wait<T::kValues ? 1 : 0>();
    pin(x_);
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) {
      float d_s_low, d_s_high;
      if constexpr (T::kKeepWeights) {
        const float low = weights_[2 * i] * x_[2 * i];
        const float high = weights_[2 * i + 1] * x_[2 * i + 1];
        d_s_low = fmaf(-weights_[2 * i], low, low);
        d_s_high = fmaf(-weights_[2 * i + 1], high, high);
      } else {
        const float2 slope = unpack<typename T::Element>(d_s_[i]);
        d_s_low = slope.x * x_[2 * i];
        d_s_high = slope.y * x_[2 * i + 1];
      }
      if constexpr (T::kBiasGradient) bias_gradient_ += d_s_low + d_s_high;
      d_s_[i] = pack<typename T::Element>(d_s_low, d_s_high);
    }
    if constexpr (!T::kKeepWeights) {
      products_wait<0>();
      finish_values(stage);
    }
    if constexpr (T::kQueryGroup) publish();
  }

  /// dS for warpgroup 3.
  __device__ __forceinline__ void publish() {
    wait(shared_.d_s_empty[d_s_ring_.index], d_s_ring_.phase ^ 1);
    const uint32_t address = d_s_address_ + d_s_ring_.index * (kKeys * kQueries * 2);
#pragma unroll
    for (int step = 0; step < kQueries / 16; ++step) store_tiles(address ^ (step << 5), &d_s_[4 * step]);
    fence_async_proxy();
    named_arrive(kScoresReady + d_s_ring_.index, 384);
    d_s_ring_.advance();
  }

  /// dV of this block has retired.
  __device__ __forceinline__ void finish_values(int stage) {
    if constexpr (T::kValues) {
      pin(d_v_);
      pin(p_);
    }
    if (leads_) arrive(shared_.d_o_empty[stage]);
  }

  /// 64 keys x 64 queries = (K or V) (Q or dO)^T.
  __device__ __forceinline__ void issue_transposed(float (&out)[kScores], uint64_t keys, uint64_t queries,
                                                   int stage) {
    queries += stage * (T::kQueryBytes >> 4);
#pragma unroll
    for (int step = 0; step < T::kWidth / 16; ++step) {
      const int panel = step / 4;
      const int column_bytes = step % 4 * 32;
      Product<typename T::Element, 64, Major::kInner, Major::kInner>::shared(
          out, keys + ((panel * kKeys * 128 + column_bytes) >> 4),
          queries + ((panel * kQueries * 128 + column_bytes) >> 4), step != 0);
    }
  }

  /// out += (P or dS)^T (dO or Q).
  __device__ __forceinline__ void issue_gradient(float (&out)[T::kWidth / 2],
                                                 const uint32_t (&scores)[kScores / 2], uint64_t queries,
                                                 int stage) {
    queries += stage * (T::kQueryBytes >> 4);
#pragma unroll
    for (int step = 0; step < kQueries / 16; ++step)
      Product<typename T::Element, T::kWidth, Major::kInner, Major::kOuter>::registers(
          out, &scores[4 * step], queries + (step * 2048 >> 4), 1);
  }

  __device__ __forceinline__ void weigh() {
    if constexpr (!T::kValues) {
      if (column_bias_ != nullptr) {
        add_column_bias();
        sigmoid<T::kForm>(scores(), 1.0F, [this](int i) { return bias_[i / 2 % 2]; });
        return;
      }
    }
    sigmoid<T::kForm>(scores(), scale_, [this](int i) { return bias_[i / 2 % 2]; });
  }

  /// Pass::kQueries: the key bias belongs to columns; scales the scores too. Not fast: one load per score.
  __device__ __forceinline__ void add_column_bias() {
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      const int column = first + i / 4 * 8 + i % 2;
      const float bias = column < columns_left_ ? column_bias_[column] * kSigmoidFactor<T::kForm> : 0.0F;
      scores()[i] = fmaf(scores()[i], scale_, bias);
    }
    column_bias_ += kQueries;
    columns_left_ -= kQueries;
  }

  /// P as operand of dV. Without room for P in fp32, P (1 - P) waits rounded in the registers of dS, which
  /// are free from the end of one block's dK to the next block's dS (rounding P itself would lose 1 - P of
  /// large scores).
  __device__ __forceinline__ void round_weights() {
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) {
      const float low = scores()[2 * i];
      const float high = scores()[2 * i + 1];
      if constexpr (T::kValues) p_[i] = pack<typename T::Element>(low, high);
      if constexpr (!T::kKeepWeights)
        d_s_[i] = pack<typename T::Element>(fmaf(-low, low, low), fmaf(-high, high, high));
    }
  }

  /// S^T, then P^T in fp32; shares its registers with dP^T unless there is room for both.
  __device__ __forceinline__ float (&scores())[kScores] {
    if constexpr (T::kKeepWeights)
      return weights_;
    else
      return x_;
  }

  BackwardShared<T>& shared_;
  const int group_;
  const bool leads_;
  const float scale_;
  const uint64_t k_, v_, q_, d_o_;
  const uint32_t d_s_address_;
  Ring<T::kStages> ring_;
  Ring<kScoreBuffers> d_s_ring_;
  float bias_[2];  // of rows r and r + 8, premultiplied
  float bias_gradient_ = 0.0F;
  const float* column_bias_ = nullptr;  // Pass::kQueries: of the next block
  int columns_left_ = 0;
  float x_[kScores];
  float weights_[T::kKeepWeights ? kScores : 1];
  uint32_t p_[kScores / 2], d_s_[kScores / 2];
  float d_k_[T::kWidth / 2], d_v_[T::kValues ? T::kWidth / 2 : 1];
};

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
  w.d_q_bytes = static_cast<size_t>(w.d_q.num_blocks * w.d_q.num_heads * w.d_q.num_panels) * kPieceFloats *
                sizeof(float);
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
    SCRNA_CUDA_TRY(round_query_gradient(parts.d_q, call, stream));
  } else {
    SCRNA_CUDA_TRY(
        (run_pass<BackwardTraits<Element, kWidth, kForm, kBias, Pass::kKeys>>(call, parts, stream)));
  }
  if (kBias) SCRNA_CUDA_TRY(sum_bias_gradient(parts.plan, parts.bias_partials, call.d_cell_bias, stream));
  if (first == Pass::kAll) return cudaSuccess;
  return run_pass<BackwardTraits<Element, kWidth, kForm, false, Pass::kQueries>>(call, parts, stream);
}

template <class Element, int kWidth, SigmoidForm kForm>
cudaError_t launch_bias(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  return call.d_cell_bias != nullptr ? launch<Element, kWidth, kForm, true>(call, workspace, stream)
                                     : launch<Element, kWidth, kForm, false>(call, workspace, stream);
}

template <class Element, int kWidth>
cudaError_t launch_form(const AttentionBackward& call, void* workspace, cudaStream_t stream) {
  // Exact: kReciprocal, because here the special function unit is not the limit; with a key bias for both
  // precisions, as in the forward pass.
  return call.shape.precision == SigmoidPrecision::kFast && call.shape.key_bias == nullptr
             ? launch_bias<Element, kWidth, SigmoidForm::kTanh>(call, workspace, stream)
             : launch_bias<Element, kWidth, SigmoidForm::kReciprocal>(call, workspace, stream);
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
