#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "lib/data/loader.h"
#include "lib/data/split.h"
#include "tests/support/memory_corpus.h"

namespace scrna::data {
namespace {

using test::make_corpus;

LoaderOptions options_for(const Corpus& corpus, uint64_t seed = 7) {
  return loader_options(corpus.config(), MaskingConfig{}, seed, 64);
}

std::vector<PackedMicroBatch> packs_of(HeldoutLoader& loader) {
  std::vector<PackedMicroBatch> packs;
  for (PackedMicroBatch pack; loader.next(pack);) packs.push_back(pack);
  return packs;
}

std::vector<uint64_t> cells_of(const std::vector<PackedMicroBatch>& packs) {
  std::vector<uint64_t> ids;
  for (const PackedMicroBatch& pack : packs)
    ids.insert(ids.end(), pack.cell_ids.begin(), pack.cell_ids.end());
  return ids;
}

std::vector<uint64_t> heldout_cells(const Corpus& corpus) {
  std::vector<uint64_t> ids;
  for (int32_t source = 0; source < corpus.num_sources(); ++source) {
    for (int64_t row = 0; row < corpus.source(source).matrix->num_cells(); ++row) {
      if (corpus.role(source, row) == CellRole::kHeldout) ids.push_back(corpus.cell_id(source, row));
    }
  }
  return ids;
}

TEST(HeldoutLoader, GivesTheHeldOutCellsOnceInFileOrderAndAgainAfterRewinding) {
  const Corpus corpus = make_corpus({300, 150, 5});
  HeldoutLoader loader(corpus, options_for(corpus));
  const std::vector<PackedMicroBatch> packs = packs_of(loader);
  EXPECT_GT(packs.size(), 1U);
  EXPECT_EQ(cells_of(packs), heldout_cells(corpus));
  EXPECT_EQ(loader.num_cells(), corpus.num_heldout_cells());
  PackedMicroBatch none;
  EXPECT_FALSE(loader.next(none));
  loader.rewind();
  const std::vector<PackedMicroBatch> again = packs_of(loader);
  ASSERT_EQ(again.size(), packs.size());
  for (std::size_t i = 0; i < packs.size(); ++i) {
    EXPECT_EQ(again[i].tokens, packs[i].tokens);
    EXPECT_EQ(again[i].masked_positions, packs[i].masked_positions);
  }
}

TEST(HeldoutLoader, MasksAreTheSameWhateverTheSeedOfTheRun) {
  const Corpus corpus = make_corpus(std::vector<int64_t>{300});
  HeldoutLoader one(corpus, options_for(corpus, 1)), two(corpus, options_for(corpus, 2));
  const auto a = packs_of(one), b = packs_of(two);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].masked_positions, b[i].masked_positions);
}

TEST(HeldoutLoader, RanksShareOutTheCellsAndSomeMayGetNone) {
  const Corpus corpus = make_corpus({60, 20});
  const std::vector<uint64_t> all = heldout_cells(corpus);
  for (const int64_t num_ranks : {2, 3, 100}) {
    std::multiset<uint64_t> seen;
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      LoaderOptions options = options_for(corpus);
      options.rank = rank;
      options.num_ranks = num_ranks;
      HeldoutLoader loader(corpus, options);
      for (const uint64_t id : cells_of(packs_of(loader))) seen.insert(id);
    }
    EXPECT_EQ(seen, std::multiset<uint64_t>(all.begin(), all.end()));
  }
}

TEST(HeldoutLoader, ALimitTakesTheCellsOfLowestSplitPosition) {
  DataConfig config = test::corpus_config();
  const Corpus corpus = make_corpus({300, 150, 5}, config);
  config.heldout_cells = 10;
  const Corpus limited = make_corpus({300, 150, 5}, config);
  HeldoutLoader loader(limited, options_for(limited));
  const std::vector<uint64_t> chosen = cells_of(packs_of(loader));
  ASSERT_EQ(chosen.size(), 10U);
  std::vector<uint64_t> expected = heldout_cells(corpus);
  std::sort(expected.begin(), expected.end(), [&](uint64_t a, uint64_t b) {
    return split_position(config.heldout_seed, a) < split_position(config.heldout_seed, b);
  });
  expected.resize(10);
  EXPECT_EQ(std::set<uint64_t>(chosen.begin(), chosen.end()),
            std::set<uint64_t>(expected.begin(), expected.end()));
}

}  // namespace
}  // namespace scrna::data
