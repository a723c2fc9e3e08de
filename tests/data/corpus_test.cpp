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
using Texts = std::vector<std::string>;

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

TEST(Corpus, WholeFilesAreHeldOut) {
  DataConfig config = corpus_config();
  config.heldout_whole_files = true;
  config.heldout_fraction = 0.5;
  const Corpus corpus = make_corpus({100, 90, 110, 95}, config);
  int num_heldout = 0;
  for (const SourceReport& report : corpus.reports()) {
    EXPECT_TRUE(report.heldout_cells == 0 || report.training_cells == 0) << report.name;
    num_heldout += report.heldout_cells > 0 ? 1 : 0;
  }
  EXPECT_GE(num_heldout, 1);
  EXPECT_LE(corpus.num_heldout_cells(), 395 / 2);
  EXPECT_CONTAINS(
      test::message_of<DataError>([&] { return make_corpus(test::corpus_sources({100}), config); }),
      "data.heldout_whole_files: there is 1 of the files with cells");
}

TEST(Corpus, CellsThatAreNotChosenTakePartInNothing) {
  std::vector<CellSource> sources = test::corpus_sources({300, 150});
  sources[0].chosen.assign(300, true);
  for (std::size_t row = 100; row < 290; ++row)
    sources[0].chosen[row] = false;  // whole reads, and parts of some
  const Corpus corpus = make_corpus(sources);
  std::vector<Row> kept = test::corpus_rows(300, 1);
  kept.erase(kept.begin() + 100, kept.begin() + 290);
  std::vector<CellSource> without = test::corpus_sources({300, 150});
  without[0] = make_source("folder/file0.h5ad", test::corpus_genes(), kept);
  const Vocabulary expected = build_vocabulary(without, 1);
  EXPECT_EQ(build_vocabulary(sources, 1).text(), expected.text());
  EXPECT_EQ(corpus.reports()[0].chosen_cells, 110);
  EXPECT_EQ(corpus.reports()[0].tokens.cells, 110);
  EXPECT_EQ(corpus.reports()[1].chosen_cells, 150);
  for (int64_t row = 0; row < 300; ++row) {
    const bool is_left_out = (row >= 100 && row < 290) || row % 13 == 12;
    EXPECT_EQ(corpus.role(0, row) == CellRole::kLeftOut, is_left_out) << row;
  }
  const Corpus all = make_corpus({300, 150});
  for (int64_t row = 0; row < 100; ++row)
    EXPECT_EQ(corpus.role(0, row), all.role(0, row)) << "ids do not change";
}

TEST(Corpus, StrangeValuesOfCellsThatAreNotChosenDoNotMatter) {
  std::vector<Row> rows(50, Row{{0, 1}, {1, 2}});
  rows[7][1] = -1;
  std::vector<CellSource> sources = {make_source("a.h5ad", {"A", "B"}, rows)};
  EXPECT_CONTAINS(problem_with(sources), "in cell 7");
  sources[0].chosen.assign(50, true);
  sources[0].chosen[7] = false;
  EXPECT_EQ(problem_with(sources), "nothing was thrown");
}

TEST(Corpus, AFileWithoutChosenCellsIsAllowedBesideOthers) {
  std::vector<CellSource> sources = test::corpus_sources({300, 150});
  sources[1].chosen.assign(150, false);
  for (std::string& id : sources[1].gene_ids.ids)
    id = "OTHER" + id;  // nor must the vocabulary know its genes
  const Corpus corpus = make_corpus(sources);
  EXPECT_EQ(corpus.reports()[1].training_cells + corpus.reports()[1].heldout_cells, 0);
  EXPECT_GT(corpus.num_training_cells(), 0);
}

TEST(Corpus, ReportsTheLargestMissesOfEachFile) {
  // Genes 4 to 15 are unknown, gene i has i counts a cell; two columns of the same id are one miss.
  Texts genes;
  Row row;
  for (int32_t i = 0; i < 16; ++i) {
    genes.push_back("G" + std::to_string(i));
    row[i] = static_cast<float>(i);
  }
  genes[14] = "G15";
  std::vector<CellSource> sources = {make_source("a.h5ad", genes, std::vector<Row>(50, row))};
  DataConfig config = corpus_config();
  config.min_gene_hit_rate = 0;
  std::vector<Gene> known;
  for (const char* id : {"G1", "G2", "G3"}) known.push_back({.id = id, .median = 1});
  const Corpus corpus(sources, Vocabulary(known), config, {});
  const std::vector<MissedGene>& misses = corpus.reports()[0].largest_misses;
  ASSERT_EQ(misses.size(), 10U);
  EXPECT_EQ(misses[0].id, "G15");
  EXPECT_EQ(misses[0].counts, 50 * (14 + 15));
  EXPECT_EQ(misses[1].id, "G13");
  EXPECT_EQ(misses[9].id, "G5");
  EXPECT_EQ(misses[9].counts, 50 * 5);
  EXPECT_EQ(corpus.reports()[0].known_genes, 3);
  EXPECT_DOUBLE_EQ(corpus.reports()[0].tokens.count_hit_rate(), 6.0 / 120);
  EXPECT_TRUE(make_corpus(test::corpus_sources({60})).reports()[0].largest_misses.empty());
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
