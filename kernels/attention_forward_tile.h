// What the roles of the forward kernel (attention_forward_sm90.cu) share: the call, a tile, and the block's
// shared memory with its barriers.
#pragma once

#include "kernels/attention_plan.h"
#include "kernels/attention_tuning.h"
#include "kernels/device/mbarrier.h"
#include "kernels/device/sigmoid.h"
#include "kernels/device/tma.h"

namespace scrna::kernels::sm90 {

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

}  // namespace scrna::kernels::sm90
