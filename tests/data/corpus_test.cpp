// Roles, reports and refusals of a corpus.
#include "lib/data/corpus.h"

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/memory_corpus.h"

namespace scrna::data {
namespace {

using test::corpus_config;
using test::make_corpus;
using test::make_source;
using test::Row;

std::string problem_with(const std::vector<CellSource>& sources, const DataConfig& config = corpus_config()) {
  return test::message_of<DataError>([&] { make_corpus(sources, config); });
}

std::string problem_with_vocabulary(const std::vector<CellSource>& sources, std::vector<Gene> genes) {
  return test::message_of<DataError>(
      [&] { Corpus(sources, Vocabulary(std::move(genes)), corpus_config(), {}); });
}

TEST(Corpus, CellsWithTooFewGenesAreLeftOutAndTheRestIsSplit) {
  DataConfig config = corpus_config();
  config.min_genes = 10;
  const Corpus corpus = make_corpus({300, 150, 5}, config);
  int64_t num_left_out = 0;
  for (int32_t source = 0; source < 3; ++source) {
    const CountMatrix& matrix = *corpus.source(source).matrix;
    for (int64_t row = 0; row < matrix.num_cells(); ++row) {
      const bool is_left_out = corpus.role(source, row) == CellRole::kLeftOut;
      EXPECT_EQ(is_left_out, matrix.read(row, 1).genes.size() < 10);
      num_left_out += is_left_out ? 1 : 0;
    }
  }
  EXPECT_GT(num_left_out, 50);
  EXPECT_EQ(corpus.num_training_cells() + corpus.num_heldout_cells() + num_left_out, 455);
  EXPECT_NEAR(static_cast<double>(corpus.num_heldout_cells()), 0.1 * static_cast<double>(455 - num_left_out),
              5 * std::sqrt(0.09 * 455));
}

TEST(Corpus, DoesNotDependOnTheNumberOfThreads) {
  DataConfig config = corpus_config();
  config.num_workers = 1;
  const Corpus one = make_corpus({600, 150, 5}, config);
  config.num_workers = 4;
  const Corpus four = make_corpus({600, 150, 5}, config);
  EXPECT_EQ(one.token_frequencies(), four.token_frequencies());
  EXPECT_EQ(one.longest_cell_tokens(), four.longest_cell_tokens());
  EXPECT_EQ(one.total_report().sum.counts, four.total_report().sum.counts);
  EXPECT_EQ(one.num_heldout_cells(), four.num_heldout_cells());
}

TEST(Corpus, TokenFrequenciesCountTrainingCellsAfterTruncation) {
  const Corpus corpus = make_corpus({300, 150});
  std::vector<int64_t> expected(static_cast<std::size_t>(corpus.vocabulary().size()));
  Tokenizer tokenizer(corpus.vocabulary(), corpus.tokenizer_config());
  int64_t longest = 0;
  for (int32_t source = 0; source < 2; ++source) {
    for (int64_t row = 0; row < corpus.source(source).matrix->num_cells(); ++row) {
      const CellBlock block = corpus.source(source).matrix->read(row, 1);
      std::vector<int32_t> tokens;
      tokenizer.tokenize(corpus.gene_map(source), block.genes, block.values, tokens);
      if (corpus.role(source, row) == CellRole::kLeftOut) continue;
      longest = std::max(longest, std::ssize(tokens));
      if (corpus.role(source, row) != CellRole::kTraining) continue;
      for (const int32_t token : tokens) ++expected[static_cast<std::size_t>(token)];
    }
  }
  EXPECT_EQ(corpus.token_frequencies(), expected);
  EXPECT_EQ(corpus.longest_cell_tokens(), longest);
}

TEST(Corpus, ACellKeepsItsIdWhenFoldersMoveAndFilesAreAdded) {
  std::vector<CellSource> sources = test::corpus_sources({60, 70});
  const Corpus before = make_corpus(sources);
  sources[0].name = "/elsewhere/file0.h5ad";
  sources.insert(sources.begin(), make_source("new.h5ad", test::corpus_genes(), test::corpus_rows(80, 9)));
  const Corpus after = make_corpus(sources);
  EXPECT_EQ(before.cell_id(0, 5), after.cell_id(1, 5));
  EXPECT_EQ(before.cell_id(1, 69), after.cell_id(2, 69));
  std::set<uint64_t> ids;
  for (int32_t source = 0; source < 3; ++source)
    for (int64_t row = 0; row < after.source(source).matrix->num_cells(); ++row)
      ids.insert(after.cell_id(source, row));
  EXPECT_EQ(ids.size(), 60U + 70U + 80U);
}

TEST(Corpus, FilesOfTheSameNameAndShapeStillHaveDifferentCells) {
  std::vector<CellSource> sources = test::corpus_sources({60, 60});
  sources[1].name = "other/file0.h5ad";
  const Corpus corpus = make_corpus(sources);
  EXPECT_NE(corpus.cell_id(0, 0), corpus.cell_id(1, 0));
}

TEST(Corpus, GroupsAreHeldOutWhole) {
  DataConfig config = corpus_config();
  config.heldout_column = "donor";
  config.heldout_fraction = 0.4;
  std::vector<CellSource> sources = test::corpus_sources({300, 150});
  for (CellSource& source : sources) {
    source.groups.categories = {"d0", "d1", "d2", "d3"};
    for (int64_t row = 0; row < source.matrix->num_cells(); ++row)
      source.groups.codes.push_back(static_cast<int32_t>(row % 5) - 1);  // -1: no donor
  }
  const Corpus corpus = make_corpus(sources, config);
  std::set<int32_t> heldout, training;
  for (int32_t source = 0; source < 2; ++source) {
    for (int64_t row = 0; row < corpus.source(source).matrix->num_cells(); ++row) {
      const int32_t code = corpus.source(source).groups.codes[static_cast<std::size_t>(row)];
      if (corpus.role(source, row) == CellRole::kHeldout) heldout.insert(code);
      if (corpus.role(source, row) == CellRole::kTraining) training.insert(code);
    }
  }
  EXPECT_FALSE(heldout.empty());
  EXPECT_FALSE(heldout.contains(-1)) << "cells without a group stay in training";
  for (const int32_t code : heldout) EXPECT_FALSE(training.contains(code));
}

TEST(Corpus, RangesCoverTheCellsOfARoleInFileOrder) {
  const Corpus corpus = make_corpus({300, 150, 5});
  for (const CellRole role : {CellRole::kTraining, CellRole::kHeldout}) {
    for (const int64_t block : {1, 7, 1000}) {
      int64_t num_cells = 0;
      int64_t last = -1;
      for (const CellRange& range : corpus.ranges(role, block)) {
        int64_t here = 0;
        for (int64_t row = range.first_row; row < range.first_row + range.num_rows; ++row)
          here += corpus.role(range.source, row) == role ? 1 : 0;
        EXPECT_EQ(here, range.num_cells);
        EXPECT_GT(here, 0);
        EXPECT_LE(range.num_rows, block);
        EXPECT_GT(range.source * 1000 + range.first_row, last);
        last = range.source * 1000 + range.first_row;
        num_cells += here;
      }
      EXPECT_EQ(num_cells,
                role == CellRole::kTraining ? corpus.num_training_cells() : corpus.num_heldout_cells());
    }
  }
}

TEST(CorpusRefusals, NoGeneOfTheVocabularyNamesBothSides) {
  const std::string problem =
      problem_with_vocabulary(test::corpus_sources({60}), {{.id = "ENSG00000000001", .median = 1}});
  EXPECT_CONTAINS(problem, "file0.h5ad: no gene of the vocabulary: its 60 genes (GENE0, GENE1, GENE2");
  EXPECT_CONTAINS(problem, "ENSG00000000001");
  EXPECT_CONTAINS(problem, "data.gene_column");
}

TEST(CorpusRefusals, ALowHitRateNamesTheLargestMisses) {
  const std::vector<CellSource> sources = {
      make_source("a.h5ad", {"A", "B", "C"}, std::vector<Row>(50, Row{{0, 1}, {1, 8}, {2, 1}}))};
  const std::string problem = problem_with_vocabulary(sources, {{.id = "A", .median = 1}});
  EXPECT_CONTAINS(problem, "a.h5ad: only 10.0 % of its counts are in genes of the vocabulary");
  EXPECT_CONTAINS(problem, "The largest missing: B (80.0 %), C (10.0 %)");
}

TEST(CorpusRefusals, NothingUsableNothingToTrainOnNothingHeldOut) {
  DataConfig config = corpus_config();
  config.min_genes = 61;
  EXPECT_CONTAINS(problem_with(test::corpus_sources({60}), config),
                  "no usable cell: all 60 cells express fewer than 61 genes");
  config = corpus_config();
  config.heldout_fraction = 1 - 1e-9;
  EXPECT_CONTAINS(problem_with(test::corpus_sources({60}), config), "no cell is left to train on");
  config.heldout_fraction = 1e-9;
  EXPECT_CONTAINS(problem_with(test::corpus_sources({60}), config),
                  "no cell is held out: data.heldout_fraction is 1e-09");
}

TEST(CorpusRefusals, AFileOfZerosHasNothingToTrainOn) {
  const std::vector<CellSource> sources = {make_source("good.h5ad", {"A"}, std::vector<Row>(50, Row{{0, 1}})),
                                           make_source("zeros.h5ad", {"A"}, std::vector<Row>(50, Row{}))};
  EXPECT_CONTAINS(problem_with(sources), "zeros.h5ad: matrix X holds no value above zero");
}

TEST(CorpusRefusals, AValueThatCannotBeACountIsNamedWhereverItStands) {
  const auto problem_of = [](float value, bool is_counts) {
    std::vector<Row> rows(1000, Row{{0, 1}, {1, 2}});
    rows[777][1] = value;
    std::vector<CellSource> sources = {make_source("a.h5ad", {"A", "B"}, rows)};
    sources[0].is_counts = is_counts;
    const std::string building = test::message_of<DataError>([&] { return build_vocabulary(sources, 1); });
    EXPECT_EQ(building,
              problem_with_vocabulary(sources, {{.id = "A", .median = 1}, {.id = "B", .median = 1}}));
    return building;
  };
  for (const float bad : {-1.0F, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    EXPECT_CONTAINS(problem_of(bad, false), "a.h5ad: X holds ");
    EXPECT_CONTAINS(problem_of(bad, true), "in cell 777 (counted from 0), gene 'B'");
  }
  EXPECT_CONTAINS(problem_of(0.5F, true),
                  "X holds 0.5 in cell 777 (counted from 0), gene 'B'; expected raw counts");
  EXPECT_EQ(problem_of(0.5F, false), "nothing was thrown");
  EXPECT_EQ(problem_of(2.00001F, true), "nothing was thrown") << "rounding noise is forgiven";
}

}  // namespace
}  // namespace scrna::data
