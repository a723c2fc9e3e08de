// Puts the genes of a cell in the order of their scores: the sort of the tokenizer, made for some thousand
// pairs of a 32-bit key and a 22-bit token, of which the first `num_wanted` are asked for. One counting pass
// over the key's range with two to four times as many buckets as there are pairs (keys are the bits of float scores, so
// buckets are even in the logarithm), pairs of buckets beyond the last wanted one are never moved, and what a
// bucket holds is put in order by insertion. Buckets that are too full for that (many scores of nearly one
// size) are sorted by std::sort, so no input costs more than n log n. Measured with 2,000 pairs beside a
// comparison sort and the five-pass radix sort of 64-bit keys that this replaced: lib/data/README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace scrna::data {

/// One per thread: keeps its memory between calls.
class RankSorter {
 public:
  /// Writes to `out` [min(num_wanted, n)] the tokens of the smallest keys, by rising key, equal keys by
  /// rising token. keys, tokens [n]: tokens not negative, no (key, token) twice. `out` must not overlap them.
  void smallest_first(std::span<const uint32_t> keys, std::span<const int32_t> tokens, std::size_t num_wanted,
                      int32_t* out);

 private:
  std::vector<uint64_t> pairs_;   // key above, token below
  std::vector<uint32_t> places_;  // [buckets + 1]
};

}  // namespace scrna::data
