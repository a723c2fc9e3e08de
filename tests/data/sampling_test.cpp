// Parts of an epoch by group, and which cells make them up.
#include "lib/data/sampling.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
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

std::vector<SamplingGroup> groups_of(const std::vector<int64_t>& cells) {
  std::vector<SamplingGroup> groups;
  for (const int64_t count : cells)
    groups.push_back({.name = fmt::format("g{}", groups.size()), .cells = count});
  return groups;
}

TEST(SharingOutAnEpoch, FollowsTheFormulaAndKeepsTheLength) {
  for (const double temperature : {1.0, 2.0, 5.0, 1e6}) {
    std::vector<SamplingGroup> groups = groups_of({100000, 5000, 77, 1});
    groups[1].weight = 3;
    share_out_epoch(groups, temperature);
    double sum = 0;
    for (const SamplingGroup& group : groups)
      sum += group.weight * std::pow(static_cast<double>(group.cells), 1 / temperature);
    int64_t places = 0;
    for (const SamplingGroup& group : groups) {
      const double part = group.weight * std::pow(static_cast<double>(group.cells), 1 / temperature) / sum;
      EXPECT_NEAR(static_cast<double>(group.epoch_cells), part * 105078, 1.0);
      places += group.epoch_cells;
    }
    EXPECT_EQ(places, 105078);
  }
}

TEST(SharingOutAnEpoch, WithoutTemperatureAndWeightsEveryCellStandsOnce) {
  std::vector<SamplingGroup> groups = groups_of({12345, 17, 3, 1, 999});
  share_out_epoch(groups, 1);
  for (const SamplingGroup& group : groups) EXPECT_EQ(group.epoch_cells, group.cells);
}

TEST(SharingOutAnEpoch, RefusesWhatCannotBe) {
  std::vector<SamplingGroup> groups = groups_of({10, 20});
  groups[0].weight = groups[1].weight = 0;
  EXPECT_CONTAINS(test::message_of<DataError>([&] { share_out_epoch(groups, 1); }), "has weight 0");
  groups = groups_of({10'000'000, 1});
  EXPECT_CONTAINS(test::message_of<DataError>([&] { share_out_epoch(groups, 1e6); }),
                  "group 'g1' has 1 cells");
}

TEST(SamplingWeights, AreReadStrictly) {
  const auto weights = parse_sampling_weights({"blood=2", "a=b=0.5", "T cell=0"}, "w");
  EXPECT_EQ(weights,
            (std::vector<std::pair<std::string, double>>{{"blood", 2}, {"a=b", 0.5}, {"T cell", 0}}));
  for (const char* bad :
       {"blood", "blood=", "=2", "blood=-1", "blood=nan", "blood=inf", "blood=2x", "blood= 2", ""})
    EXPECT_CONTAINS(test::message_of<ConfigError>([&] { parse_sampling_weights({bad}, "w"); }),
                    "w: expected group=weight");
  EXPECT_CONTAINS(test::message_of<ConfigError>([] {
                    parse_sampling_weights({"a=1", "a=2"}, "w");
                  }),
                  "given twice");
}

TEST(SamplingSettings, ThatContradictEachOtherAreRefused) {
  const auto problem = [](auto&& change) {
    DataConfig config;
    change(config);
    return test::message_of<ConfigError>([&] { config.validate("data"); });
  };
  EXPECT_CONTAINS(problem([](DataConfig& c) { c.sampling_temperature = 2; }), "of which groups?");
  EXPECT_CONTAINS(problem([](DataConfig& c) { c.sampling_weights = {"a=1"}; }), "of which groups?");
  EXPECT_CONTAINS(problem([](DataConfig& c) { c.sampling_files = true, c.sampling_column = "x"; }),
                  "either files or");
}

// Three tissues: 0 of most cells, 1 of some, 2 of few; of every 50th cell nobody knows it.
std::vector<CellSource> tissues(const std::vector<int64_t>& cells) {
  std::vector<CellSource> sources = test::corpus_sources(cells);
  for (CellSource& source : sources) {
    source.sampling.categories = {"blood", "liver", "eye", "in no cell"};
    for (int64_t row = 0; row < source.matrix->num_cells(); ++row)
      source.sampling.codes.push_back(row % 50 == 49 ? -1 : row % 29 == 0 ? 2 : row % 7 == 0 ? 1 : 0);
  }
  return sources;
}
DataConfig sampled_config() {
  DataConfig config = test::corpus_config();
  config.sampling_column = "tissue";
  config.sampling_temperature = 3;
  return config;
}
std::map<uint64_t, std::size_t> group_of_cell(const Corpus& corpus) {
  std::map<uint64_t, std::size_t> groups;
  for (int32_t source = 0; source < corpus.num_sources(); ++source)
    for (int64_t row = 0; row < corpus.source(source).matrix->num_cells(); ++row)
      if (corpus.role(source, row) == CellRole::kTraining)
        groups[corpus.cell_id(source, row)] = corpus.sampling_group(source, row);
  return groups;
}

TEST(Sampling, EveryEpochHasThePlacesOfEachGroupAndCellsOfAGroupDifferByOne) {
  for (const int64_t scan_cells : {int64_t{1} << 20, int64_t{0}}) {
    DataConfig config = sampled_config();
    config.scan_cells = scan_cells;
    const Corpus corpus = test::make_corpus(tissues({700, 400}), config);
    ASSERT_EQ(corpus.sampling_groups().size(), 4U);
    EXPECT_EQ(corpus.sampling_groups()[0].name, "(missing)");
    const auto groups = group_of_cell(corpus);
    const int64_t num_cells = corpus.num_training_cells();
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      LoaderOptions options = options_for(corpus, 1);
      options.first_step = epoch * num_cells;
      std::map<uint64_t, int64_t> times;
      for (const GlobalBatch& batch : batches_of(corpus, options, num_cells))
        for (const uint64_t id : cells_of(batch)) ++times[id];
      std::vector<int64_t> places(4);
      for (const auto& [id, group] : groups) {
        const SamplingGroup& of = corpus.sampling_groups()[group];
        const int64_t count = times.contains(id) ? times.at(id) : 0;
        EXPECT_GE(count, of.epoch_cells / of.cells);
        EXPECT_LE(count, of.epoch_cells / of.cells + 1);
        places[group] += count;
      }
      for (std::size_t group = 0; group < 4; ++group)
        EXPECT_EQ(places[group], corpus.sampling_groups()[group].epoch_cells);
    }
  }
}

// Which cells of a group stand once more is uniform: chi-square over the cells of the largest group and many
// epochs, false alarm about 1e-6; and the numbers of two neighbours are not correlated beyond drawing without
// replacement.
TEST(Sampling, TheCellsDrawnOnceMoreAreUniform) {
  const Corpus corpus = test::make_corpus(tissues({700, 400}), sampled_config());
  const std::vector<CellRange> ranges = corpus.ranges(CellRole::kTraining, 16);
  const auto blood = static_cast<std::size_t>(
      std::find_if(corpus.sampling_groups().begin(), corpus.sampling_groups().end(),
                   [](const SamplingGroup& group) { return group.name == "blood"; }) -
      corpus.sampling_groups().begin());
  const SamplingGroup& group = corpus.sampling_groups()[blood];
  ASSERT_LT(group.epoch_cells, group.cells) << "some of its cells are left out of an epoch";
  constexpr int64_t kEpochs = 2000;
  std::vector<double> times(static_cast<std::size_t>(group.cells));
  std::set<std::vector<uint16_t>> different;
  for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    const EpochSample sample(corpus, ranges, 11, epoch);
    std::size_t at = 0;
    std::vector<uint16_t> all;
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      std::size_t cell = 0;
      for (int64_t row = ranges[i].first_row; row < ranges[i].first_row + ranges[i].num_rows; ++row) {
        if (corpus.role(ranges[i].source, row) != CellRole::kTraining) continue;
        const uint16_t count = sample.times(i)[cell++];
        all.push_back(count);
        if (corpus.sampling_group(ranges[i].source, row) == blood) times[at++] += count;
      }
    }
    different.insert(all);
  }
  EXPECT_EQ(std::ssize(different), kEpochs);
  const double part = static_cast<double>(group.epoch_cells) / static_cast<double>(group.cells);
  const double mean = kEpochs * part, variance = kEpochs * part * (1 - part);
  double chi_square = 0;
  for (const double count : times) chi_square += (count - mean) * (count - mean) / variance;
  const double degrees = static_cast<double>(group.cells - 1);
  EXPECT_NEAR(chi_square, degrees, 5 * std::sqrt(2 * degrees));
}

TEST(Sampling, BatchesDoNotDependOnWorkersRanksOrWhereTheyBegin) {
  for (const int64_t scan_cells : {int64_t{1} << 20, int64_t{0}}) {
    DataConfig config = sampled_config();
    config.scan_cells = scan_cells;
    const Corpus corpus = test::make_corpus(tissues({700, 400}), config);
    LoaderOptions options = options_for(corpus);
    const std::vector<GlobalBatch> expected = batches_of(corpus, options, 40);
    options.num_workers = 5;
    const std::vector<GlobalBatch> others = batches_of(corpus, options, 40);
    for (std::size_t step = 0; step < 40; ++step) {
      ASSERT_EQ(others[step].micro_batches.size(), expected[step].micro_batches.size());
      for (std::size_t i = 0; i < expected[step].micro_batches.size(); ++i) {
        ASSERT_EQ(others[step].micro_batches[i].tokens, expected[step].micro_batches[i].tokens);
        ASSERT_EQ(others[step].micro_batches[i].cell_ids, expected[step].micro_batches[i].cell_ids);
      }
    }
    for (const int64_t first : {1, 13, 17, 38}) {
      options.first_step = first;
      EXPECT_EQ(cells_of(batches_of(corpus, options, 1)[0]),
                cells_of(expected[static_cast<std::size_t>(first)]));
    }
    options.first_step = 0;
    options.num_ranks = 7;
    std::vector<std::vector<uint64_t>> shared(40);
    for (options.rank = 0; options.rank < 7; ++options.rank) {
      const auto part = batches_of(corpus, options, 40);
      for (std::size_t step = 0; step < 40; ++step)
        for (const uint64_t id : cells_of(part[step])) shared[step].push_back(id);
    }
    for (std::size_t step = 0; step < 40; ++step) {
      std::vector<uint64_t> whole = cells_of(expected[step]);
      std::sort(whole.begin(), whole.end());
      std::sort(shared[step].begin(), shared[step].end());
      ASSERT_EQ(shared[step], whole);
    }
  }
}

TEST(Sampling, CopiesOfACellInAStepHaveDifferentMasks) {
  DataConfig config = sampled_config();
  config.sampling_temperature = 1;
  config.sampling_weights = {"eye=1000"};
  const Corpus corpus = test::make_corpus(tissues({700}), config);
  int64_t num_pairs = 0, num_same = 0;
  for (const GlobalBatch& batch : batches_of(corpus, options_for(corpus, 600), 1)) {
    std::map<uint64_t, std::set<std::vector<int32_t>>>
        masked;  // of long cells: which could hardly agree by chance
    std::map<uint64_t, int64_t> copies;
    for (const PackedMicroBatch& pack : batch.micro_batches) {
      for (std::size_t cell = 0; cell < pack.cell_ids.size(); ++cell) {
        const std::vector<int32_t> tokens(pack.tokens.begin() + pack.cu_seqlens[cell],
                                          pack.tokens.begin() + pack.cu_seqlens[cell + 1]);
        if (tokens.size() < 20) continue;
        masked[pack.cell_ids[cell]].insert(tokens);
        ++copies[pack.cell_ids[cell]];
      }
    }
    for (const auto& [id, count] : copies) {
      num_pairs += count - 1;
      num_same += count - std::ssize(masked[id]);
    }
  }
  EXPECT_GT(num_pairs, 100);
  EXPECT_LT(num_same, num_pairs / 4);
}

TEST(Sampling, AGroupOfWeightZeroIsNeverTrainedOnNotEvenInPlaceOfAnother) {
  DataConfig config = sampled_config();
  config.sampling_weights = {"blood=0"};
  config.scan_cells = 0;
  config.min_genes = 4;
  config.min_gene_hit_rate = 0;
  std::vector<Gene> genes;
  for (int32_t i = 0; i < 20; ++i) genes.push_back({.id = fmt::format("GENE{}", i), .median = 1});
  const Corpus corpus(tissues({900, 400}), Vocabulary(genes), config, {.max_tokens = 32});
  const auto groups = group_of_cell(corpus);
  std::set<std::size_t> seen;
  for (const GlobalBatch& batch : batches_of(corpus, options_for(corpus), 30))
    for (const uint64_t id : cells_of(batch)) seen.insert(groups.at(id));
  for (const std::size_t group : seen) EXPECT_NE(corpus.sampling_groups()[group].name, "blood");
  EXPECT_EQ(seen.size(), 3U);
}

TEST(Sampling, FilesMayBeTheGroupsAndHeldOutCellsAreNotDrawn) {
  DataConfig config = test::corpus_config();
  config.sampling_files = true;
  config.sampling_temperature = 1e6;
  config.sampling_weights = {"file1.h5ad=2"};
  const Corpus corpus = test::make_corpus(test::corpus_sources({700, 100}), config);
  const auto& groups = corpus.sampling_groups();
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].name, "folder/file0.h5ad");
  EXPECT_NEAR(static_cast<double>(groups[1].epoch_cells) / static_cast<double>(groups[0].epoch_cells), 2.0,
              0.01);
  for (const GlobalBatch& batch : batches_of(corpus, options_for(corpus), 20))
    for (const uint64_t id : cells_of(batch)) EXPECT_TRUE(group_of_cell(corpus).contains(id));
}

TEST(Sampling, AGroupThatIsNotThereIsNamedBesideThoseThatAre) {
  DataConfig config = sampled_config();
  config.sampling_weights = {"blod=2"};
  EXPECT_CONTAINS(
      test::message_of<DataError>([&] { test::make_corpus(tissues({300}), config); }),
      "no training cell is in group 'blod'; the 4 groups are '(missing)', 'blood', 'eye', 'liver'");
}

TEST(Sampling, TheTableOfARunHasEveryGroup) {
  const Corpus corpus = test::make_corpus(tissues({700}), sampled_config());
  const std::string table = sampling_table(corpus.sampling_groups());
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 5);
  EXPECT_CONTAINS(table, "group\tcells\tweight\tepoch_cells\ttimes_per_epoch\n");
  EXPECT_CONTAINS(table, fmt::format("eye\t{}\t1\t{}\t", corpus.sampling_groups()[2].cells,
                                     corpus.sampling_groups()[2].epoch_cells));
}

}  // namespace
}  // namespace scrna::data
