// Which tile of work a persistent block takes next. Lengths of cells differ by 40 times inside one launch and
// are known on the device only, so a small kernel before the attention kernel sorts the cells, longest inner
// loop first, and counts their tiles; blocks then draw tiles by an atomic ticket. Longest first keeps the
// last round short; tickets (rather than a fixed stride) keep the balance when other kernels hold some
// multiprocessors, and make waiting for an earlier tile safe: whoever holds a lower ticket is running.
//
// Forward: a tile is kTile queries of a cell and head, its loop runs over the cell's keys. Backward: the
// other way round.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/attention.h"

namespace scrna::kernels {

/// A cell as the attention kernel needs it. Cells are in the order of the plan; its tiles are numbered
/// [tile_end of the cell before, tile_end), head by head.
struct alignas(32) PlannedCell {
  int32_t tile_end;
  int32_t cell;         // index in the caller's order
  int32_t tile_token;   // first token on the side that is tiled
  int32_t tile_length;  // its valid tokens
  int32_t tile_rows;    // tokens to write: valid ones, and padding that must become zero
  int32_t loop_token;   // first token on the side of the inner loop
  int32_t loop_length;
  float bias;  // of the cell, natural units; 0 where there are no keys
};

struct Plan {
  int32_t* next_tile;  // the ticket counter
  int32_t* num_tiles;
  PlannedCell* cells;  // [B]
  int32_t num_cells;
  int32_t num_heads;
};

struct PlanRequest {
  const AttentionShape* shape;
  bool tile_queries;      // forward: true; backward: false
  int tile_tokens;        // tokens per tile
  void* zero = nullptr;   // memory that the same launch sets to zero
  size_t zero_bytes = 0;  // multiple of 16
};

size_t plan_bytes(const AttentionShape& shape);
/// Upper bound of the number of tiles, known on the host.
int64_t max_tiles(const AttentionShape& shape, bool tile_queries, int tile_tokens);
/// The plan inside `memory` (plan_bytes, aligned to 32).
Plan plan_in(void* memory, const AttentionShape& shape);
/// Fills it, asynchronously.
cudaError_t make_plan(const Plan& plan, const PlanRequest& request, cudaStream_t stream);

#ifdef __CUDACC__

/// A tile that was drawn. Few registers: the rest is read from the plan when needed.
struct DrawnTile {
  const PlannedCell* cell;  // null: there are no tiles left
  int number;               // in the plan
  int head;
  int number_in_head;
};

/// Draws tiles for one warp; all lanes call and get the same answers.
template <int kTile>
class TileDrawer {
 public:
  /// Asks for the first ticket, unless the calling warp is one that will not draw.
  __device__ explicit TileDrawer(const Plan& plan, bool draws = true) : plan_(plan) { ask(draws); }

  /// The next tile. Asks for the ticket after it, so that the answer travels while this tile is loaded, or
  /// leaves that to the caller.
  __device__ DrawnTile draw(bool asks = true) {
    const int number = __shfl_sync(~0U, ticket_, 0);
    if (number >= *plan_.num_tiles) return {nullptr, 0, 0, 0};
    if (asks) ask();
    unsigned found = 0;
    for (;; first_cell_ += 32) {  // tickets rise, so the search goes on where it ended
      const int candidate = first_cell_ + static_cast<int>(threadIdx.x % 32);
      found = __ballot_sync(~0U, candidate < plan_.num_cells && number < plan_.cells[candidate].tile_end);
      if (found != 0) break;
    }
    first_cell_ += __ffs(found) - 1;
    const PlannedCell* cell = plan_.cells + first_cell_;
    const int tiles_per_head = (cell->tile_rows + kTile - 1) / kTile;
    const int in_cell = number - (cell->tile_end - tiles_per_head * plan_.num_heads);
    const int head = in_cell / tiles_per_head;
    return {cell, number, head, in_cell - head * tiles_per_head};
  }

  /// Called by every warp, also by those that will not draw: the old ticket ends here for all.
  __device__ void ask(bool draws = true) {
    ticket_ = 0;
    if (draws && threadIdx.x % 32 == 0) ticket_ = atomicAdd(plan_.next_tile, 1);
  }

 private:
  const Plan& plan_;
  int first_cell_ = 0;
  int ticket_ = 0;
};

#endif

}  // namespace scrna::kernels
