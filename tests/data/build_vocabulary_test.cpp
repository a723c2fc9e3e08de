#include "lib/data/build_vocabulary.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "tests/support/memory_matrix.h"

namespace scrna::data {
namespace {

using test::make_source;
using test::Row;

TEST(BuildVocabulary, MediansAreThoseOfCountsPerTenThousandOverExpressingCells) {
  // Cell totals 10, 20, 5: one count is 1000, 500, 2000 per 10,000.
  const std::vector<CellSource> sources = {
      make_source("a", {"B", "A", "C"}, {{{0, 4}, {1, 6}}, {{1, 20}}, {{0, 1}, {1, 4}}})};
  const Vocabulary vocabulary = build_vocabulary(sources, 1);
  ASSERT_EQ(vocabulary.genes().size(), 2U);  // C is never expressed
  EXPECT_EQ(vocabulary.genes()[0], (Gene{.id = "A", .median = 8000, .cells = 3, .counts = 30}));
  EXPECT_EQ(vocabulary.genes()[1], (Gene{.id = "B", .median = 3000, .cells = 2, .counts = 5}));
}

TEST(BuildVocabulary, ColumnsOfOneFileWithTheSameIdAreOneGeneWithSummedCounts) {
  const std::vector<CellSource> sources = {
      make_source("a", {"A", "B", "A", ""}, {{{0, 1}, {1, 2}, {2, 3}, {3, 4}}})};
  const Vocabulary vocabulary = build_vocabulary(sources, 1);
  ASSERT_EQ(vocabulary.genes().size(), 2U);
  EXPECT_EQ(vocabulary.genes()[0], (Gene{.id = "A", .median = 4000, .cells = 1, .counts = 4}));
}

TEST(BuildVocabulary, DoesNotDependOnTheOrderOfFiles) {
  const auto first = make_source("a", {"A", "B"}, {{{0, 1}, {1, 2}}, {{0, 5}}});
  const auto second = make_source("b", {"C", "B"}, {{{0, 3}, {1, 1}}});
  EXPECT_EQ(build_vocabulary(std::vector{first, second}, 1).text(),
            build_vocabulary(std::vector{second, first}, 1).text());
}

TEST(BuildVocabulary, AgreesWithASlowIndependentCount) {
  std::vector<CellSource> sources;
  std::map<std::string, std::vector<double>> normalized;
  const RandomStream stream(3, RandomPurpose::kInit);
  uint64_t draw = 0;
  for (int file = 0; file < 3; ++file) {
    std::vector<std::string> genes;
    for (int g = 0; g < 40; ++g) genes.push_back(fmt::format("G{}", stream.below(60, draw++)));
    std::vector<Row> rows(100);
    for (Row& row : rows) {
      double total = 0;
      std::map<std::string, double> sums;
      for (int32_t g = 0; g < 40; ++g) {
        if (stream.uniform(draw++) < 0.6) continue;
        row[g] = static_cast<float>(1 + stream.below(9, draw++));
        total += row[g];
        sums[genes[static_cast<std::size_t>(g)]] += row[g];
      }
      for (const auto& [gene, count] : sums) normalized[gene].push_back(count / total * 10000);
    }
    sources.push_back(make_source("f", genes, rows));
  }
  const Vocabulary vocabulary = build_vocabulary(sources, 1);
  ASSERT_EQ(vocabulary.genes().size(), normalized.size());
  for (const Gene& gene : vocabulary.genes()) {
    std::vector<double>& values = normalized.at(gene.id);
    std::sort(values.begin(), values.end());
    const std::size_t n = values.size();
    const double median = (values[(n - 1) / 2] + values[n / 2]) / 2;
    EXPECT_EQ(gene.cells, static_cast<int64_t>(n));
    EXPECT_NEAR(gene.median, median, 2e-7 * median) << gene.id;  // float32 values
  }
}

TEST(BuildVocabulary, RareGenesAreLeftOutOnRequest) {
  const std::vector<CellSource> sources = {
      make_source("a", {"A", "B"}, {{{0, 1}, {1, 2}}, {{0, 5}}, {{0, 1}}})};
  EXPECT_EQ(build_vocabulary(sources, 2).genes().size(), 1U);
  EXPECT_THROW(build_vocabulary(sources, 4), DataError);
}

TEST(BuildVocabulary, MixedKindsOfIdAreRefused) {
  std::vector<CellSource> sources = {make_source("a", {"A"}, {{{0, 1}}}),
                                     make_source("b", {"ENSG1"}, {{{0, 1}}})};
  sources[1].gene_ids.type = GeneIdType::kEnsembl;
  EXPECT_THROW(build_vocabulary(sources, 1), DataError);
}

TEST(BuildVocabulary, ReportsProgressUpToTheEnd) {
  const std::vector<CellSource> sources = {make_source("a", {"A"}, std::vector<Row>(300, Row{{0, 1}}))};
  int64_t last = 0;
  build_vocabulary(sources, 1, [&](std::string_view, int64_t cells, int64_t total) {
    EXPECT_GT(cells, last);
    EXPECT_EQ(total, 300);
    last = cells;
  });
  EXPECT_EQ(last, 300);
}

}  // namespace
}  // namespace scrna::data
