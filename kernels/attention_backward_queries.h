// The dQ warpgroup of the backward kernel.
#pragma once

#include "kernels/attention_backward_tile.h"
#include "kernels/device/named_barrier.h"
#include "kernels/device/wgmma.h"

namespace scrna::kernels::sm90 {

using namespace device;

/// Warpgroup 3: dQ += dS K.
template <class T>
__device__ __forceinline__ void add_query_gradients(const BackwardParams& params, BackwardShared<T>& shared) {
  const int thread = threadIdx.x % 128;
  const bool leads = thread == 0;
  const uint64_t d_s = panel_descriptor(shared.d_s[0], kKeys * 128);
  const uint64_t k = panel_descriptor(shared.k[0], kKeys * 128);
  Ring<T::kKeyBuffers> slot;
  Ring<kScoreBuffers> scores;
  int piece_buffer = 0;
  for (;; slot.advance()) {
    wait(shared.keys_full[slot.index], slot.phase);
    const BackwardTile& tile = shared.tile[slot.index];
    const int num_blocks = tile.num_blocks;
    if (num_blocks < 0) break;
    float* piece = params.d_q.piece(tile.query_block, tile.head, 0);
    if (num_blocks == 0) named_sync(kQueryBarrier, 128);  // all have read the tile
    for (int block = 0; block < num_blocks; ++block, scores.advance()) {
      named_sync(kScoresReady + scores.index, 384);
#pragma unroll
      for (int panel = 0; panel < T::kPanels; ++panel) {
        float d_q[32];
        pin(d_q);
        products_begin();
#pragma unroll
        for (int step = 0; step < kKeys / 16; ++step)
          Product<typename T::Element, 64, Major::kOuter, Major::kOuter>::shared(
              d_q, d_s + ((scores.index * kKeys * kQueries * 2 + step * 2048) >> 4),
              k + ((slot.index * T::kKeyBytes + panel * kKeys * 128 + step * 2048) >> 4), step != 0);
        products_commit();
        if (leads) bulk_wait_read<1>();
        products_wait<0>();
        pin(d_q);
        if (leads && panel == T::kPanels - 1) arrive(shared.d_s_empty[scores.index]);
        named_sync(kQueryBarrier, 128);  // the buffer of two pieces ago has been read
        float* staged = shared.pieces[piece_buffer];
#pragma unroll
        for (int i = 0; i < 8; ++i)
          *reinterpret_cast<float4*>(staged + QueryGradient::offset(i, thread)) =
              make_float4(d_q[4 * i], d_q[4 * i + 1], d_q[4 * i + 2], d_q[4 * i + 3]);
        fence_async_proxy();
        named_sync(kQueryBarrier, 128);
        if (leads) {
          bulk_add(piece + panel * kPieceFloats, staged, kPieceFloats * sizeof(float));
          bulk_commit();
        }
        piece_buffer ^= 1;
      }
      piece += params.d_q.block_stride();
    }
    if (leads) arrive(shared.keys_empty[slot.index]);
  }
  if (leads) bulk_wait<0>();
}

}  // namespace scrna::kernels::sm90
