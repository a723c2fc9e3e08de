// The consumer warpgroups of the forward kernel: scores, weights, output of 64 queries.
#pragma once

#include "kernels/attention_forward_tile.h"
#include "kernels/device/fragment.h"
#include "kernels/device/named_barrier.h"
#include "kernels/device/wgmma.h"

namespace scrna::kernels::sm90 {

using namespace device;

/// One warpgroup: 64 queries of every tile.
template <class T>
class ForwardConsumer {
 public:
  static constexpr int kScores = T::kKeys / 2;  // per thread
  /// What long cells take, whose weights are even smaller.
  static constexpr SigmoidForm kLongForm =
      T::kForm == SigmoidForm::kSmall && !T::kKeyBias ? SigmoidForm::kTiny : T::kForm;

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
      if (has_work) {
        if (kLongForm != T::kForm && tile.bias < kTinyBiasBelow)
          attend<kLongForm>(tile, slot.index);
        else
          attend<T::kForm>(tile, slot.index);
      } else {
        skip(tile.num_blocks);
      }
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

  template <SigmoidForm kForm>
  __device__ __forceinline__ void attend(const ForwardTile& tile, int slot) {
    float first[kScores], second[kScores];         // scores of two blocks
    uint32_t even[kScores / 2], odd[kScores / 2];  // rounded weights of two blocks
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
    if constexpr (!T::kKeyBias) release_keys(scored_);
    weigh<kForm>(first, scored_, even);
    int left = tile.num_blocks - 1;  // blocks whose weights are not formed yet
    if (left == 0) {
      finish(even);
      return;
    }
    issue_scores(second);
    products_wait<0>();
    pin(second);
    if constexpr (!T::kKeyBias) release_keys(scored_);
    // Every step forms the weights of one block and issues the scores of the next.
    while (left > kForwardBodySteps) {
      step<kForm, false, true>(second, first, even, odd);
#pragma unroll
      for (int i = 0; i < kForwardBodySteps / 2 - 1; ++i) {
        step<kForm, true, true>(first, second, odd, even);
        step<kForm, true, true>(second, first, even, odd);
      }
      step<kForm, true, false>(first, second, odd, even);
      left -= kForwardBodySteps;
    }
    while (left > 2) {
      step<kForm, false, true>(second, first, even, odd);
      step<kForm, true, false>(first, second, odd, even);
      left -= 2;
    }
    if (left == 2) {
      step<kForm, false, false>(second, first, even, odd);
      last_step<kForm>(first, odd, even);
      finish(even);
    } else {
      last_step<kForm>(second, even, odd);
      finish(odd);
    }
  }

  /// `weights` is P(j) and S(j + 1) is in `current`; in flight are S(j + 1) and P(j - 1) V(j - 1), or
  /// nothing. Leaves P(j + 1) in `next_weights` and S(j + 2) in `next`, with S(j + 2) and P(j) V(j) in
  /// flight, or nothing.
  template <SigmoidForm kForm, bool kInFlight, bool kLeaveInFlight>
  __device__ __forceinline__ void step(float (&current)[kScores], float (&next)[kScores],
                                       uint32_t (&weights)[kScores / 2],
                                       uint32_t (&next_weights)[kScores / 2]) {
    const int older = valued_;
    issue_output(weights);
    if constexpr (kInFlight) {
      products_wait<1>();
      pin(current);
      pin(next_weights);
      release_values(older);
      if constexpr (!T::kKeyBias) release_keys(scored_);
    }
    const int stage = scored_;
    issue_scores(next);
    weigh<kForm>(current, stage, next_weights);
    pin(next_weights);
    if constexpr (!kLeaveInFlight) {
      products_wait<0>();
      pin(next);
      pin(o_);
      pin(weights);
      release_values(valued_);
      if constexpr (!T::kKeyBias) release_keys(scored_);
    }
  }

  /// The same, with nothing in flight, without a block after it.
  template <SigmoidForm kForm>
  __device__ __forceinline__ void last_step(float (&current)[kScores], uint32_t (&weights)[kScores / 2],
                                            uint32_t (&next_weights)[kScores / 2]) {
    issue_output(weights);
    weigh<kForm>(current, scored_, next_weights);
    products_wait<0>();
    pin(o_);
    pin(weights);
    release_values(valued_);
  }

  __device__ __forceinline__ void finish(uint32_t (&weights)[kScores / 2]) {
    issue_output(weights);
    products_wait<0>();
    pin(o_);
    release_values(valued_);
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

  /// O += P V of the next block of values.
  __device__ __forceinline__ void issue_output(uint32_t (&weights)[kScores / 2]) {
    wait(shared_.v_full[v_ring_.index], v_ring_.phase);
    valued_ = v_ring_.index;
    const uint64_t v = v_ + valued_ * (T::kBlockBytes >> 4);
    v_ring_.advance();
    pin(weights);
    pin(o_);
    products_begin();
#pragma unroll
    for (int step = 0; step < T::kKeys / 16; ++step)
      Product<typename T::Element, T::kWidth, Major::kInner, Major::kOuter>::registers(
          o_, &weights[4 * step], v + (step * 2048 >> 4), 1);
    products_commit();
  }

  /// The rounded weights of a block of scores.
  template <SigmoidForm kForm>
  __device__ __forceinline__ void weigh(float (&s)[kScores], int stage, uint32_t (&weights)[kScores / 2]) {
    if constexpr (T::kKeyBias) {
      const float* bias = shared_.key_bias[stage] + 2 * (threadIdx.x % 4);
      rounded_sigmoid<kForm, typename T::Element>(s, scale_, weights, [&](int i) {
        const float2 pair = *reinterpret_cast<const float2*>(bias + i / 4 * 8);
        return i % 2 == 0 ? pair.x : pair.y;
      });
      release_keys(stage);
    } else {
      rounded_sigmoid<kForm, typename T::Element>(s, scale_, weights, [this](int) { return bias_; });
    }
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

  __device__ __forceinline__ void release_values(int stage) {
    if (leads_) arrive(shared_.v_empty[stage]);
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
  int valued_ = 0;  // stage of the newest product with values
  float o_[T::kWidth / 2];
  uint32_t q_fragment_[T::kQueryInRegisters ? T::kWidth / 4 : 1];
};

}  // namespace scrna::kernels::sm90
