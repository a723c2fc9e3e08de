// One epoch of a set of sources in the order that training has, as batches of whole cells in memory: what
// loaders of other projects deliver. Threads read (and tokenize) the blocks of a window, wait for each other,
// then copy the window's cells into batches in their shuffled order. Not what trains: TrainLoader masks and
// packs, too, and overlaps windows.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/data/cell_source.h"
#include "lib/data/token_cache.h"
#include "lib/data/tokenizer.h"

namespace scrna::bench {

struct ShuffledPassOptions {
  int64_t workers = 1, block_cells = 128, window_cells = 8192, batch_cells = 256;
  uint64_t seed = 0;
  int64_t epoch = 0;
};

struct PassTotals {
  int64_t cells = 0;
  int64_t entries = 0;
  uint64_t checksum = 0;  // of all ids delivered, whatever their order
};

/// Genes and values of every cell of the sources.
PassTotals pass_over_values(const std::vector<data::CellSource>& sources, const ShuffledPassOptions& options);
/// Tokens of every cell; maps[i] belongs to sources[i].
PassTotals pass_over_tokens(const std::vector<data::CellSource>& sources,
                            const std::vector<data::GeneMap>& maps, const data::Vocabulary& vocabulary,
                            const data::TokenizerConfig& tokenizer, const ShuffledPassOptions& options);

/// The same tokens from a cache of the sources.
PassTotals pass_over_cache(const std::vector<data::CellSource>& sources, const data::TokenCache& cache,
                           const ShuffledPassOptions& options);

}  // namespace scrna::bench
