// The tokens of a file's cells in the order of its rows: those of the tokenizer, by any number of threads.
#include "lib/data/cell_tokens.h"

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/memory_corpus.h"

namespace scrna::data {
namespace {

constexpr int64_t kCells = 500;

Corpus corpus_with(int64_t num_workers, int64_t min_genes = 1, int64_t scan_cells = 16384) {
  DataConfig config = test::corpus_config();
  config.num_workers = num_workers;
  config.min_genes = min_genes;
  config.scan_cells = scan_cells;
  return test::make_corpus(test::corpus_sources({30, kCells}), config);
}

TEST(CellTokens, EveryCellHasItsOwnAndThoseWithFewGenesNone) {
  constexpr int64_t kMinGenes = 8;                // below max_tokens, so that a cell's tokens tell
  for (const int64_t scan_cells : {16384, 64}) {  // all known before, or found out while reading
    const Corpus corpus = corpus_with(2, kMinGenes, scan_cells);
    EXPECT_EQ(corpus.is_whole(1), scan_cells > kCells);
    const TokenizedCells cells = tokenize_cells(corpus, 1, 0, kCells);
    ASSERT_EQ(cells.num_cells(), kCells);
    Tokenizer tokenizer(corpus.vocabulary(), corpus.tokenizer_config());
    int64_t left_out = 0;
    for (int64_t cell = 0; cell < kCells; ++cell) {
      std::vector<int32_t> expected;
      const CellBlock block = corpus.source(1).matrix->read(cell, 1);
      tokenizer.append(corpus.gene_map(1), block.genes, block.values, expected);
      if (std::ssize(expected) < kMinGenes) {
        expected.clear();
        ++left_out;
      }
      const auto tokens = cells.tokens_of(cell);
      EXPECT_EQ(std::vector<int32_t>(tokens.begin(), tokens.end()), expected) << "cell " << cell;
    }
    EXPECT_GT(left_out, kCells / 13);
    EXPECT_LT(left_out, kCells / 2);
  }
}

TEST(CellTokens, NeitherThreadsNorTheRangeShow) {
  const Corpus one = corpus_with(1), four = corpus_with(4);
  const TokenizedCells all = tokenize_cells(one, 1, 0, kCells), same = tokenize_cells(four, 1, 0, kCells);
  EXPECT_EQ(all.tokens, same.tokens);
  EXPECT_EQ(all.begin, same.begin);
  const TokenizedCells part = tokenize_cells(four, 1, 130, 300);
  EXPECT_EQ(part.first_cell, 130);
  for (int64_t cell = 0; cell < 300; ++cell) {
    const auto in_part = part.tokens_of(cell), in_all = all.tokens_of(130 + cell);
    ASSERT_TRUE(std::equal(in_part.begin(), in_part.end(), in_all.begin(), in_all.end())) << "cell " << cell;
  }
  EXPECT_EQ(tokenize_cells(one, 1, kCells, 0).num_cells(), 0);
  EXPECT_CONTAINS(test::message_of<InternalError>([&] { tokenize_cells(one, 1, 1, kCells); }),
                  "cells 1 to 501");
}

TEST(CellTokens, WhatAThreadMeetsIsThrown) {
  const Corpus corpus = corpus_with(3);
  const auto& matrix = dynamic_cast<const test::MemoryMatrix&>(*corpus.source(1).matrix);
  const_cast<test::MemoryMatrix&>(matrix).before_read = [](int64_t first) {
    if (first == 256) throw DataError("the file is gone");
  };
  EXPECT_EQ(test::message_of<DataError>([&] { tokenize_cells(corpus, 1, 0, kCells); }), "the file is gone");
}

}  // namespace
}  // namespace scrna::data
