// The tokens of a block of neighbouring training cells, for the loader: read, checked, tokenized, or taken from
// the cache; cells that turn out to be unusable replaced by others. What a place of the block gets is a pure
// function of (corpus, seed, epoch, place), whoever asks for it. Internal to lib/data.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "lib/data/corpus.h"
#include "lib/data/tokenizer.h"

namespace scrna::data {

/// The training cells of a block, in file order; those that were not asked for have no tokens.
struct BlockTokens {
  std::vector<int32_t> tokens;
  std::vector<std::pair<int64_t, int64_t>> spans;  // [cells] begin and end in tokens; of replaced cells, the other's
  std::vector<uint64_t> cell_ids;                  // [cells] of the cell whose tokens these are
  std::vector<uint64_t> mask_keys;                 // [cells] of the place: cells that come twice have two masks
  [[nodiscard]] std::span<const int32_t> tokens_of(std::size_t cell) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(spans[cell].first),
                                     static_cast<std::size_t>(spans[cell].second - spans[cell].first));
  }
};

/// Owns scratch memory: one for each thread. The corpus must outlive it.
class BlockReader {
 public:
  explicit BlockReader(const Corpus& corpus) : corpus_(corpus), tokenizer_(corpus.vocabulary(), corpus.tokenizer_config()) {}

  /// ranges: of the training cells. is_needed: one for each training cell of block `index`. Throws DataError: a
  /// damaged file, a value that no count can be, a cell that contradicts what was found when the corpus was opened,
  /// no usable cell in 64 blocks.
  BlockTokens read(std::span<const CellRange> ranges, std::size_t index, std::span<const uint8_t> is_needed,
                   uint64_t seed, int64_t epoch);

 private:
  void load(const CellRange& range);
  bool append(const CellRange& range, int64_t row, std::vector<int32_t>& out);
  [[nodiscard]] std::vector<int64_t> usable_rows(const CellRange& range);
  void replace(std::span<const CellRange> ranges, std::size_t index, std::span<const std::size_t> places,
               uint64_t seed, int64_t epoch, BlockTokens& result);

  const Corpus& corpus_;
  Tokenizer tokenizer_;
  CellBlock block_;
  std::vector<int32_t> unused_;
};

}  // namespace scrna::data
