// The key warpgroups of the backward kernel: S, dP, dV and dK of 64 keys.
#pragma once

#include "kernels/attention_backward_tile.h"
#include "kernels/device/fragment.h"
#include "kernels/device/named_barrier.h"
#include "kernels/device/wgmma.h"

namespace scrna::kernels::sm90 {

using namespace device;

/// Warpgroups 1 and 2: 64 keys each.
template <class T>
class KeyGroup {
 public:
  static constexpr int kScores = kQueries / 2;  // per thread
  /// What long cells take, whose weights are even smaller.
  static constexpr SigmoidForm kLongForm = T::kForm == SigmoidForm::kSmall ? SigmoidForm::kTiny : T::kForm;
  static constexpr float kLongBias =
      kTinyBiasBelow / 1.4426950408889634F;  // the bias of a tile is in nats here

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
      if (num_blocks > 0) {
        if (kLongForm != T::kForm && params.key_bias == nullptr && tile.bias < kLongBias)
          attend<kLongForm>(num_blocks, slot.index);
        else
          attend<T::kForm>(num_blocks, slot.index);
      }
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
  template <SigmoidForm kForm>
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
    weigh<kForm>();
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
      weigh<kForm>();
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

  template <SigmoidForm kForm>
  __device__ __forceinline__ void weigh() {
    if constexpr (!T::kValues) {
      if (column_bias_ != nullptr) {
        add_column_bias();
        sigmoid<kForm>(scores(), 1.0F, [this](int i) { return bias_[i / 2 % 2]; });
        return;
      }
    }
    sigmoid<kForm>(scores(), scale_, [this](int i) { return bias_[i / 2 % 2]; });
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

}  // namespace scrna::kernels::sm90
