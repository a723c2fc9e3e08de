// The producer warps of the forward kernel: what they put into shared memory, and in which order.
#pragma once

#include "kernels/attention_forward_tile.h"

namespace scrna::kernels::sm90 {

using namespace device;

/// Warp 0: draws tiles, loads Q once per tile and K and V block by block.
template <class T>
__device__ void produce(const ForwardParams& params, ForwardShared<T>& shared) {
  const bool issues = threadIdx.x % 32 == 0;
  wait_for_previous_kernel();
  TileDrawer<T::kQueries> drawer(params.plan);
  Ring<T::kTileBuffers> slot;
  Ring<T::kStages> ring;
  for (;; slot.advance()) {
    const DrawnTile drawn = drawer.draw();
    if (issues) {
      wait(shared.q_empty[slot.index], slot.phase ^ 1);
      ForwardTile& tile = shared.tile[slot.index];
      if (drawn.cell == nullptr) {
        tile.num_blocks = -1;
        arrive(shared.q_full[slot.index]);
        return;
      }
      const PlannedCell& cell = *drawn.cell;
      const int first = drawn.number_in_head * T::kQueries;
      const int num_blocks = first < cell.tile_length ? (cell.loop_length + T::kKeys - 1) / T::kKeys : 0;
      const int key_tail = cell.loop_length - (num_blocks - 1) * T::kKeys;
      const int query_token = cell.tile_token + first;
      const int key_token = cell.loop_token;
      tile = {.num_blocks = num_blocks,
              .key_tail = key_tail,
              .query_token = query_token,
              .key_token = key_token,
              .head = drawn.head,
              .num_valid = cell.tile_length - first,
              .num_rows = cell.tile_rows - first,
              .bias = cell.bias * kSigmoidFactor<T::kForm>};
      if (num_blocks == 0) {
        arrive(shared.q_full[slot.index]);
      } else {
        arrive_expecting(shared.q_full[slot.index], T::kQueryBytes);
        for (int panel = 0; panel < T::kPanels; ++panel)
          load_box(&shared.q[slot.index][panel * T::kQueries * 64], params.q, shared.q_full[slot.index],
                   panel * 64, query_token, drawn.head);
      }
      for (int block = 0; block < num_blocks; ++block, ring.advance()) {
        const int stage = ring.index;
        const int token = key_token + block * T::kKeys;
        const bool tail = block == num_blocks - 1 && key_tail < T::kKeys;
        const auto load = [&](auto& buffer, const CUtensorMap& map, Barrier& empty, Barrier& full) {
          wait(empty, ring.phase ^ 1);
          arrive_expecting(full, T::kBlockBytes);
          for (int panel = 0; panel < T::kPanels; ++panel)
            load_box(&buffer[panel * T::kKeys * 64], map, full, panel * 64, token, drawn.head);
        };
        load(shared.k[stage], params.k, shared.k_empty[stage],
             tail ? shared.k_tail[stage] : shared.k_full[stage]);
        load(shared.v[stage], params.v, shared.v_empty[stage],
             tail ? shared.v_tail[stage] : shared.v_full[stage]);
      }
    } else if (drawn.cell == nullptr) {
      return;
    }
    __syncwarp();
  }
}

/// Warp 1: zeroes the rows of the last block that belong to no key, then hands the block to the consumers.
template <class T>
__device__ void clear_tails(ForwardShared<T>& shared) {
  const int lane = threadIdx.x % 32;
  Ring<T::kTileBuffers> slot;
  uint32_t tail_phases = 0;  // one bit per stage
  int stage = 0;
  for (;; slot.advance()) {
    wait(shared.q_full[slot.index], slot.phase);
    const int num_blocks = shared.tile[slot.index].num_blocks;
    const int key_tail = shared.tile[slot.index].key_tail;
    __syncwarp();
    if (num_blocks < 0) return;
    if (lane == 0) arrive(shared.q_empty[slot.index]);
    if (num_blocks == 0) continue;
    const int last = (stage + num_blocks - 1) % T::kStages;
    stage = (last + 1) % T::kStages;
    if (key_tail == T::kKeys) continue;
    const uint32_t phase = (tail_phases >> last) & 1;
    tail_phases ^= 1U << last;
    const auto clear = [&](typename T::Element* buffer, Barrier& loaded, Barrier& full) {
      wait(loaded, phase);
      for (int panel = 0; panel < T::kPanels; ++panel) {
        auto* rows = reinterpret_cast<uint4*>(buffer + panel * T::kKeys * 64);
        for (int piece = key_tail * 8 + lane; piece < T::kKeys * 8; piece += 32)
          rows[piece] = make_uint4(0, 0, 0, 0);
      }
      fence_async_proxy();
      __syncwarp();
      if (lane == 0) arrive(full);
    };
    clear(shared.k[last], shared.k_tail[last], shared.k_full[last]);
    clear(shared.v[last], shared.v_tail[last], shared.v_full[last]);
  }
}

/// Warp 2, with a key bias: the bias of each block's keys beside the block itself.
template <class T>
__device__ void stage_key_bias(const ForwardParams& params, ForwardShared<T>& shared) {
  const int lane = threadIdx.x % 32;
  Ring<T::kTileBuffers> slot;
  Ring<T::kStages> ring;
  for (;; slot.advance()) {
    wait(shared.q_full[slot.index], slot.phase);
    const ForwardTile tile = shared.tile[slot.index];
    __syncwarp();
    if (tile.num_blocks < 0) return;
    if (lane == 0) arrive(shared.q_empty[slot.index]);
    for (int block = 0; block < tile.num_blocks; ++block, ring.advance()) {
      const int num_keys = block == tile.num_blocks - 1 ? tile.key_tail : T::kKeys;
      const float* bias = params.key_bias + tile.key_token + block * T::kKeys;
      wait(shared.k_empty[ring.index], ring.phase ^ 1);
      for (int key = lane; key < T::kKeys; key += 32)
        shared.key_bias[ring.index][key] =
            key < num_keys ? fmaf(bias[key], kSigmoidFactor<T::kForm>, tile.bias) : 0.0F;
      __syncwarp();
      if (lane == 0) arrive(shared.k_full[ring.index]);
    }
  }
}

}  // namespace scrna::kernels::sm90
