#include "lib/eval/heldout_loss.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/build_vocabulary.h"
#include "lib/eval/masked_loss.h"
#include "tests/support/memory_matrix.h"

namespace scrna::eval {
namespace {

constexpr int32_t kGenes = 40;
constexpr int64_t kCells = 60;

// Cell i expresses gene g when (i + g) is not divisible by 3; counts vary, so that ranks do.
data::CellSource cells() {
  std::vector<std::string> names;
  for (int32_t gene = 0; gene < kGenes; ++gene) names.push_back("GENE" + std::to_string(100 + gene));
  std::vector<test::Row> rows;
  for (int32_t cell = 0; cell < kCells; ++cell) {
    test::Row row;
    for (int32_t gene = 0; gene < kGenes; ++gene) {
      if ((cell + gene) % 3 != 0) row[gene] = static_cast<float>(1 + (cell * 7 + gene * 5) % 9);
    }
    rows.push_back(row);
  }
  return test::make_source("memory", names, rows);
}

struct HeldoutLossTest : testing::Test {
  static data::DataConfig data_config() {
    data::DataConfig config;
    config.heldout_fraction = 0.3;
    config.min_genes = 1;
    return config;
  }
  static data::Corpus make_corpus() {
    std::vector<data::CellSource> sources{cells()};
    data::Vocabulary vocabulary = data::build_vocabulary(sources, 1);
    return {std::move(sources), std::move(vocabulary), data_config(), {}};
  }
  data::Corpus corpus = make_corpus();
  data::HeldoutLoader loader{corpus, data::loader_options(data_config(), {}, 1, 8)};
  model::Encoder encoder{{.num_layers = 1, .width = 16, .num_heads = 2, .feed_forward_width = 32, .dropout = 0.5},
                         corpus.vocabulary().size(), 64, 3, at::kCPU};
  HeldoutEvaluator evaluator{loader, corpus.token_frequencies(), data::Vocabulary::kNumSpecial};

  HeldoutLoss evaluate() {
    HeldoutLoss loss;
    EXPECT_TRUE(evaluator.evaluate(encoder, [] { return false; }, loss));
    return loss;
  }
};

TEST_F(HeldoutLossTest, TheBaselinesAreThoseOfTheirDefinitions) {
  const HeldoutLoss loss = evaluate();
  EXPECT_EQ(loss.cells, corpus.num_heldout_cells());
  EXPECT_DOUBLE_EQ(loss.uniform_loss, std::log(kGenes));
  // Once more, from the masked tokens themselves.
  const std::vector<int64_t>& counts = corpus.token_frequencies();
  double total = 0;
  for (std::size_t token = data::Vocabulary::kNumSpecial; token < counts.size(); ++token) {
    total += static_cast<double>(counts[token]) + 1;
  }
  double sum = 0;
  int64_t masked = 0;
  loader.rewind();
  for (PackedMicroBatch pack; loader.next(pack);) {
    for (const int32_t target : pack.masked_targets) {
      sum -= std::log((static_cast<double>(counts[static_cast<std::size_t>(target)]) + 1) / total);
      ++masked;
    }
  }
  EXPECT_EQ(loss.masked_tokens, masked);
  EXPECT_NEAR(loss.gene_frequency_loss, sum / static_cast<double>(masked), 1e-12);
}

TEST_F(HeldoutLossTest, AnUntrainedModelIsNearUniformAndEveryEvaluationGivesTheSame) {
  const HeldoutLoss first = evaluate();
  EXPECT_NEAR(first.loss, std::log(corpus.vocabulary().size()), 0.2);
  EXPECT_EQ(evaluate().loss, first.loss);  // dropout is off, masks are fixed
}

// The smaller file is held out, and has enough entries but none in genes of the vocabulary.
TEST_F(HeldoutLossTest, HeldOutCellsOfWhichNoneIsUsableAreAnError) {
  std::vector<std::string> names = {"GENE101", "OTHER1", "OTHER2"};
  std::vector<data::CellSource> sources{
      test::make_source("good", {"GENE101", "GENE102"}, std::vector<test::Row>(600, {{0, 1}, {1, 2}})),
      test::make_source("bad", names, std::vector<test::Row>(300, {{1, 1}, {2, 2}}))};
  data::DataConfig config = data_config();
  config.heldout_whole_files = true;
  config.heldout_fraction = 0.4;
  config.scan_cells = 0;
  config.min_gene_hit_rate = 0;
  const data::Corpus mixed(sources, corpus.vocabulary(), config, {});
  data::HeldoutLoader none(mixed, data::loader_options(config, {}, 1, 8));
  HeldoutEvaluator evaluates_none{none, mixed.token_frequencies(), data::Vocabulary::kNumSpecial};
  HeldoutLoss loss;
  EXPECT_THROW(evaluates_none.evaluate(encoder, [] { return false; }, loss), DataError);
}

// Gene g stands in every (g + 1)th cell. With all tokens masked the guess of a cell is the mean over its genes.
TEST(MaskedLossBaseline, IsWhatGenesCostByTheCellsThatExpressThemWhereTheVocabularyWasBuilt) {
  constexpr int64_t kNumCells = 24, kNumGenes = 6;
  std::vector<std::string> names;
  for (int64_t gene = 0; gene < kNumGenes; ++gene) names.push_back("GENE" + std::to_string(gene));
  std::vector<test::Row> rows(kNumCells);
  std::vector<double> cells_of(kNumGenes);
  for (int64_t cell = 0; cell < kNumCells; ++cell) {
    for (int32_t gene = 0; gene < kNumGenes; ++gene) {
      if (cell % (gene + 1) != 0) continue;
      rows[cell][gene] = static_cast<float>(1 + gene);
      ++cells_of[gene];
    }
  }
  std::vector<data::CellSource> sources{test::make_source("memory", names, rows)};
  data::Vocabulary vocabulary = data::build_vocabulary(sources, 1);
  data::DataConfig config = HeldoutLossTest::data_config();
  const data::Corpus corpus(std::move(sources), std::move(vocabulary), config, {});
  const model::Encoder encoder({.num_layers = 1, .width = 16, .num_heads = 2, .feed_forward_width = 32},
                               corpus.vocabulary().size(), 64, 3, at::kCPU);
  const std::vector<int64_t> measured = {0, 6, 7, 12};
  const MaskedLoss loss = masked_loss(encoder, corpus, 0, measured, {.num_maskings = 3, .mask_fraction = 1});
  const double total = std::accumulate(cells_of.begin(), cells_of.end(), 0.0) + kNumGenes;
  double expected = 0;
  for (const int64_t cell : measured) {
    double sum = 0;
    for (const auto& [gene, count] : rows[cell]) sum += std::log(total / (cells_of[gene] + 1));
    expected += sum / static_cast<double>(rows[cell].size()) / static_cast<double>(measured.size());
  }
  EXPECT_EQ(loss.cells, 4);
  EXPECT_NEAR(loss.gene_frequency, expected, 1e-12);
  EXPECT_GT(std::abs(loss.gene_frequency - loss.uniform), 0.05) << "or the test could not tell them apart";
  EXPECT_DOUBLE_EQ(loss.uniform, std::log(kNumGenes));
}

TEST_F(HeldoutLossTest, ARequestToStopLeavesTheResultAlone) {
  HeldoutLoss loss{.loss = 123};
  EXPECT_FALSE(evaluator.evaluate(encoder, [] { return true; }, loss));
  EXPECT_EQ(loss.loss, 123);
}

}  // namespace
}  // namespace scrna::eval
