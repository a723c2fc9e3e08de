// Which cells of a step share a micro-batch. Cells taken in order, as many as fit, make 3 to 13 % more packs;
// here the cells of a step are few, all known, and free to go anywhere, since masks and dropout are keyed by
// cell and the loss is a mean over the step. So: as few packs as the budget allows, as even as can be.
// Minimal bin packing is NP-hard; longest-first into the emptiest pack (LPT, even) and best fit decreasing
// (few) come close to the bound on the lengths of cells, at n log n (numbers: lib/data/README.md). Rejected:
// multiway differencing (Karmarkar-Karp), which costs cells times packs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace scrna::data {

/// Distributes cells of these lengths (tokens, each above 0) over packs of at most `tokens_per_micro_batch`;
/// a longer cell makes a pack of its own. Returns the indices of each pack's cells, ascending; packs stand in
/// the order of their first cells. Never more packs than cells taken in order would fill. A pure function of
/// its arguments.
std::vector<std::vector<int32_t>> plan_packs(std::span<const int32_t> lengths,
                                             int64_t tokens_per_micro_batch);

}  // namespace scrna::data
