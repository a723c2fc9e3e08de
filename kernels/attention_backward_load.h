// The producer warps of the backward kernel: what they put into shared memory, and in which order.
#pragma once

#include "kernels/attention_backward_tile.h"

namespace scrna::kernels::sm90 {

using namespace device;

/// Warp 0: draws tiles, loads K and V once per tile, Q and dO block by block.
template <class T>
__device__ void produce(const BackwardParams& params, BackwardShared<T>& shared) {
  const bool issues = threadIdx.x % 32 == 0;
  wait_for_previous_kernel();
  TileDrawer<kKeys> drawer(params.plan);
  Ring<T::kKeyBuffers> slot;
  Ring<T::kStages> ring;
  for (;; slot.advance()) {
    const DrawnTile drawn = drawer.draw();
    if (issues) {
      wait(shared.keys_empty[slot.index], slot.phase ^ 1);
      BackwardTile& tile = shared.tile[slot.index];
      if (drawn.cell == nullptr) {
        tile.num_blocks = -1;
        arrive(shared.keys_loaded[slot.index]);
        return;
      }
      const PlannedCell& cell = *drawn.cell;
      const int first = drawn.number_in_head * kKeys;
      const int num_blocks = first < cell.tile_length ? (cell.loop_length + kQueries - 1) / kQueries : 0;
      const int query_tail = cell.loop_length - (num_blocks - 1) * kQueries;
      const int key_token = cell.tile_token + first;
      const int query_token = cell.loop_token;
      tile = {.num_blocks = num_blocks,
              .query_tail = query_tail,
              .key_token = key_token,
              .query_token = query_token,
              .num_valid = cell.tile_length - first,
              .num_rows = cell.tile_rows - first,
              .head = drawn.head,
              .query_block = params.d_q.first_block(query_token, cell.cell),
              .number = drawn.number,
              .bias = cell.bias};
      Barrier& loaded = shared.keys_loaded[slot.index];
      // Every tile passes through the clearing warp, which hands it on.
      if (num_blocks == 0) {
        arrive(loaded);
      } else {
        arrive_expecting(loaded, 2 * T::kKeyBytes);
        for (int panel = 0; panel < T::kPanels; ++panel) {
          load_box(&shared.k[slot.index][panel * kKeys * 64], params.k, loaded, panel * 64, key_token,
                   drawn.head);
          load_box(&shared.v[slot.index][panel * kKeys * 64], params.v, loaded, panel * 64, key_token,
                   drawn.head);
        }
      }
#pragma unroll 1
      for (int block = 0; block < num_blocks; ++block, ring.advance()) {
        const int stage = ring.index;
        const int token = query_token + block * kQueries;
        const bool tail = block == num_blocks - 1 && query_tail < kQueries;
        const auto load = [&](auto& buffer, const CUtensorMap& map, Barrier& full) {
#pragma unroll 1
          for (int panel = 0; panel < T::kPanels; ++panel)
            load_box(&buffer[panel * kQueries * 64], map, full, panel * 64, token, drawn.head);
        };
        wait(shared.q_empty[stage], ring.phase ^ 1);
        Barrier& q_full = tail ? shared.queries_tail[stage] : shared.q_full[stage];
        arrive_expecting(q_full, tail ? 2 * T::kQueryBytes : T::kQueryBytes);
        load(shared.q[stage], params.q, q_full);
        wait(shared.d_o_empty[stage], ring.phase ^ 1);
        Barrier& d_o_full = tail ? shared.queries_tail[stage] : shared.d_o_full[stage];
        if (!tail) arrive_expecting(d_o_full, T::kQueryBytes);
        load(shared.d_o[stage], params.d_o, d_o_full);
      }
    } else if (drawn.cell == nullptr) {
      return;
    }
    __syncwarp();
  }
}

/// Warp 1: zeroes rows of K and V that belong to no key, of Q and dO that belong to no query, and hands the
/// tiles on.
template <class T>
__device__ void clear_tails(BackwardShared<T>& shared) {
  const int lane = threadIdx.x % 32;
  const auto clear = [lane](typename T::Element* buffer, int first_row, int num_rows) {
    for (int panel = 0; panel < T::kPanels; ++panel) {
      auto* rows = reinterpret_cast<uint4*>(buffer + panel * num_rows * 64);
      for (int piece = first_row * 8 + lane; piece < num_rows * 8; piece += 32)
        rows[piece] = make_uint4(0, 0, 0, 0);
    }
  };
  Ring<T::kKeyBuffers> slot;
  uint32_t tail_phases = 0;  // one bit per stage
  int stage = 0;
  for (;; slot.advance()) {
    wait(shared.keys_loaded[slot.index], slot.phase);
    const int num_blocks = shared.tile[slot.index].num_blocks;
    const int query_tail = shared.tile[slot.index].query_tail;
    const int num_valid = shared.tile[slot.index].num_valid;
    if (num_blocks > 0 && num_valid < kKeys) {
      clear(shared.k[slot.index], num_valid, kKeys);
      clear(shared.v[slot.index], num_valid, kKeys);
      fence_async_proxy();
    }
    __syncwarp();
    if (lane == 0) {
      arrive(shared.keys_full[slot.index]);
      arrive(shared.keys_empty[slot.index]);
    }
    if (num_blocks < 0) return;
    if (num_blocks == 0) continue;
    const int last = (stage + num_blocks - 1) % T::kStages;
    stage = (last + 1) % T::kStages;
    if (query_tail == kQueries) continue;
    wait(shared.queries_tail[last], (tail_phases >> last) & 1);
    tail_phases ^= 1U << last;
    clear(shared.q[last], query_tail, kQueries);
    clear(shared.d_o[last], query_tail, kQueries);
    fence_async_proxy();
    __syncwarp();
    if (lane == 0) {
      arrive(shared.q_full[last]);
      arrive(shared.d_o_full[last]);
    }
  }
}

}  // namespace scrna::kernels::sm90
