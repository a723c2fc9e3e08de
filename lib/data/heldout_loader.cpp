#include <algorithm>
#include <utility>

#include "lib/core/error.h"
#include "lib/data/loader.h"
#include "lib/data/masking.h"
#include "lib/data/packing.h"
#include "lib/data/split.h"

namespace scrna::data {
namespace {

struct Cell {
  int32_t source;
  int64_t row;
  auto operator<=>(const Cell&) const = default;
};

std::vector<Cell> choose_cells(const Corpus& corpus) {
  std::vector<std::pair<double, Cell>> cells;
  for (const CellRange& range : corpus.ranges(CellRole::kHeldout, corpus.config().shuffle_block_cells)) {
    for (int64_t row = range.first_row; row < range.first_row + range.num_rows; ++row) {
      if (corpus.role(range.source, row) != CellRole::kHeldout) continue;
      cells.emplace_back(split_position(corpus.config().heldout_seed, corpus.cell_id(range.source, row)),
                         Cell{range.source, row});
    }
  }
  const auto limit = static_cast<std::size_t>(corpus.config().heldout_cells);
  if (cells.size() > limit) {
    std::nth_element(cells.begin(), cells.begin() + static_cast<std::ptrdiff_t>(limit), cells.end());
    cells.resize(limit);
  }
  std::vector<Cell> chosen;
  for (const auto& [position, cell] : cells) chosen.push_back(cell);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace

HeldoutLoader::HeldoutLoader(const Corpus& corpus, const LoaderOptions& options)
    : mask_fraction_(options.mask_fraction), tokens_per_micro_batch_(options.tokens_per_micro_batch) {
  SCRNA_CHECK(options.rank >= 0 && options.rank < options.num_ranks, "rank {} of {}", options.rank,
              options.num_ranks);
  const std::vector<Cell> chosen = choose_cells(corpus);
  std::vector<Cell> cells;
  for (auto i = static_cast<std::size_t>(options.rank); i < chosen.size();
       i += static_cast<std::size_t>(options.num_ranks)) {
    cells.push_back(chosen[i]);
  }
  Tokenizer tokenizer(corpus.vocabulary(), corpus.tokenizer_config());
  const int64_t block_cells = corpus.config().shuffle_block_cells;
  cell_begin_.push_back(0);
  for (std::size_t first = 0; first < cells.size();) {
    std::size_t last = first;  // cells of the same block are read together
    while (last + 1 < cells.size() && cells[last + 1].source == cells[first].source &&
           cells[last + 1].row - cells[first].row < block_cells) {
      ++last;
    }
    const int32_t source = cells[first].source;
    const int64_t first_row = cells[first].row;
    const TokenCache* cache = corpus.cache();
    CellBlock block;
    if (cache == nullptr) {
      corpus.source(source).matrix->read_into(first_row, cells[last].row - first_row + 1, block);
      if (!corpus.is_whole(source)) check_values(corpus.source(source), block);
    }
    for (; first <= last; ++first) {
      bool is_usable = true;
      if (cache != nullptr) {
        cache->append(source, cells[first].row, tokens_);
        is_usable = corpus.is_whole(source) || std::ssize(tokens_) > cell_begin_.back();
      } else {
        const auto row = static_cast<std::size_t>(cells[first].row - first_row);
        const auto begin = static_cast<std::size_t>(block.indptr[row]);
        const auto count = static_cast<std::size_t>(block.indptr[row + 1]) - begin;
        is_usable = corpus.is_usable(
            source, tokenizer.append(corpus.gene_map(source), std::span(block.genes).subspan(begin, count),
                                     std::span(block.values).subspan(begin, count), tokens_));
      }
      if (!is_usable) {
        tokens_.resize(static_cast<std::size_t>(cell_begin_.back()));
        continue;
      }
      corpus.check_unchanged(source, std::ssize(tokens_) - cell_begin_.back());
      cell_begin_.push_back(static_cast<int64_t>(tokens_.size()));
      cell_ids_.push_back(corpus.cell_id(source, cells[first].row));
    }
  }
}

bool HeldoutLoader::next(PackedMicroBatch& out) {
  Packer packer(tokens_per_micro_batch_, mask_fraction_);
  for (; cursor_ < cell_ids_.size(); ++cursor_) {
    const auto begin = static_cast<std::size_t>(cell_begin_[cursor_]);
    const auto end = static_cast<std::size_t>(cell_begin_[cursor_ + 1]);
    const auto tokens = std::span(tokens_).subspan(begin, end - begin);
    if (packer.is_full_for(std::ssize(tokens))) break;
    packer.add(tokens, cell_ids_[cursor_], heldout_mask_stream(cell_ids_[cursor_]));
  }
  if (packer.is_empty()) return false;
  out = packer.take();
  return true;
}

}  // namespace scrna::data
