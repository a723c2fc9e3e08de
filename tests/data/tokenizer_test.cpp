#include "lib/data/tokenizer.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lib/core/random.h"

namespace scrna::data {
namespace {

constexpr int32_t kA = 4, kB = 5, kC = 6, kD = 7;

Vocabulary abcd() {
  return Vocabulary({{.id = "A", .median = 2},
                     {.id = "B", .median = 1},
                     {.id = "C", .median = 4},
                     {.id = "D", .median = 0.5F}});
}

struct Cell {
  std::vector<int32_t> genes;
  std::vector<float> values;
};

TEST(Tokenizer, SortsByCountOverMedian) {
  const Vocabulary vocabulary = abcd();
  const std::vector<std::string> columns = {"A", "X", "B", "C", "D"};
  const GeneMap map = map_genes(vocabulary, columns);
  EXPECT_EQ(map.num_known, 4);
  EXPECT_FALSE(map.has_duplicates);
  Tokenizer tokenizer(vocabulary, {.max_tokens = 8});
  // Scores: A 3/2 = 1.5, B 2/1 = 2, C 7/4 = 1.75, D absent; X is outside the vocabulary.
  const Cell cell{{0, 1, 2, 3}, {3, 10, 2, 7}};
  std::vector<int32_t> tokens = {99};
  const CellSummary summary = tokenizer.tokenize(map, cell.genes, cell.values, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{99, kB, kC, kA}));  // appended
  EXPECT_EQ(summary.expressed_genes, 4);
  EXPECT_EQ(summary.vocabulary_genes, 3);
  EXPECT_EQ(summary.kept_genes, 3);
  EXPECT_EQ(summary.counts, 22);
  EXPECT_EQ(summary.vocabulary_counts, 12);
  EXPECT_EQ(summary.kept_counts, 12);
}

TEST(Tokenizer, TiesGoToTheLowerToken) {
  const Vocabulary vocabulary = abcd();
  const GeneMap map = map_genes(vocabulary, std::vector<std::string>{"D", "C", "B", "A"});
  Tokenizer tokenizer(vocabulary, {.max_tokens = 8});
  std::vector<int32_t> tokens;
  tokenizer.tokenize(map, std::vector<int32_t>{0, 1, 2, 3}, std::vector<float>{0.5F, 4, 1, 2},
                     tokens);  // all 1
  EXPECT_EQ(tokens, (std::vector<int32_t>{kA, kB, kC, kD}));
}

TEST(Tokenizer, ValuesNotAboveZeroAreNotExpressed) {
  const Vocabulary vocabulary = abcd();
  const GeneMap map = map_genes(vocabulary, std::vector<std::string>{"A", "B", "C"});
  Tokenizer tokenizer(vocabulary, {.max_tokens = 8});
  std::vector<int32_t> tokens;
  const CellSummary summary =
      tokenizer.tokenize(map, std::vector<int32_t>{0, 1, 2},
                         std::vector<float>{-3, std::numeric_limits<float>::quiet_NaN(), 1}, tokens);
  EXPECT_EQ(tokens, std::vector<int32_t>{kC});
  EXPECT_EQ(summary.counts, 1);
}

TEST(Tokenizer, ColumnsOfTheSameGeneAreSummed) {
  const Vocabulary vocabulary = abcd();
  const GeneMap map = map_genes(vocabulary, std::vector<std::string>{"A", "B", "A"});
  EXPECT_TRUE(map.has_duplicates);
  Tokenizer tokenizer(vocabulary, {.max_tokens = 8});
  std::vector<int32_t> tokens;
  // A: (3 + 2) / 2 = 2.5 beats B: 2; neither part alone would.
  const CellSummary summary =
      tokenizer.tokenize(map, std::vector<int32_t>{0, 1, 2}, std::vector<float>{3, 2, 2}, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{kA, kB}));
  EXPECT_EQ(summary.expressed_genes, 3);
  EXPECT_EQ(summary.vocabulary_genes, 2);
}

TEST(Tokenizer, ClsComesFirstAndCountsAsAToken) {
  std::vector<Gene> genes;
  std::vector<std::string> columns;
  Cell cell;
  for (int32_t i = 0; i < 20; ++i) {
    columns.push_back(fmt::format("G{}", i));
    genes.push_back({.id = columns.back(), .median = 1});
    cell.genes.push_back(i);
    cell.values.push_back(static_cast<float>(i + 1));
  }
  const Vocabulary vocabulary(genes);
  Tokenizer tokenizer(vocabulary, {.max_tokens = 8, .add_cls = true});
  std::vector<int32_t> tokens;
  const CellSummary summary =
      tokenizer.tokenize(map_genes(vocabulary, columns), cell.genes, cell.values, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{Vocabulary::kCls, 23, 22, 21, 20, 19, 18, 17}));
  EXPECT_EQ(summary.kept_genes, 7);
  EXPECT_EQ(summary.kept_counts, 20 + 19 + 18 + 17 + 16 + 15 + 14);
  TokenizerReport report;
  report.add(summary);
  EXPECT_DOUBLE_EQ(report.truncated_genes(), 13.0 / 20);
  EXPECT_DOUBLE_EQ(report.truncated_counts(), (210.0 - 119) / 210);
  EXPECT_DOUBLE_EQ(report.gene_hit_rate(), 1);
}

// Oracle: straightforward, in another way (map of sums, comparison sort of pairs).
std::vector<int32_t> slow_tokens(const Vocabulary& vocabulary, const std::vector<std::string>& columns,
                                 const Cell& cell, std::size_t max_tokens) {
  std::map<int32_t, float> sums;
  for (std::size_t i = 0; i < cell.genes.size(); ++i) {
    const int32_t token = vocabulary.find(columns[static_cast<std::size_t>(cell.genes[i])]);
    if (token != Vocabulary::kUnk && cell.values[i] > 0) sums[token] += cell.values[i];
  }
  std::vector<std::pair<float, int32_t>> scored;
  for (const auto& [token, sum] : sums) scored.emplace_back(-(sum / vocabulary.gene(token).median), token);
  std::sort(scored.begin(), scored.end());
  std::vector<int32_t> tokens;
  for (std::size_t i = 0; i < std::min(max_tokens, scored.size()); ++i) tokens.push_back(scored[i].second);
  return tokens;
}

TEST(Tokenizer, AgreesWithASlowIndependentOneFromOneGeneToSixteenThousand) {
  const RandomStream stream(11, RandomPurpose::kInit);
  uint64_t draw = 0;
  std::vector<Gene> genes;
  for (int i = 0; i < 20000; ++i) {
    // A quarter of the medians repeat, so that ties across genes occur.
    genes.push_back({.id = fmt::format("G{}", i),
                     .median = i % 4 == 0 ? 1.0F : static_cast<float>(0.1 + stream.uniform(draw++) * 5)});
  }
  const Vocabulary vocabulary(genes);
  std::vector<std::string> columns;
  for (int i = 0; i < 24000; ++i) columns.push_back(fmt::format("G{}", stream.below(26000, draw++)));
  const GeneMap map = map_genes(vocabulary, columns);
  Tokenizer tokenizer(vocabulary, {.max_tokens = 2048});
  for (const double density : {0.0001, 0.005, 0.01, 0.05, 0.2, 0.7}) {
    for (int repeat = 0; repeat < 3; ++repeat) {
      Cell cell;
      for (int32_t g = 0; g < 24000; ++g) {
        if (stream.uniform(draw++) > density) continue;
        cell.genes.push_back(g);
        cell.values.push_back(static_cast<float>(1 + stream.below(stream.below(50, draw) + 1, draw + 1)));
        draw += 2;
      }
      std::vector<int32_t> tokens;
      tokenizer.tokenize(map, cell.genes, cell.values, tokens);
      EXPECT_EQ(tokens, slow_tokens(vocabulary, columns, cell, 2048)) << "density " << density;
      std::vector<int32_t> appended = {-1};
      tokenizer.append(map, cell.genes, cell.values, appended);
      tokens.insert(tokens.begin(), -1);
      EXPECT_EQ(appended, tokens) << "density " << density;
    }
  }
}

}  // namespace
}  // namespace scrna::data
