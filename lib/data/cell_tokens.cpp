#include "lib/data/cell_tokens.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

constexpr int64_t kCellsPerRead = 128;

TokenizedCells tokenize_block(const Corpus& corpus, int32_t source, int64_t first_cell, int64_t num_cells,
                              Tokenizer& tokenizer, CellBlock& block) {
  const TokenCache* cache = corpus.cache();
  TokenizedCells cells{.first_cell = first_cell, .tokens = {}, .begin = {0}};
  if (cache == nullptr) {
    corpus.source(source).matrix->read_into(first_cell, num_cells, block);
    if (!corpus.is_whole(source)) check_values(corpus.source(source), block);
  }
  for (int64_t i = 0; i < num_cells; ++i) {
    if (corpus.role(source, first_cell + i) != CellRole::kLeftOut) {
      bool is_usable = true;
      if (cache != nullptr) {
        cache->append(source, first_cell + i, cells.tokens);
        is_usable = corpus.is_whole(source) || std::ssize(cells.tokens) > cells.begin.back();
      } else {
        const auto row = static_cast<std::size_t>(i);
        const auto begin = static_cast<std::size_t>(block.indptr[row]);
        const auto count = static_cast<std::size_t>(block.indptr[row + 1]) - begin;
        is_usable = corpus.is_usable(
            source, tokenizer.append(corpus.gene_map(source), std::span(block.genes).subspan(begin, count),
                                     std::span(block.values).subspan(begin, count), cells.tokens));
      }
      if (is_usable) {
        corpus.check_unchanged(source, std::ssize(cells.tokens) - cells.begin.back());
      } else {
        cells.tokens.resize(static_cast<std::size_t>(cells.begin.back()));
      }
    }
    cells.begin.push_back(std::ssize(cells.tokens));
  }
  return cells;
}

}  // namespace

TokenizedCells tokenize_cells(const Corpus& corpus, int32_t source, int64_t first_cell, int64_t num_cells) {
  SCRNA_CHECK(first_cell >= 0 && num_cells >= 0 &&
                  first_cell + num_cells <= corpus.source(source).matrix->num_cells(),
              "cells {} to {} of {}", first_cell, first_cell + num_cells,
              corpus.source(source).matrix->num_cells());
  const int64_t num_blocks = (num_cells + kCellsPerRead - 1) / kCellsPerRead;
  std::vector<TokenizedCells> blocks(static_cast<std::size_t>(num_blocks));
  std::atomic<int64_t> next_block = 0;
  std::exception_ptr problem;
  std::mutex mutex;  // guards problem
  const auto work = [&] {
    try {
      Tokenizer tokenizer(corpus.vocabulary(), corpus.tokenizer_config());
      CellBlock scratch;
      for (int64_t index = next_block++; index < num_blocks; index = next_block++) {
        const int64_t offset = index * kCellsPerRead;
        blocks[static_cast<std::size_t>(index)] =
            tokenize_block(corpus, source, first_cell + offset, std::min(kCellsPerRead, num_cells - offset),
                           tokenizer, scratch);
      }
    } catch (...) {
      const std::scoped_lock lock(mutex);
      if (!problem) problem = std::current_exception();
      next_block = num_blocks;
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int64_t i = 1; i < std::min(corpus.config().num_workers, num_blocks); ++i)
      threads.emplace_back(work);
    work();
  }
  if (problem) std::rethrow_exception(problem);
  TokenizedCells cells{.first_cell = first_cell, .tokens = {}, .begin = {0}};
  for (const TokenizedCells& block : blocks) {
    const int64_t offset = std::ssize(cells.tokens);
    cells.tokens.insert(cells.tokens.end(), block.tokens.begin(), block.tokens.end());
    for (int64_t cell = 0; cell < block.num_cells(); ++cell)
      cells.begin.push_back(offset + block.begin[static_cast<std::size_t>(cell) + 1]);
  }
  return cells;
}

}  // namespace scrna::data
