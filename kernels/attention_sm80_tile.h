// What both directions of the portable attention kernels share: how a block takes its next tile, loads rows
// of a cell, and turns scores into weights.
#pragma once

#include "kernels/attention_plan.h"
#include "kernels/device/async_copy.h"
#include "kernels/device/mbarrier.h"
#include "kernels/device/mma.h"
#include "kernels/device/sigmoid.h"

namespace scrna::kernels::sm80 {

using namespace device;

/// Of one block on every device from compute capability 8.0 on (8.6, 8.9 and 12.0 have the least).
inline constexpr size_t kMaxSharedBytes = size_t{99} << 10;

struct BlockTile {
  int number;  // in the plan; -1: there are no more tiles
  int cell;    // in the caller's order
  int head;
  int token;      // first one
  int num_valid;  // may be <= 0
  int num_rows;   // rows to write
  int loop_token;
  int loop_length;
  float bias;
};

/// The block's next tile; false: there is none. Afterwards the shared memory of the tile before is free.
template <int kTile>
__device__ __forceinline__ bool next_tile(TileDrawer<kTile>& drawer, BlockTile& tile) {
  __syncthreads();
  if (threadIdx.x < 32) {
    const DrawnTile drawn = drawer.draw(false);
    if (threadIdx.x == 0) {
      tile.number = drawn.cell == nullptr ? -1 : drawn.number;
      if (drawn.cell != nullptr) {
        const PlannedCell cell = *drawn.cell;
        const int first = drawn.number_in_head * kTile;
        tile = {.number = drawn.number,
                .cell = cell.cell,
                .head = drawn.head,
                .token = cell.tile_token + first,
                .num_valid = cell.tile_length - first,
                .num_rows = cell.tile_rows - first,
                .loop_token = cell.loop_token,
                .loop_length = cell.loop_length,
                .bias = cell.bias};
      }
    }
  }
  __syncthreads();
  return tile.number >= 0;
}

/// Before the results are stored: the answer travels meanwhile, and holds no register in the main loop.
template <int kTile>
__device__ __forceinline__ void ask_for_next(TileDrawer<kTile>& drawer) {
  drawer.ask(threadIdx.x < 32);
}

/// Rows of one head.
template <class Element>
struct Rows {
  Element* first;
  int64_t stride;
  __device__ Rows(const TokenView& view, int token, int head)
      : first(static_cast<Element*>(view.data) + token * view.token_stride + head * view.head_stride),
        stride(view.token_stride) {}
};

/// The calling thread's index, computed where it is used: what depends on it then holds no registers across a
/// loop.
__device__ __forceinline__ unsigned fresh_thread_index() {
  unsigned index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
}

/// All kThreads threads of a block start to copy rows first ... first + kRows - 1 to `tile`, zeros instead of
/// those from num_rows on. This is all the masking that the kernels do: rows of zeros change nothing, and
/// what lies there is not read. A thread copies the same chunk of every kPassRows-th row.
template <int kWidth, int kThreads, int kRows, class Element>
__device__ __forceinline__ void load_rows(uint32_t tile, const Rows<Element>& rows, int first, int num_rows) {
  using Tile = SharedTile<kWidth>;
  constexpr int kPassRows = kThreads / Tile::kChunks / 8 * 8;  // width 96: a quarter of the threads idle
  static_assert(kRows % kPassRows == 0);
  const unsigned thread = fresh_thread_index();
  const int row = static_cast<int>(thread / Tile::kChunks);
  const int chunk = static_cast<int>(thread % Tile::kChunks);
  if (row >= kPassRows) return;
  const Element* source = rows.first + (first + row) * rows.stride + 8 * chunk;
  const uint32_t destination = tile + Tile::offset(row, chunk);
#pragma unroll
  for (int pass = 0; pass < kRows; pass += kPassRows)
    copy_or_clear_16(destination + pass * Tile::kRowBytes, source + pass * rows.stride,
                     first + pass + row < num_rows);
}

/// Both forms of the sigmoid in one kernel: the branch is the same for all and saves half of the instances.
__device__ __forceinline__ float sigmoid_factor(bool fast) {
  return fast ? kSigmoidFactor<SigmoidForm::kTanh> : kSigmoidFactor<SigmoidForm::kSmall>;
}
/// With scale and bias(i) multiplied by sigmoid_factor.
template <int kSize, class Bias>
__device__ __forceinline__ void weigh(bool fast, float (&s)[kSize], float scale, Bias bias) {
  if (fast)
    sigmoid<SigmoidForm::kTanh>(s, scale, bias);
  else
    sigmoid<SigmoidForm::kSmall>(s, scale, bias);
}

/// As on Hopper, a key bias always uses the exact form.
inline bool uses_fast_sigmoid(const AttentionShape& shape) {
  return shape.precision == SigmoidPrecision::kFast && shape.key_bias == nullptr;
}

}  // namespace scrna::kernels::sm80
