// One block of the portable backward kernel (attention_backward_sm80.cu) at work on one tile of keys.
#pragma once

#include "kernels/attention_backward_finish.h"
#include "kernels/attention_sm80_tile.h"

namespace scrna::kernels::sm80 {

template <int kWidth>
struct BackwardTuning {
  static constexpr int kWarps = kWidth <= 64 ? 4 : 8;
  static constexpr int kBlocks = kWidth <= 64 ? 2 : 1;  // per multiprocessor
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
  static constexpr int kQueries = 32;                              // per step
  static constexpr int kRowGroups = kQueries / 16;                 // how the warps share dQ: 16 queries ...
  static constexpr int kOctets =
      kWidth / 8 / (Tuning::kWarps / kRowGroups);  // ... by these octets of columns
};

template <class T>
struct BackwardShared {
  alignas(128) typename T::Element k[T::kKeys * T::kWidth];
  alignas(128) typename T::Element v[T::kKeys * T::kWidth];
  alignas(128) typename T::Element q[2][T::kQueries * T::kWidth];
  alignas(128) typename T::Element d_o[T::kQueries * T::kWidth];
  alignas(128) typename T::Element d_s[T::kKeys * T::kQueries];
  BlockTile tile;
};

template <class T>
class BackwardBlock {
 public:
  using Element = typename T::Element;
  using Tile = SharedTile<T::kWidth>;
  using ScoreTile = SharedTile<T::kQueries>;
  using Scores = float[T::kRowTiles][T::kQueries / 2];     // transposed: rows are keys
  using Packed = uint32_t[T::kRowTiles][T::kQueries / 4];  // the same, rounded
  using KeyGradient = float[T::kRowTiles][T::kWidth / 2];  // of the warp's keys

  __device__ BackwardBlock(const BackwardParams& params, BackwardShared<T>& shared)
      : params_(params),
        shared_(shared),
        warp_(threadIdx.x / 32),
        warp_row_(threadIdx.x / 32 * 16 * T::kRowTiles),
        factor_(sigmoid_factor(params.fast)),
        k_(shared_address(shared.k)),
        v_(shared_address(shared.v)),
        q_(shared_address(shared.q)),
        d_o_(shared_address(shared.d_o)),
        d_s_(shared_address(shared.d_s)) {}

  __device__ void run(const BlockTile& tile) {
    const int num_steps = tile.num_valid > 0 ? (tile.loop_length + T::kQueries - 1) / T::kQueries : 0;
    const bool has_work = warp_row_ < tile.num_valid;
    clear(d_k_);
    clear(d_v_);
    bias_gradient_ = 0.0F;
    if (num_steps > 0) {
      const Rows<Element> q(params_.q, tile.loop_token, tile.head);
      const Rows<Element> d_o(params_.d_o, tile.loop_token, tile.head);
      loader_.template load<T::kKeys>(k_, {params_.k, tile.token, tile.head}, 0, tile.num_valid);
      loader_.template load<T::kKeys>(v_, {params_.v, tile.token, tile.head}, 0, tile.num_valid);
      loader_.template load<T::kQueries>(q_, q, 0, tile.loop_length);
      loader_.template load<T::kQueries>(d_o_, d_o, 0, tile.loop_length);
      read_biases(tile);
      for (int step = 0; step < num_steps; ++step) {
        const int next = (step + 1) * T::kQueries;
        const uint32_t q_step = q_ + step % 2 * kStepBytes;
        copies_wait_all();
        __syncthreads();  // Q and dO of this step are there; nobody reads Q or dS of the step before any more
        if (next < tile.loop_length)
          loader_.template load<T::kQueries>(q_ + (step + 1) % 2 * kStepBytes, q, next, tile.loop_length);
        Packed d_s = {};
        if (has_work) score_gradients(d_s, q_step, tile, step * T::kQueries);
        if constexpr (T::kPass == Pass::kAll) publish(d_s);
        __syncthreads();  // dS is there; nobody reads dO any more
        if (next < tile.loop_length) loader_.template load<T::kQueries>(d_o_, d_o, next, tile.loop_length);
        if constexpr (T::kPass == Pass::kAll) add_query_gradient(tile, step);
        multiply_packed<Element, T::kWidth, T::kRowTiles, T::kQueries>(d_k_, d_s,
                                                                       q_step + Tile::lane_offset());
      }
    }
    store(params_.d_k, tile, d_k_, params_.scale, num_steps > 0);
    if (values_wanted()) store(params_.d_v, tile, d_v_, 1.0F, num_steps > 0);
    if (params_.bias_partials != nullptr) store_bias_gradient(tile.number);
  }

 private:
  static constexpr int kStepBytes = T::kQueries * T::kWidth * 2;

  template <int kSize>
  __device__ static void clear(float (&x)[T::kRowTiles][kSize]) {
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < kSize; ++i) x[r][i] = 0.0F;
  }

  __device__ __forceinline__ bool values_wanted() const {
    return T::kPass == Pass::kAll || params_.d_v.data != nullptr;
  }

  __device__ __forceinline__ int lane_row() const {
    return warp_row_ + static_cast<int>(threadIdx.x % 32 / 4);
  }

  __device__ __forceinline__ void read_biases(const BlockTile& tile) {
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = lane_row() + 16 * r + 8 * half;
        const bool biased = params_.row_bias != nullptr && row < tile.num_valid;
        bias_[r][half] = factor_ * (tile.bias + (biased ? params_.row_bias[tile.token + row] : 0.0F));
      }
  }

  /// dS^T of this step's queries and the warp's keys; adds to dV on the way.
  __device__ __forceinline__ void score_gradients(Packed& packed, uint32_t q, const BlockTile& tile,
                                                  int first_query) {
    const uint32_t lane = Tile::lane_offset();
    const uint32_t k = Tile::at(k_ + lane, warp_row_, 0);
    const uint32_t v = Tile::at(v_ + lane, warp_row_, 0);
    Scores p = {}, d_s = {};
    if constexpr (T::kRowTiles ==
                  1) {  // four accumulators alone would wait for each other: both products at once
#pragma unroll
      for (int step = 0; step < T::kWidth / 16; ++step) {
        multiply_rows_step<Element, T::kWidth, T::kRowTiles, T::kQueries>(p, k, q + lane, step);
        multiply_rows_step<Element, T::kWidth, T::kRowTiles, T::kQueries>(d_s, v, d_o_ + lane, step);
      }
      form_weights(p, tile, first_query);
    } else {
      multiply_rows<Element, T::kWidth, T::kRowTiles, T::kQueries>(p, k, q + lane);
      form_weights(p, tile, first_query);
      multiply_rows<Element, T::kWidth, T::kRowTiles, T::kQueries>(d_s, v, d_o_ + lane);
    }
    if (values_wanted()) {
      pack_weights<Element>(packed, p);
      multiply_packed<Element, T::kWidth, T::kRowTiles, T::kQueries>(d_v_, packed, d_o_ + lane);
    }
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < T::kQueries / 2; ++i) {
        const float product = p[r][i] * d_s[r][i];
        d_s[r][i] = fmaf(-p[r][i], product, product);
      }
    if (params_.bias_partials != nullptr) {
#pragma unroll
      for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
        for (int i = 0; i < T::kQueries / 2; ++i) bias_gradient_ += d_s[r][i];
    }
    pack_weights<Element>(packed, d_s);
  }

  __device__ __forceinline__ void form_weights(Scores& s, const BlockTile& tile, int first_query) {
    float scale = params_.scale * factor_;
    if (params_.loop_bias != nullptr) {  // not fast: one guarded load per column
      const int column = first_query + 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
      for (int i = 0; i < T::kQueries / 2; ++i) {
        const int token = column + i / 4 * 8 + i % 2;
        const float bias =
            token < tile.loop_length ? factor_ * params_.loop_bias[tile.loop_token + token] : 0.0F;
#pragma unroll
        for (int r = 0; r < T::kRowTiles; ++r) s[r][i] = fmaf(s[r][i], scale, bias);
      }
      scale = 1.0F;
    }
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
      weigh(params_.fast, s[r], scale, [&](int i) { return bias_[r][i / 2 % 2]; });
  }

  /// dS^T, rounded, to shared memory for dQ.
  __device__ __forceinline__ void publish(const Packed& d_s) {
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < T::kQueries / 4; ++i)
        store_word(d_s_ + ScoreTile::offset(lane_row() + 16 * r + 8 * (i % 2), i / 2) + 4 * (threadIdx.x % 4),
                   d_s[r][i]);
  }

  /// Adds dS K of this step to the workspace: 16 queries and kOctets octets of columns per warp, inner
  /// dimension the tile's keys.
  __device__ __forceinline__ void add_query_gradient(const BlockTile& tile, int step) {
    const int group = warp_ % T::kRowGroups;
    const int first_octet = warp_ / T::kRowGroups * T::kOctets;
    const uint32_t d_s = ScoreTile::at(d_s_ + ScoreTile::lane_offset(), 0, group);
    const int lane = threadIdx.x % 32;
    float sum[2][T::kOctets][4] = {};  // of even and odd 16 keys: independent products
#pragma unroll
    for (int key = 0; key < T::kKeys; key += 32) {
      uint32_t a[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t tiles[4];
        load_tiles_transposed(d_s + (key + 16 * half) * ScoreTile::kRowBytes, tiles);
        a[half][0] = tiles[0], a[half][1] = tiles[2], a[half][2] = tiles[1], a[half][3] = tiles[3];
      }
#pragma unroll
      for (int octet = 0; octet < T::kOctets; ++octet) {
        uint32_t b[4];  // 32 keys of one octet
        load_tiles_transposed(k_ + Tile::offset(lane, first_octet + octet) + key * Tile::kRowBytes, b);
        multiply<Element>(sum[0][octet], a[0], b[0], b[1]);
        multiply<Element>(sum[1][octet], a[1], b[2], b[3]);
      }
    }
    constexpr int kStepsPerBlock = QueryGradient::kRows / T::kQueries;
    const int block = params_.d_q.first_block(tile.loop_token, tile.cell) + step / kStepsPerBlock;
    float* out = params_.d_q.octet(block, tile.head, first_octet) +
                 (step % kStepsPerBlock * T::kRowGroups + group) * 128 + lane;
#pragma unroll
    for (int octet = 0; octet < T::kOctets; ++octet)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        atomicAdd(out + octet * QueryGradient::kOctetFloats + 32 * i, sum[0][octet][i] + sum[1][octet][i]);
  }

  __device__ __forceinline__ void store(const TokenView& view, const BlockTile& tile,
                                        const KeyGradient& gradient, float factor, bool has_steps) {
    const Rows<Element> out(view, tile.token, tile.head);
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r) {
      const int row = lane_row() + 16 * r;
      store_rows<Element, T::kWidth>(out.first + row * out.stride, out.stride, gradient[r], factor,
                                     has_steps ? tile.num_valid - row : 0, tile.num_rows - row);
    }
  }

  __device__ __forceinline__ void store_bias_gradient(int number) {
    for (int step = 16; step > 0; step /= 2) bias_gradient_ += __shfl_xor_sync(~0U, bias_gradient_, step);
    float* partials = params_.bias_partials + int64_t{number} * kBiasPartialsPerTile;
    if (threadIdx.x % 32 != 0) return;
    for (int i = warp_; i < kBiasPartialsPerTile; i += T::kWarps)
      partials[i] = i == warp_ ? bias_gradient_ : 0.0F;
  }

  const BackwardParams& params_;
  BackwardShared<T>& shared_;
  const TileLoader<Element, T::kWidth, T::kThreads> loader_;
  const int warp_, warp_row_;
  const float factor_;
  const uint32_t k_, v_, q_, d_o_, d_s_;
  float bias_[T::kRowTiles][2];  // of rows r and r + 8, multiplied by factor_
  float bias_gradient_ = 0.0F;
  KeyGradient d_k_, d_v_;
};

}  // namespace scrna::kernels::sm80
