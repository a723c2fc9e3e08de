// The one word that data, model and train share: a ragged pack of tokenised cells. No padding anywhere: the tokens
// of the cells stand one after another and cu_seqlens says where each cell begins. Shape letters: B cells, T tokens,
// M masked tokens (lib/README.md).
#pragma once

#include <cstdint>
#include <vector>

namespace scrna {

struct PackedMicroBatch {
  std::vector<int32_t> tokens;            // [T] input ids, <mask> already in place
  std::vector<int32_t> ranks;             // [T] position of the token inside its cell, 0 = most expressed
  std::vector<int32_t> cu_seqlens;        // [B+1] first token of each cell, cu_seqlens[B] == T
  std::vector<int32_t> masked_positions;  // [M] indices into tokens, ascending
  std::vector<int32_t> masked_targets;    // [M] the true token id at each masked position
  std::vector<uint64_t> cell_ids;         // [B] stable id of each cell in the data set: keys its random streams
  int32_t max_cell_tokens = 0;            // longest cell of this pack

  [[nodiscard]] int64_t num_cells() const { return static_cast<int64_t>(cell_ids.size()); }
  [[nodiscard]] int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  [[nodiscard]] int64_t num_masked() const { return static_cast<int64_t>(masked_positions.size()); }
};

/// The cells of one optimizer step on this rank, as micro-batches of bounded size.
struct GlobalBatch {
  int64_t step = 0;                               // optimizer step (0-based) these cells belong to
  int64_t epoch = 0;                              // epoch of the first cell
  std::vector<PackedMicroBatch> micro_batches;
  int64_t num_cells = 0;
  int64_t num_tokens = 0;
  int64_t num_masked = 0;                         // the loss is a mean over this many tokens
};

}  // namespace scrna
