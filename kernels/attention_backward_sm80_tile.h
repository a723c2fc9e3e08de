// What the portable backward kernel (attention_backward_sm80.cu) consists of: sizes, the call, and a block's
// shared memory.
#pragma once

#include "kernels/attention_backward_finish.h"
#include "kernels/attention_sm80_tile.h"

namespace scrna::kernels::sm80 {

template <int kWidth>
struct BackwardTuning {
  static constexpr bool kWide = kWidth > 64;
  static constexpr int kWarps = kWide ? 8 : 4;
  static constexpr int kBlocks = kWide ? 1 : kWidth == 64 ? 2 : 3;  // per multiprocessor
  static constexpr int kQueries = kWide ? 64 : 32;                  // per step
  static constexpr bool kHoldValues = kWide;                        // V in registers for the whole tile
};

struct BackwardParams {
  TokenView q, k, v, d_o;
  TokenView d_k, d_v;  // d_v.data null: not wanted, with Pass::kKeys
  Plan plan;
  QueryGradient d_q;       // Pass::kAll
  const float* row_bias;   // of each key of the tile; null: none
  const float* loop_bias;  // of each token of the loop, where that is over the keys; null: none
  float* bias_partials;    // [tiles, kBiasPartialsPerTile]; null: not wanted
  float scale;
  bool fast;
};

/// kAll: dK, dV and dQ in the workspace. kKeys: dK, and dV if it is wanted.
enum class Pass : uint8_t { kAll, kKeys };

template <class Element_, int kWidth_, Pass kPass_>
struct BackwardTraits : BackwardTuning<kWidth_> {
  using Element = Element_;
  using Tuning = BackwardTuning<kWidth_>;
  static constexpr int kWidth = kWidth_;
  static constexpr Pass kPass = kPass_;
  static constexpr int kThreads = 32 * Tuning::kWarps;
  static constexpr int kKeys = 128;                                // of a tile
  static constexpr int kRowTiles = kKeys / (16 * Tuning::kWarps);  // of 16 keys, per warp
  // How the warps share dQ: two groups of query tiles by groups of kOctets octets of columns.
  static constexpr int kQueryTiles = Tuning::kQueries / 16 / 2;
  static constexpr int kOctets = kWidth / 8 / (Tuning::kWarps / 2);
};

template <class T>
struct BackwardShared {
  alignas(128) typename T::Element k[T::kKeys * T::kWidth];
  alignas(128) typename T::Element q[2][T::kQueries * T::kWidth];
  alignas(128) typename T::Element d_s[T::kKeys * T::kQueries];
  alignas(128) typename T::Element d_o[T::kQueries * T::kWidth];
  alignas(128) typename T::Element v_apart[T::kHoldValues ? 8 : T::kKeys * T::kWidth];
  float bias_gradient[T::kThreads];  // of each thread: the wide kernels have no register for it
  BlockTile tile;

  /// V that moves into registers lies where dS and the second buffer of Q will be.
  __device__ typename T::Element* v() {
    if constexpr (!T::kHoldValues) return v_apart;
    static_assert(!T::kHoldValues || sizeof(q[1]) + sizeof(d_s) >= sizeof(k));
    return q[1];
  }
};

}  // namespace scrna::kernels::sm80
