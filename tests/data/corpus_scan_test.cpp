// Corpora too large to be read before the first step: what is known of their cells, and what takes the place
// of cells that turn out to be unusable.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/loader.h"
#include "tests/support/expect_error.h"
#include "tests/support/loader_batches.h"
#include "tests/support/memory_corpus.h"

namespace scrna::data {
namespace {

using test::batches_of;
using test::cells_of;
using test::options_for;

using test::MemoryMatrix;
using test::Row;

constexpr int64_t kMinGenes = 4;

DataConfig lazy_config() {
  DataConfig config = test::corpus_config();
  config.min_genes = kMinGenes;
  config.scan_cells = 0;  // two looks into each file
  config.min_gene_hit_rate = 0;
  return config;
}

// The vocabulary knows the first 20 of 60 genes: many cells store enough entries but few of these.
Vocabulary few_genes() {
  std::vector<Gene> genes;
  for (int32_t i = 0; i < 20; ++i)
    genes.push_back({.id = "GENE" + std::to_string(i), .median = 1.0F + static_cast<float>(i)});
  return Vocabulary(std::move(genes));
}
Corpus lazy_corpus(const std::vector<CellSource>& sources, const DataConfig& config = lazy_config()) {
  return {sources, few_genes(), config, {.max_tokens = 32}};
}
const std::vector<int64_t> kCells = {900, 600, 300};

int64_t vocabulary_genes(const Corpus& corpus, int32_t source, int64_t row) {
  const CellBlock block = corpus.source(source).matrix->read(row, 1);
  return std::count_if(block.genes.begin(), block.genes.end(), [](int32_t gene) { return gene < 20; });
}

std::vector<std::vector<int32_t>> texts_of(const GlobalBatch& batch) {
  std::vector<std::vector<int32_t>> texts;
  for (const PackedMicroBatch& pack : batch.micro_batches) {
    texts.push_back(pack.tokens);
    texts.push_back(pack.masked_targets);
    texts.push_back(pack.cu_seqlens);
  }
  return texts;
}

TEST(CorpusScan, CellsWithTooFewEntriesAreLeftOutAndTheRestKeepsItsPlace) {
  const Corpus corpus = lazy_corpus(test::corpus_sources(kCells));
  for (int32_t source = 0; source < 3; ++source) {
    EXPECT_FALSE(corpus.is_whole(source));
    EXPECT_TRUE(corpus.reports()[static_cast<std::size_t>(source)].is_estimate());
    for (int64_t row = 0; row < kCells[static_cast<std::size_t>(source)]; ++row)
      EXPECT_EQ(corpus.role(source, row) == CellRole::kLeftOut,
                corpus.source(source).matrix->stored_entries(row) < kMinGenes);
  }
  EXPECT_EQ(corpus.longest_cell_tokens(), 20) << "no cell has more tokens than the vocabulary genes";
  EXPECT_GT(corpus.total_report().cells, 0);
  EXPECT_LT(corpus.total_report().cells, 900) << "they must not have been read whole";
}

TEST(CorpusScan, AnEpochHoldsEveryUsableCellAndNoOther) {
  const Corpus corpus = lazy_corpus(test::corpus_sources(kCells));
  const int64_t num_cells = corpus.num_training_cells();
  std::set<uint64_t> usable;
  int64_t num_unusable = 0;
  for (int32_t source = 0; source < 3; ++source) {
    for (int64_t row = 0; row < kCells[static_cast<std::size_t>(source)]; ++row) {
      if (corpus.role(source, row) != CellRole::kTraining) continue;
      if (vocabulary_genes(corpus, source, row) >= kMinGenes)
        usable.insert(corpus.cell_id(source, row));
      else
        ++num_unusable;
    }
  }
  ASSERT_GT(num_unusable, 100);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    LoaderOptions options = options_for(corpus, 1);
    options.first_step = epoch * num_cells;
    std::map<uint64_t, int64_t> times;
    for (const GlobalBatch& batch : batches_of(corpus, options, num_cells))
      for (const uint64_t id : cells_of(batch)) ++times[id];
    std::set<uint64_t> seen;
    int64_t sum = 0;
    for (const auto& [id, count] : times) {
      seen.insert(id);
      sum += count;
    }
    EXPECT_EQ(seen, usable);
    EXPECT_EQ(sum, num_cells) << "every place is filled";
  }
}

TEST(CorpusScan, ReplacedCellsAreDrawnAnewEachEpoch) {
  const Corpus corpus = lazy_corpus(test::corpus_sources({900}));
  const int64_t num_cells = corpus.num_training_cells();
  std::vector<std::map<uint64_t, int64_t>> times(2);
  for (std::size_t epoch = 0; epoch < 2; ++epoch) {
    LoaderOptions options = options_for(corpus, 1);
    options.first_step = static_cast<int64_t>(epoch) * num_cells;
    for (const GlobalBatch& batch : batches_of(corpus, options, num_cells))
      for (const uint64_t id : cells_of(batch)) ++times[epoch][id];
  }
  EXPECT_NE(times[0], times[1]);
}

TEST(CorpusScan, BatchesDoNotDependOnWorkersRanksOrWhereTheyBegin) {
  const Corpus corpus = lazy_corpus(test::corpus_sources(kCells));
  LoaderOptions options = options_for(corpus);
  const std::vector<GlobalBatch> expected = batches_of(corpus, options, 60);
  options.num_workers = 5;
  const std::vector<GlobalBatch> others = batches_of(corpus, options, 60);
  for (std::size_t step = 0; step < 60; ++step) ASSERT_EQ(texts_of(expected[step]), texts_of(others[step]));
  for (const int64_t first : {1, 11, 29, 57}) {
    options.first_step = first;
    EXPECT_EQ(texts_of(batches_of(corpus, options, 1)[0]),
              texts_of(expected[static_cast<std::size_t>(first)]));
  }
  options.first_step = 0;
  for (const int64_t num_ranks : {2, 7, 64}) {
    options.num_ranks = num_ranks;
    std::vector<std::vector<uint64_t>> shared(60);
    for (options.rank = 0; options.rank < num_ranks; ++options.rank) {
      const std::vector<GlobalBatch> part = batches_of(corpus, options, 60);
      for (std::size_t step = 0; step < 60; ++step)
        for (const uint64_t id : cells_of(part[step])) shared[step].push_back(id);
    }
    for (std::size_t step = 0; step < 60; ++step) {
      std::vector<uint64_t> whole = cells_of(expected[step]);
      ASSERT_EQ(whole.size(), 64U);
      std::sort(whole.begin(), whole.end());
      std::sort(shared[step].begin(), shared[step].end());
      ASSERT_EQ(shared[step], whole) << num_ranks << " ranks, step " << step;
    }
  }
}

TEST(CorpusScan, ABlockWithoutUsableCellsTakesThoseOfTheNext) {
  std::vector<Row> rows(400, Row{{0, 1}, {1, 1}, {2, 1}, {3, 1}});
  for (std::size_t row = 100; row < 200; ++row) rows[row] = Row{{30, 1}, {31, 1}, {32, 1}, {33, 1}};
  const Corpus corpus = lazy_corpus({test::make_source("a.h5ad", test::corpus_genes(), rows)});
  LoaderOptions options = options_for(corpus, corpus.num_training_cells());
  for (const uint64_t id : cells_of(batches_of(corpus, options, 1)[0])) {
    const uint64_t row = id & 0xffffffffU;
    EXPECT_TRUE(row < 100 || row >= 200);
  }
}

TEST(CorpusScan, ManyBlocksWithoutUsableCellsAreAnError) {
  std::vector<Row> rows(4000, Row{{30, 1}, {31, 1}, {32, 1}, {33, 1}});
  for (std::size_t row = 0; row < 64; ++row)
    rows[row] = rows[3999 - row] = Row{{0, 1}, {1, 1}, {2, 1}, {3, 1}};
  const Corpus corpus = lazy_corpus({test::make_source("a.h5ad", test::corpus_genes(), rows)});
  const std::string problem = test::message_of<DataError>(
      [&] { batches_of(corpus, options_for(corpus, corpus.num_training_cells()), 1); });
  EXPECT_CONTAINS(problem, "a.h5ad: no cell of 64 blocks from cell");
  EXPECT_CONTAINS(problem, "data.scan_cells=");
}

TEST(CorpusScan, HeldOutCellsThatAreNotUsableArePassedOver) {
  const Corpus corpus = lazy_corpus(test::corpus_sources(kCells));
  std::set<uint64_t> expected, seen;
  for (int32_t source = 0; source < 3; ++source)
    for (int64_t row = 0; row < kCells[static_cast<std::size_t>(source)]; ++row)
      if (corpus.role(source, row) == CellRole::kHeldout &&
          vocabulary_genes(corpus, source, row) >= kMinGenes)
        expected.insert(corpus.cell_id(source, row));
  HeldoutLoader loader(corpus, options_for(corpus));
  for (PackedMicroBatch pack; loader.next(pack);) seen.insert(pack.cell_ids.begin(), pack.cell_ids.end());
  EXPECT_EQ(seen, expected);
  EXPECT_LT(std::ssize(seen), corpus.num_heldout_cells());
}

TEST(CorpusScan, AValueThatCannotBeACountIsFoundWhenItIsRead) {
  std::vector<Row> rows(1000, Row{{0, 1}, {1, 2}, {2, 3}, {3, 4}});
  rows[500][1] = 0.5F;  // not where the corpus looks
  std::vector<CellSource> sources = {test::make_source("a.h5ad", test::corpus_genes(), rows)};
  sources[0].is_counts = true;
  const Corpus corpus = lazy_corpus(sources);
  const std::string problem =
      test::message_of<DataError>([&] { batches_of(corpus, options_for(corpus), 20); });
  EXPECT_CONTAINS(problem, "a.h5ad: X holds 0.5 in cell 500 (counted from 0), gene 'GENE1'");
}

TEST(CorpusScan, DenseAndSmallFilesAreReadWhole) {
  std::vector<CellSource> sources = test::corpus_sources({900, 60});
  auto dense = std::make_shared<MemoryMatrix>(test::kCorpusGenes, test::corpus_rows(600, 5));
  dense->is_dense = true;
  sources.push_back(sources[0]);
  sources[2].name = "dense.h5ad";
  sources[2].matrix = dense;
  const Corpus corpus = lazy_corpus(sources);
  EXPECT_FALSE(corpus.is_whole(0));
  EXPECT_TRUE(corpus.is_whole(1)) << "two looks are all there is";
  EXPECT_TRUE(corpus.is_whole(2));
  for (int64_t row = 0; row < 600; ++row)
    EXPECT_EQ(corpus.role(2, row) == CellRole::kLeftOut, vocabulary_genes(corpus, 2, row) < kMinGenes);
  DataConfig config = lazy_config();
  config.scan_cells = 1560;
  EXPECT_TRUE(lazy_corpus(sources, config).is_whole());
  config.scan_cells = 1559;
  EXPECT_FALSE(lazy_corpus(sources, config).is_whole());
}

TEST(CorpusScan, TheEstimateIsNearTheTruthAndLooksAtWhatWasAskedFor) {
  DataConfig config = lazy_config();
  config.scan_cells = 2000;
  const std::vector<CellSource> sources = test::corpus_sources({12000, 8000});
  const Corpus estimated = lazy_corpus(sources, config);
  config.scan_cells = 20000;
  const Corpus whole = lazy_corpus(sources, config);
  EXPECT_NEAR(static_cast<double>(estimated.total_report().cells), 2000, 256);
  EXPECT_NEAR(estimated.total_report().count_hit_rate(), whole.total_report().count_hit_rate(), 0.01);
  EXPECT_NEAR(estimated.mean_cell_tokens(), whole.mean_cell_tokens(), 0.3);
}

TEST(CorpusScan, NoUsableCellAmongThoseLookedAtIsAnError) {
  const std::vector<Row> rows(1024, Row{{0, 1}, {31, 1}, {32, 1}, {33, 1}});
  EXPECT_CONTAINS(test::message_of<DataError>(
                      [&] { lazy_corpus({test::make_source("a.h5ad", test::corpus_genes(), rows)}); }),
                  "no usable cell: all 256 cells");
}

}  // namespace
}  // namespace scrna::data
