// The tokens of neighbouring cells of one file, in the order of its rows: what a pass over all cells of a
// file needs that neither shuffles nor masks (embeddings, exports). A cell that the corpus leaves out has no
// tokens; so row i of the file is cell i here. Several threads read and tokenize; their number does not show.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/data/corpus.h"

namespace scrna::data {

struct TokenizedCells {
  int64_t first_cell = 0;         // row of the file
  std::vector<int32_t> tokens;    // of all cells, one after another
  std::vector<int64_t> begin{0};  // [cells + 1]

  [[nodiscard]] int64_t num_cells() const { return static_cast<int64_t>(begin.size()) - 1; }
  /// Empty for a cell that is left out.
  [[nodiscard]] std::span<const int32_t> tokens_of(int64_t cell) const {
    const auto first = static_cast<std::size_t>(begin[static_cast<std::size_t>(cell)]);
    const auto last = static_cast<std::size_t>(begin[static_cast<std::size_t>(cell) + 1]);
    return std::span(tokens).subspan(first, last - first);
  }
};

/// Rows [first_cell, first_cell + num_cells) of a source of the corpus, by corpus.config().num_workers
/// threads. Throws DataError for a file that cannot be read, a value that no count can be, or a file that has
/// changed since the corpus was opened; InternalError for a range outside the file.
TokenizedCells tokenize_cells(const Corpus& corpus, int32_t source, int64_t first_cell, int64_t num_cells);

}  // namespace scrna::data
