// The tokens of a block of neighbouring training cells, for the loader: read, checked, tokenized, or taken
// from the cache; cells that turn out to be unusable replaced by others. What a place of the block gets is a
// pure function of (corpus, seed, epoch, place), whoever asks for it. Internal to lib/data.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "lib/data/corpus.h"
#include "lib/data/sampling.h"
#include "lib/data/tokenizer.h"

namespace scrna::data {

/// The places of a block in an epoch: its training cells in file order, each as often as it stands there;
/// those that were not asked for have no tokens.
struct BlockTokens {
  std::vector<int32_t> tokens;
  std::vector<std::pair<int64_t, int64_t>> spans;  // [places] begin and end in tokens; copies share them
  std::vector<uint64_t> cell_ids;                  // [places] of the cell whose tokens these are
  std::vector<uint64_t> mask_keys;                 // [places] cells that come twice have two masks
  [[nodiscard]] std::span<const int32_t> tokens_of(std::size_t place) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(spans[place].first),
                                     static_cast<std::size_t>(spans[place].second - spans[place].first));
  }
};

/// Owns scratch memory: one for each thread. The corpus must outlive it.
class BlockReader {
 public:
  explicit BlockReader(const Corpus& corpus)
      : corpus_(corpus), tokenizer_(corpus.vocabulary(), corpus.tokenizer_config()) {}

  /// ranges: of the training cells. is_needed: one for each place of block `index`. sample: how often each
  /// cell stands in the epoch; nullptr: once. Throws DataError: a damaged file, a value that no count can be,
  /// a cell that contradicts what was found when the corpus was opened, no usable cell in 64 blocks.
  BlockTokens read(std::span<const CellRange> ranges, std::size_t index, std::span<const uint8_t> is_needed,
                   const EpochSample* sample, uint64_t seed, int64_t epoch);

 private:
  void load(const CellRange& range);
  bool append(const CellRange& range, int64_t row, std::vector<int32_t>& out);
  [[nodiscard]] std::vector<int64_t> usable_rows(const CellRange& range, std::span<const uint16_t> times);
  void replace(std::span<const CellRange> ranges, std::size_t index, std::span<const std::size_t> places,
               const EpochSample* sample, uint64_t seed, int64_t epoch, BlockTokens& result);

  const Corpus& corpus_;
  Tokenizer tokenizer_;
  CellBlock block_;
  std::vector<int32_t> unused_;
};

}  // namespace scrna::data
