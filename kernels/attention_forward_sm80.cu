// Sigmoid attention forward without wgmma, for every GPU from compute capability 8.0 on:
// O = sigmoid(scale Q K^T + bias [+ key bias]) V with mma.sync and cp.async.
//
// Persistent blocks of four warps, two or three on a multiprocessor, draw tiles of 128 queries of one cell
// and head (attention_plan.h). Each warp owns 32 queries; all run over the cell's keys, 64 at a time, with
// one barrier before each half step:
//
//   products   S0 = Q K0^T | O += P0 V0 | S1 = Q K1^T | O += P1 V1 | ...
//   copies     V0          | K1         | V1          | K2         | ...      each into the buffer just left
//
// While one block forms weights, the products of another keep the tensor cores busy. S stays in registers:
// the accumulator of S is the A operand of O. Nothing is normalised, so nothing is masked: rows beyond the
// cell's end arrive as zeros (attention_sm80_tile.h). 32 queries per warp, because with 16 the reads of K and
// V from shared memory would be the limit. Bytes moved: Q, K, V read and O written once, K and V again for
// each tile from L2.
//
// Measured on an H100 and not better: a ring of three or four buffers, copied further ahead (1-4 % slower at
// width 64, equal at 128); 128 keys per step and two blocks (equal).
#include "kernels/attention_sm80.h"
#include "kernels/attention_sm80_tile.h"
#include "kernels/launch.h"

namespace scrna::kernels {
namespace {

using namespace sm80;

template <int kWidth>
struct ForwardTuning {
  static constexpr int kBlocks = kWidth <= 64 ? 3 : 2;  // per multiprocessor
};

struct ForwardParams {
  TokenView q, k, v, o;
  Plan plan;
  const float* key_bias;
  float scale;
  bool fast;
};

template <class Element_, int kWidth_>
struct ForwardTraits : ForwardTuning<kWidth_> {
  using Element = Element_;
  static constexpr int kWidth = kWidth_;
  static constexpr int kThreads = 128;
  static constexpr int kRowTiles = 2;  // of 16 queries, per warp
  static constexpr int kQueries = 4 * 16 * kRowTiles;
  static constexpr int kKeys = 64;
};

template <class T>
struct ForwardShared {
  alignas(128) typename T::Element q[T::kQueries * T::kWidth];
  alignas(128) typename T::Element k[T::kKeys * T::kWidth];
  alignas(128) typename T::Element v[T::kKeys * T::kWidth];
  float key_bias[T::kKeys];  // of the keys in k
  BlockTile tile;
};

template <class T>
class ForwardBlock {
 public:
  using Element = typename T::Element;
  using Tile = SharedTile<T::kWidth>;
  using Output = float[T::kRowTiles][T::kWidth / 2];  // of the warp's queries

  __device__ ForwardBlock(const ForwardParams& params, ForwardShared<T>& shared)
      : params_(params),
        shared_(shared),
        warp_row_(threadIdx.x / 32 * 16 * T::kRowTiles),
        factor_(sigmoid_factor(params.fast)),
        q_(shared_address(shared.q)),
        k_(shared_address(shared.k)),
        v_(shared_address(shared.v)),
        lane_(Tile::lane(k_)) {}

  __device__ __forceinline__ void attend(const BlockTile& tile, Output& o) {
    const int num_blocks = tile.num_valid > 0 ? (tile.loop_length + T::kKeys - 1) / T::kKeys : 0;
    const bool has_work = warp_row_ < tile.num_valid;
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < T::kWidth / 2; ++i) o[r][i] = 0.0F;
    if (num_blocks > 0) {
      const Rows<Element> k(params_.k, tile.loop_token, tile.head);
      const Rows<Element> v(params_.v, tile.loop_token, tile.head);
      load<T::kQueries>(q_, {params_.q, tile.token, tile.head}, 0, tile.num_valid);
      load_keys(k, 0, tile);
      for (int block = 0; block < num_blocks; ++block) {
        const int first = block * T::kKeys;
        float s[T::kRowTiles][T::kKeys / 2] = {};
        copies_arrived();
        load<T::kKeys>(v_, v, first, tile.loop_length);
        if (has_work) {
          multiply_rows<Element, T::kWidth, T::kRowTiles, T::kKeys>(
              s, lane_ + (q_ + warp_row_ * Tile::kRowBytes - k_), lane_);
          form_weights(s, tile.bias);
        }
        copies_arrived();
        if (block + 1 < num_blocks) load_keys(k, first + T::kKeys, tile);
        if (has_work) {
          uint32_t p[T::kRowTiles][T::kKeys / 4];
          pack_weights<Element>(p, s);
          multiply_packed<Element, T::kWidth, T::kRowTiles, T::kKeys>(o, p, lane_ + (v_ - k_));
        }
      }
    }
  }

  __device__ __forceinline__ void store(const BlockTile& tile, const Output& o) {
    const Rows<Element> out(params_.o, tile.token, tile.head);
    const int num_valid = tile.loop_length > 0 ? tile.num_valid : 0;
    const int num_rows = tile.num_rows;
    const auto store_tile = [&](const float(&tile_o)[T::kWidth / 2], int r) {
      const int row = warp_row_ + 16 * r + static_cast<int>(threadIdx.x % 32 / 4);
      store_rows<Element, T::kWidth>(out.first + row * out.stride, out.stride, tile_o, 1.0F, num_valid - row,
                                     num_rows - row);
    };
    static_assert(T::kRowTiles == 2);  // not a loop: that would put the wide accumulators into local memory
    store_tile(o[0], 0);
    store_tile(o[1], 1);
  }

 private:
  template <int kRows>
  __device__ __forceinline__ void load(uint32_t destination, const Rows<Element>& rows, int first,
                                       int num_rows) {
    load_rows<T::kWidth, T::kThreads, kRows>(destination, rows, first, num_rows);
  }

  __device__ __forceinline__ void load_keys(const Rows<Element>& k, int first, const BlockTile& tile) {
    load<T::kKeys>(k_, k, first, tile.loop_length);
    if (params_.key_bias == nullptr || threadIdx.x >= T::kKeys) return;
    const int key = first + static_cast<int>(threadIdx.x);
    copy_or_clear_4(shared_address(&shared_.key_bias[threadIdx.x]), params_.key_bias + tile.loop_token + key,
                    key < tile.loop_length);
  }

  /// Everything asked for is there, and everyone has left the buffer of the half step before.
  __device__ __forceinline__ void copies_arrived() {
    copies_wait_all();
    __syncthreads();
  }

  __device__ __forceinline__ void form_weights(float (&s)[T::kRowTiles][T::kKeys / 2], float cell_bias) {
    float scale = params_.scale * factor_;
    float bias = cell_bias * factor_;
    if (params_.key_bias != nullptr) {
      const float* key_bias = shared_.key_bias + 2 * (threadIdx.x % 4);
#pragma unroll
      for (int i = 0; i < T::kKeys / 2; ++i) {
        const float sum = fmaf(key_bias[i / 4 * 8 + i % 2], factor_, bias);
#pragma unroll
        for (int r = 0; r < T::kRowTiles; ++r) s[r][i] = fmaf(s[r][i], scale, sum);
      }
      scale = 1.0F;
      bias = 0.0F;
    }
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r) weigh(params_.fast, s[r], scale, [bias](int) { return bias; });
  }

  const ForwardParams& params_;
  ForwardShared<T>& shared_;
  const int warp_row_;
  const float factor_;
  const uint32_t q_, k_, v_;
  const Lane<T::kWidth> lane_;  // in k
};

template <class T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    forward_kernel(const __grid_constant__ ForwardParams params) {
  extern __shared__ __align__(128) uint8_t memory[];
  auto& shared = *reinterpret_cast<ForwardShared<T>*>(memory);
  static_assert(sizeof(ForwardShared<T>) <= sm80::kMaxSharedBytes);
  TileDrawer<T::kQueries> drawer(params.plan, threadIdx.x < 32);
  ForwardBlock<T> block(params, shared);
  while (next_tile(drawer, shared.tile)) {
    typename ForwardBlock<T>::Output o;
    block.attend(shared.tile, o);
    ask_for_next(drawer);
    block.store(shared.tile, o);
  }
}

template <class Element, int kWidth>
cudaError_t launch(const AttentionForward& call, void* workspace, cudaStream_t stream) {
  using T = ForwardTraits<Element, kWidth>;
  const AttentionShape& shape = call.shape;
  const ForwardParams params{.q = call.q,
                             .k = call.k,
                             .v = call.v,
                             .o = call.o,
                             .plan = plan_in(workspace, shape),
                             .key_bias = shape.key_bias,
                             .scale = shape.scale,
                             .fast = uses_fast_sigmoid(shape)};
  SCRNA_CUDA_TRY(
      make_plan(params.plan, {.shape = &shape, .tile_queries = true, .tile_tokens = T::kQueries}, stream));
  return launch_blocks(forward_kernel<T>, params, T::kThreads, sizeof(ForwardShared<T>), T::kBlocks,
                       max_tiles(shape, true, T::kQueries), stream);
}

template <class Element>
cudaError_t launch_width(const AttentionForward& call, void* workspace, cudaStream_t stream) {
  switch (call.shape.head_width) {
    case 32:
      return launch<Element, 32>(call, workspace, stream);
    case 64:
      return launch<Element, 64>(call, workspace, stream);
    case 96:
      return launch<Element, 96>(call, workspace, stream);
    default:
      return launch<Element, 128>(call, workspace, stream);
  }
}

}  // namespace

size_t forward_sm80_workspace_bytes(const AttentionShape& shape) { return plan_bytes(shape); }

cudaError_t forward_sm80(const AttentionForward& call, void* workspace, cudaStream_t stream) {
  return call.shape.element_type == ElementType::kBFloat16
             ? launch_width<__nv_bfloat16>(call, workspace, stream)
             : launch_width<__half>(call, workspace, stream);
}

}  // namespace scrna::kernels
