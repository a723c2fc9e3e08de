// What the roles of the backward kernel (attention_backward_sm90.cu) share: sizes, the call, a tile, and the
// block's shared memory with its barriers.
#pragma once

#include "kernels/attention_backward_finish.h"
#include "kernels/attention_plan.h"
#include "kernels/attention_tuning.h"
#include "kernels/device/mbarrier.h"
#include "kernels/device/sigmoid.h"
#include "kernels/device/tma.h"

namespace scrna::kernels::sm90 {

using namespace device;

inline constexpr int kKeys = 128;             // per tile
inline constexpr int kQueries = 64;           // per block of the loop
inline constexpr int kScoreBuffers = 2;       // of dS; three: equal
inline constexpr int kPieceFloats = 64 * 64;  // of dQ
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

}  // namespace scrna::kernels::sm90
