// Packs of cells with made-up tokens, for tests of model and trainer: the content of a cell depends on its id alone, so
// the same cell can be packed with others or by itself. Every fifth token is masked, from the third on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "lib/core/micro_batch.h"
#include "lib/core/random.h"

namespace scrna::test {

inline constexpr int64_t kPackedVocabulary = 50;
inline constexpr int32_t kPackedMask = 1;

/// cells: (id, number of tokens).
inline PackedMicroBatch pack(const std::vector<std::pair<uint64_t, int32_t>>& cells) {
  PackedMicroBatch result;
  result.cu_seqlens.push_back(0);
  for (const auto& [id, length] : cells) {
    const RandomStream stream(1, RandomPurpose::kMask, id);
    for (int32_t rank = 0; rank < length; ++rank) {
      const auto token =
          static_cast<int32_t>(4 + stream.below(kPackedVocabulary - 4, static_cast<uint64_t>(rank)));
      if (rank % 5 == 2) {
        result.masked_positions.push_back(static_cast<int32_t>(result.tokens.size()));
        result.masked_targets.push_back(token);
      }
      result.tokens.push_back(rank % 5 == 2 ? kPackedMask : token);
      result.ranks.push_back(rank);
    }
    result.cu_seqlens.push_back(static_cast<int32_t>(result.tokens.size()));
    result.cell_ids.push_back(id);
    result.max_cell_tokens = std::max(result.max_cell_tokens, length);
  }
  return result;
}

/// A global batch of the given packs, as optimizer step `step`.
inline GlobalBatch batch_of(int64_t step, std::vector<PackedMicroBatch> packs) {
  GlobalBatch batch{.step = step, .micro_batches = std::move(packs)};
  for (const PackedMicroBatch& pack : batch.micro_batches) {
    batch.num_cells += pack.num_cells();
    batch.num_tokens += pack.num_tokens();
    batch.num_masked += pack.num_masked();
  }
  return batch;
}

}  // namespace scrna::test
