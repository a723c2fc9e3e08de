// Which tokens of a cell are hidden. Of n gene tokens exactly max(1, round(fraction * n)) are masked, every
// set of that size equally likely (selection sampling, Knuth 3.4.2 S), drawn from the stream (seed, kMask,
// step, cell id): the same cell at the same step has the same mask whatever the number of workers or ranks.
// Always <mask>, never a random or kept token, as in arXiv 2604.27124 A.3.3. Rejected: a coin per token,
// whose number of targets varies and may be zero.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/core/random.h"

namespace scrna::data {

/// Number of masked tokens of a cell with `num_gene_tokens` > 0.
int64_t num_masked_tokens(int64_t num_gene_tokens, double fraction);

/// Appends the masked ones of 0 .. num_gene_tokens-1, ascending.
void choose_masked(const RandomStream& stream, int64_t num_gene_tokens, double fraction,
                   std::vector<int32_t>& out);

/// Stream of a training cell at an optimizer step.
inline RandomStream training_mask_stream(uint64_t seed, int64_t step, uint64_t cell_id) {
  return {seed, RandomPurpose::kMask, static_cast<uint64_t>(step), cell_id};
}
/// Stream of a held-out cell: fixed, so that every evaluation of every run hides the same tokens.
inline RandomStream heldout_mask_stream(uint64_t cell_id) {
  return {0, RandomPurpose::kMask, ~uint64_t{0}, cell_id};
}

}  // namespace scrna::data
