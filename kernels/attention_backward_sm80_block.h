// One block of the portable backward kernel (attention_backward_sm80.cu) at work on one tile of keys.
#pragma once

#include "kernels/attention_backward_sm80_tile.h"

namespace scrna::kernels::sm80 {

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
        warp_row_(threadIdx.x / 32 * 16 * T::kRowTiles),
        k_(shared_address(shared.k)),
        v_(shared_address(shared.v())),
        q_(shared_address(shared.q)),
        d_o_(shared_address(shared.d_o)),
        d_s_(shared_address(shared.d_s)),
        lane_(Tile::lane(k_)) {}

  __device__ __forceinline__ void attend(const BlockTile& tile) {
    const int num_steps = steps(tile);
    const bool has_work = warp_row_ < tile.num_valid;
    clear(d_k_);
    clear(d_v_);
    shared_.bias_gradient[threadIdx.x] = 0.0F;
    if (num_steps > 0) {
      load<T::kKeys>(k_, {params_.k, tile.token, tile.head}, 0, tile.num_valid);
      load<T::kKeys>(v_, {params_.v, tile.token, tile.head}, 0, tile.num_valid);
      load<T::kQueries>(q_, {params_.q, tile.loop_token, tile.head}, 0, tile.loop_length);
      load<T::kQueries>(d_o_, {params_.d_o, tile.loop_token, tile.head}, 0, tile.loop_length);
      if constexpr (T::kHoldValues) hold_values();
      for (int step = 0; step < num_steps; ++step) {
        const int next = (step + 1) * T::kQueries;
        const uint32_t q_step = q_ + step % 2 * kStepBytes;
        copies_wait_all();
        __syncthreads();  // Q and dO of this step are there; nobody reads Q or dS of the step before any more
        if (next < tile.loop_length)
          load<T::kQueries>(q_ + (step + 1) % 2 * kStepBytes, {params_.q, tile.loop_token, tile.head}, next,
                            tile.loop_length);
        Packed d_s = {};
        if (has_work)
          score_gradients(d_s, q_step, tile, step * T::kQueries);
        else if constexpr (T::kPass == Pass::kAll)
          publish(d_s);
        __syncthreads();  // dS is there; nobody reads dO any more
        if (next < tile.loop_length)
          load<T::kQueries>(d_o_, {params_.d_o, tile.loop_token, tile.head}, next, tile.loop_length);
        constexpr bool kAdds = T::kPass == Pass::kAll;
        if constexpr (kAdds && !T::kHoldValues) add_query_gradient(tile, step);
        multiply_packed<Element, T::kWidth, T::kRowTiles, T::kQueries>(d_k_, d_s, lane_ + (q_step - k_));
        if constexpr (kAdds && T::kHoldValues) add_query_gradient(tile, step);  // dS has left its registers
      }
    }
  }

  __device__ __forceinline__ void store(const BlockTile& tile) {
    store(params_.d_k, tile, d_k_, params_.scale);
    if (values_wanted()) store(params_.d_v, tile, d_v_, 1.0F);
    if (params_.bias_partials != nullptr) store_bias_gradient(tile.number);
  }

 private:
  static constexpr int kStepBytes = T::kQueries * T::kWidth * 2;

  template <int kRows>
  __device__ __forceinline__ void load(uint32_t destination, const Rows<Element>& rows, int first,
                                       int num_rows) {
    load_rows<T::kWidth, T::kThreads, kRows>(destination, rows, first, num_rows);
  }

  template <int kSize>
  __device__ static void clear(float (&x)[T::kRowTiles][kSize]) {
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < kSize; ++i) x[r][i] = 0.0F;
  }

  __device__ static int steps(const BlockTile& tile) {
    return tile.num_valid > 0 ? (tile.loop_length + T::kQueries - 1) / T::kQueries : 0;
  }

  __device__ __forceinline__ bool values_wanted() const {
    return T::kPass == Pass::kAll || params_.d_v.data != nullptr;
  }

  __device__ __forceinline__ int lane_row() const {
    return warp_row_ + static_cast<int>(threadIdx.x % 32 / 4);
  }

  /// Of one of the warp's rows, multiplied by sigmoid_factor. Read in each step: registers are scarcer.
  __device__ __forceinline__ float row_bias(const BlockTile& tile, int row) const {
    const bool biased = params_.row_bias != nullptr && row < tile.num_valid;
    const float key_bias = biased ? params_.row_bias[tile.token + row] : 0.0F;
    return sigmoid_factor(params_.fast) * (tile.bias + key_bias);
  }

  __device__ __forceinline__ void hold_values() {
    copies_wait_all();
    __syncthreads();
    const Lane<T::kWidth> rows = lane_ + warp_row_ * Tile::kRowBytes;
#pragma unroll
    for (int step = 0; step < T::kWidth / 16; ++step)
      load_row_tiles<T::kWidth, T::kRowTiles>(held_v_[step], rows + (v_ - k_), step);
  }

  /// dS^T of this step's queries and the warp's keys, published too; adds to dV.
  __device__ __forceinline__ void score_gradients(Packed& d_s, uint32_t q, const BlockTile& tile,
                                                  int first_query) {
    const Lane<T::kWidth> rows = lane_ + warp_row_ * Tile::kRowBytes;
    const Lane<T::kWidth> d_o = lane_ + (d_o_ - k_);
    Scores p = {};
    multiply_rows<Element, T::kWidth, T::kRowTiles, T::kQueries>(p, rows, lane_ + (q - k_));
    form_weights(p, tile, first_query);
    Scores x = {};  // dP, then dS
    if constexpr (T::kHoldValues) {
#pragma unroll
      for (int step = 0; step < T::kWidth / 16; ++step)
        multiply_row_tiles<Element, T::kWidth, T::kRowTiles, T::kQueries>(x, held_v_[step], d_o, step);
    } else {
      multiply_rows<Element, T::kWidth, T::kRowTiles, T::kQueries>(x, rows + (v_ - k_), d_o);
      add_values(p, d_o);
    }
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < T::kQueries / 2; ++i) {
        const float product = p[r][i] * x[r][i];
        x[r][i] = fmaf(-p[r][i], product, product);
      }
    if (params_.bias_partials != nullptr) add_bias_gradient(x);
    pack_weights<Element>(d_s, x);
    if constexpr (T::kPass == Pass::kAll) publish(d_s);
    if constexpr (T::kHoldValues) add_values(p, d_o);  // later, when dP has left its registers
  }

  /// dV += P^T dO.
  __device__ __forceinline__ void add_values(const Scores& p, const Lane<T::kWidth>& d_o) {
    if (!values_wanted()) return;
    Packed rounded;
    pack_weights<Element>(rounded, p);
    multiply_packed<Element, T::kWidth, T::kRowTiles, T::kQueries>(d_v_, rounded, d_o);
  }

  __device__ __forceinline__ void add_bias_gradient(const Scores& d_s) {
    float sum = 0.0F;
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < T::kQueries / 2; ++i) sum += d_s[r][i];
    shared_.bias_gradient[fresh_thread_index()] += sum;
  }

  __device__ __forceinline__ void form_weights(Scores& s, const BlockTile& tile, int first_query) {
    float scale = params_.scale * sigmoid_factor(params_.fast);
    if (params_.loop_bias != nullptr) {  // not fast: one guarded load per column
      const int column = first_query + 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
      for (int i = 0; i < T::kQueries / 2; ++i) {
        const int token = column + i / 4 * 8 + i % 2;
        const float bias = token < tile.loop_length
                               ? sigmoid_factor(params_.fast) * params_.loop_bias[tile.loop_token + token]
                               : 0.0F;
#pragma unroll
        for (int r = 0; r < T::kRowTiles; ++r) s[r][i] = fmaf(s[r][i], scale, bias);
      }
      scale = 1.0F;
    }
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r) {
      const int row = lane_row() + 16 * r;
      const float biases[2] = {row_bias(tile, row), row_bias(tile, row + 8)};
      weigh(params_.fast, s[r], scale, [&](int i) { return biases[i / 2 % 2]; });
    }
  }

  /// dS^T, rounded, to shared memory for dQ.
  __device__ __forceinline__ void publish(const Packed& d_s) {
    const int lane = static_cast<int>(fresh_thread_index() % 32);
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < T::kQueries / 4; ++i)
        store_word(
            d_s_ + ScoreTile::offset(warp_row_ + lane / 4 + 16 * r + 8 * (i % 2), i / 2) + 4 * (lane % 4),
            d_s[r][i]);
  }

  /// Adds dS K of this step to the workspace; inner dimension the tile's keys.
  __device__ __forceinline__ void add_query_gradient(const BlockTile& tile, int step) {
    const unsigned thread = fresh_thread_index();
    const int lane = static_cast<int>(thread % 32);
    const int first_tile = static_cast<int>(thread / 32 % 2 * T::kQueryTiles);
    const int first_octet = static_cast<int>(thread / 64 * T::kOctets);
    // One query tile alone gets two sums, of even and odd 16 keys, or its products would wait for each other.
    float sum[2][T::kOctets][4] = {};
#pragma unroll
    for (int key = 0; key < T::kKeys; key += 32) {
      uint32_t a[T::kQueryTiles][2][4];
#pragma unroll
      for (int t = 0; t < T::kQueryTiles; ++t)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint32_t tiles[4];
          load_tiles_transposed(
              d_s_ + ScoreTile::lane_offset(first_tile + t) + (key + 16 * half) * ScoreTile::kRowBytes,
              tiles);
          a[t][half][0] = tiles[0], a[t][half][1] = tiles[2], a[t][half][2] = tiles[1],
          a[t][half][3] = tiles[3];
        }
#pragma unroll
      for (int octet = 0; octet < T::kOctets; ++octet) {
        uint32_t b[4];  // 32 keys of one octet
        load_tiles_transposed(k_ + Tile::offset(lane, first_octet + octet) + key * Tile::kRowBytes, b);
#pragma unroll
        for (int t = 0; t < T::kQueryTiles; ++t)
#pragma unroll
          for (int half = 0; half < 2; ++half)
            multiply<Element>(sum[T::kQueryTiles == 1 ? half : t][octet], a[t][half], b[2 * half],
                              b[2 * half + 1]);
      }
    }
    constexpr int kStepsPerBlock = QueryGradient::kRows / T::kQueries;
    const int block = params_.d_q.first_block(tile.loop_token, tile.cell) + step / kStepsPerBlock;
    float* out = params_.d_q.octet(block, tile.head, first_octet) +
                 (step % kStepsPerBlock * (T::kQueries / 16) + first_tile) * 128 + lane;
#pragma unroll
    for (int octet = 0; octet < T::kOctets; ++octet)
#pragma unroll
      for (int t = 0; t < T::kQueryTiles; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          atomicAdd(out + octet * QueryGradient::kOctetFloats + 128 * t + 32 * i,
                    T::kQueryTiles == 1 ? sum[0][octet][i] + sum[1][octet][i] : sum[t][octet][i]);
  }

  __device__ __forceinline__ void store(const TokenView& view, const BlockTile& tile,
                                        const KeyGradient& gradient, float factor) {
    const Rows<Element> out(view, tile.token, tile.head);
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r) {
      const int row = lane_row() + 16 * r;
      store_rows<Element, T::kWidth>(out.first + row * out.stride, out.stride, gradient[r], factor,
                                     steps(tile) > 0 ? tile.num_valid - row : 0, tile.num_rows - row);
    }
  }

  __device__ __forceinline__ void store_bias_gradient(int number) {
    float sum = shared_.bias_gradient[threadIdx.x];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0U, sum, step);
    float* partials = params_.bias_partials + int64_t{number} * kBiasPartialsPerTile;
    if (threadIdx.x % 32 != 0) return;
    const int warp = static_cast<int>(threadIdx.x / 32);
    for (int i = warp; i < kBiasPartialsPerTile; i += T::kWarps) partials[i] = i == warp ? sum : 0.0F;
  }

  const BackwardParams& params_;
  BackwardShared<T>& shared_;
  const int warp_row_;
  const uint32_t k_, v_, q_, d_o_, d_s_;
  const Lane<T::kWidth> lane_;  // in k
  KeyGradient d_k_, d_v_;
  uint32_t held_v_[T::kHoldValues ? T::kWidth / 16 : 1][T::kRowTiles][4];
};

}  // namespace scrna::kernels::sm80
