// The promises of loader.h, one by one.
#include "lib/data/loader.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/rank_plan.h"
#include "tests/support/expect_error.h"
#include "tests/support/loader_batches.h"
#include "tests/support/memory_corpus.h"

namespace scrna::data {
namespace {

using test::batches_of;
using test::options_for;

using test::make_corpus;
using test::MemoryMatrix;

void expect_same(const GlobalBatch& a, const GlobalBatch& b) {
  ASSERT_EQ(a.step, b.step);
  ASSERT_EQ(a.epoch, b.epoch);
  ASSERT_EQ(a.micro_batches.size(), b.micro_batches.size());
  for (std::size_t i = 0; i < a.micro_batches.size(); ++i) {
    const PackedMicroBatch &x = a.micro_batches[i], &y = b.micro_batches[i];
    ASSERT_EQ(x.cell_ids, y.cell_ids);
    ASSERT_EQ(x.tokens, y.tokens);
    ASSERT_EQ(x.ranks, y.ranks);
    ASSERT_EQ(x.cu_seqlens, y.cu_seqlens);
    ASSERT_EQ(x.masked_positions, y.masked_positions);
    ASSERT_EQ(x.masked_targets, y.masked_targets);
    ASSERT_EQ(x.max_cell_tokens, y.max_cell_tokens);
  }
}
void expect_same(const std::vector<GlobalBatch>& a, const std::vector<GlobalBatch>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) expect_same(a[i], b[i]);
}

std::vector<uint64_t> cells_of(const std::vector<GlobalBatch>& batches) {
  std::vector<uint64_t> ids;
  for (const GlobalBatch& batch : batches) {
    for (const PackedMicroBatch& pack : batch.micro_batches)
      ids.insert(ids.end(), pack.cell_ids.begin(), pack.cell_ids.end());
  }
  return ids;
}

std::set<uint64_t> cells_with(const Corpus& corpus, CellRole role) {
  std::set<uint64_t> ids;
  for (int32_t source = 0; source < corpus.num_sources(); ++source) {
    for (int64_t row = 0; row < corpus.source(source).matrix->num_cells(); ++row) {
      if (corpus.role(source, row) == role) ids.insert(corpus.cell_id(source, row));
    }
  }
  return ids;
}

// What a cell looks like in its pack: its tokens as masked, and its targets.
std::map<uint64_t, std::pair<std::vector<int32_t>, std::vector<int32_t>>> cells_by_id(
    const GlobalBatch& batch) {
  std::map<uint64_t, std::pair<std::vector<int32_t>, std::vector<int32_t>>> cells;
  for (const PackedMicroBatch& pack : batch.micro_batches) {
    for (std::size_t cell = 0; cell < pack.cell_ids.size(); ++cell) {
      auto& [tokens, targets] =
          cells[pack.cell_ids[cell]];  // twice where an epoch ends: then with the same mask
      targets.clear();
      tokens.assign(pack.tokens.begin() + pack.cu_seqlens[cell],
                    pack.tokens.begin() + pack.cu_seqlens[cell + 1]);
      for (std::size_t i = 0; i < pack.masked_positions.size(); ++i) {
        if (pack.masked_positions[i] >= pack.cu_seqlens[cell] &&
            pack.masked_positions[i] < pack.cu_seqlens[cell + 1])
          targets.push_back(pack.masked_targets[i]);
      }
    }
  }
  return cells;
}

TEST(TrainLoader, BatchesDoNotDependOnWorkersNorOnHowFarTheyRunAhead) {
  const Corpus corpus = make_corpus({300, 150, 5});
  LoaderOptions options = options_for(corpus);
  options.num_workers = 1;
  options.prefetch_steps = 1;
  const std::vector<GlobalBatch> expected = batches_of(corpus, options, 20);  // three epochs
  for (const int64_t workers : {2, 5}) {
    options.num_workers = workers;
    options.prefetch_steps = workers;
    expect_same(batches_of(corpus, options, 20), expected);
  }
}

TEST(TrainLoader, EveryEpochHoldsEveryTrainingCellOnceAndInAnotherOrder) {
  const Corpus corpus = make_corpus({300, 150, 5});
  const int64_t num_cells = corpus.num_training_cells();
  // Steps of one cell: packs do not keep the order of a step.
  const std::vector<uint64_t> ids = cells_of(batches_of(corpus, options_for(corpus, 1), 3 * num_cells));
  const std::set<uint64_t> expected = cells_with(corpus, CellRole::kTraining);
  ASSERT_EQ(std::ssize(expected), num_cells);
  std::vector<std::vector<uint64_t>> orders;
  for (auto begin = ids.begin(); ids.end() - begin >= num_cells; begin += num_cells) {
    orders.emplace_back(begin, begin + num_cells);
    EXPECT_EQ(std::set<uint64_t>(orders.back().begin(), orders.back().end()), expected);
  }
  ASSERT_EQ(orders.size(), 3U);
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
}

TEST(TrainLoader, HeldOutAndEmptyCellsAreNeverTrainedOn) {
  const Corpus corpus = make_corpus({300, 150, 5});
  const std::set<uint64_t> heldout = cells_with(corpus, CellRole::kHeldout),
                           left_out = cells_with(corpus, CellRole::kLeftOut);
  ASSERT_GT(heldout.size(), 10U);
  ASSERT_GT(left_out.size(), 10U);
  for (const uint64_t id : cells_of(batches_of(corpus, options_for(corpus), 20))) {
    ASSERT_FALSE(heldout.contains(id));
    ASSERT_FALSE(left_out.contains(id));
  }
}

TEST(TrainLoader, RanksShareOutTheBatchOfOneRankWithTheSameMasks) {
  const Corpus corpus = make_corpus({300, 150, 5});
  const std::vector<GlobalBatch> whole = batches_of(corpus, options_for(corpus), 12);
  const std::vector<uint64_t> in_order = cells_of(batches_of(corpus, options_for(corpus, 1), 12 * 64));
  for (const int64_t num_ranks : {2, 3, 7, 64}) {
    std::vector<std::vector<GlobalBatch>> parts;
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      LoaderOptions options = options_for(corpus);
      options.rank = rank;
      options.num_ranks = num_ranks;
      parts.push_back(batches_of(corpus, options, 12));
    }
    for (std::size_t step = 0; step < whole.size(); ++step) {
      const auto all = std::span(in_order).subspan(step * 64, 64);
      const auto alone = cells_by_id(whole[step]);
      std::vector<uint64_t> given, expected(all.begin(), all.end());
      for (int64_t rank = 0; rank < num_ranks; ++rank) {
        const GlobalBatch& part = parts[static_cast<std::size_t>(rank)][step];
        EXPECT_EQ(part.step, whole[step].step);
        for (const uint64_t id : cells_of({part})) given.push_back(id);
        ASSERT_GE(part.num_cells, 1);
        for (const auto& [id, cell] : cells_by_id(part)) ASSERT_EQ(cell, alone.at(id));
      }
      std::sort(given.begin(), given.end());
      std::sort(expected.begin(), expected.end());
      ASSERT_EQ(given, expected) << "none lost, none twice";
    }
  }
}

// Steps of 64 cells of 1 to 32 tokens, some of them in two windows: the costs that were known beforehand.
TEST(TrainLoader, RanksGetTheSameCostWhateverTheLengthsOfCells) {
  const Corpus corpus = make_corpus({300, 150, 5});
  constexpr int64_t kRanks = 4;
  std::vector<std::vector<GlobalBatch>> parts;
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    LoaderOptions options = options_for(corpus);
    options.rank = rank;
    options.num_ranks = kRanks;
    options.squared_length_weight = 0.01;
    parts.push_back(batches_of(corpus, options, 24));
  }
  for (std::size_t step = 0; step < 24; ++step) {
    std::vector<double> costs;
    for (const auto& part : parts) {
      costs.push_back(0);
      for (const PackedMicroBatch& pack : part[step].micro_batches) {
        for (std::size_t cell = 0; cell + 1 < pack.cu_seqlens.size(); ++cell) {
          const int64_t tokens = pack.cu_seqlens[cell + 1] - pack.cu_seqlens[cell];
          costs.back() += static_cast<double>(cell_cost(tokens, 0.01));
        }
      }
    }
    const double largest_cell = static_cast<double>(cell_cost(32, 0.01));
    EXPECT_LE(std::ranges::max(costs) - std::ranges::min(costs), largest_cell) << "step " << step;
  }
}

TEST(TrainLoader, ARankThatBeginsAtAStepGetsTheCellsItWouldHaveHad) {
  const Corpus corpus = make_corpus({300, 150, 5});
  LoaderOptions options = options_for(corpus);
  options.rank = 1;
  options.num_ranks = 3;
  const std::vector<GlobalBatch> all = batches_of(corpus, options, 24);
  for (const std::size_t first : {1U, 2U, 5U, 6U, 7U, 13U, 21U}) {
    options.first_step = static_cast<int64_t>(first);
    expect_same(batches_of(corpus, options, 3), {all.begin() + static_cast<std::ptrdiff_t>(first),
                                                 all.begin() + static_cast<std::ptrdiff_t>(first) + 3});
  }
}

TEST(TrainLoader, BeginningAtAStepIsTheSameAsSkippingToIt) {
  const Corpus corpus = make_corpus({300, 150, 5});
  const std::vector<GlobalBatch> all = batches_of(corpus, options_for(corpus), 24);
  for (const std::size_t first : {1U, 2U, 5U, 6U, 7U, 13U, 21U}) {  // inside windows, across epochs
    LoaderOptions options = options_for(corpus);
    options.first_step = static_cast<int64_t>(first);
    expect_same(batches_of(corpus, options, 3), {all.begin() + static_cast<std::ptrdiff_t>(first),
                                                 all.begin() + static_cast<std::ptrdiff_t>(first) + 3});
  }
}

TEST(TrainLoader, TheSameCellHasAnotherMaskAtAnotherStepAndSeed) {
  const Corpus corpus = make_corpus(std::vector<int64_t>{30});
  LoaderOptions options = options_for(corpus, corpus.num_training_cells());  // a batch is an epoch
  const auto batches = batches_of(corpus, options, 2);
  options.seed = 8;
  const auto other_seed = batches_of(corpus, options, 1);
  EXPECT_NE(cells_by_id(batches[0]), cells_by_id(batches[1]));
  EXPECT_NE(cells_by_id(batches[0]), cells_by_id(other_seed[0]));
}

TEST(TrainLoader, WindowsBlocksAndBatchesMayBeLargerThanTheDataOrTiny) {
  for (const auto& [block, window, batch] : std::vector<std::array<int64_t, 3>>{
           {65536, 16777216, 64}, {1, 1, 64}, {7, 1, 1}, {65536, 1, 500}, {16, 100, 1000}}) {
    DataConfig config = test::corpus_config();
    config.shuffle_block_cells = block;
    config.shuffle_window_cells = window;
    const Corpus corpus = make_corpus({40, 9}, config);
    const int64_t num_cells = corpus.num_training_cells();
    // As many steps as it takes to have seen a whole number of epochs: each cell that often.
    std::map<uint64_t, int64_t> times;
    for (const uint64_t id : cells_of(batches_of(corpus, options_for(corpus, batch), num_cells))) ++times[id];
    EXPECT_EQ(std::ssize(times), num_cells);
    for (const auto& [id, count] : times) EXPECT_EQ(count, batch);
  }
}

TEST(TrainLoader, CountsOfABatchAreThoseOfItsPacks) {
  const Corpus corpus = make_corpus(std::vector<int64_t>{300});
  for (const GlobalBatch& batch : batches_of(corpus, options_for(corpus), 6)) {
    int64_t cells = 0, tokens = 0, masked = 0;
    for (const PackedMicroBatch& pack : batch.micro_batches) {
      EXPECT_LE(pack.num_tokens(), 256);
      EXPECT_EQ(pack.cu_seqlens.back(), pack.num_tokens());
      EXPECT_EQ(std::ssize(pack.cu_seqlens), pack.num_cells() + 1);
      cells += pack.num_cells();
      tokens += pack.num_tokens();
      masked += pack.num_masked();
    }
    EXPECT_EQ(cells, 64);
    EXPECT_EQ(batch.num_cells, cells);
    EXPECT_EQ(batch.num_tokens, tokens);
    EXPECT_EQ(batch.num_masked, masked);
    EXPECT_GE(masked, cells) << "at least one token of each cell";
  }
}

// Sources whose second file calls `hook` before each read.
std::vector<CellSource> sources_with(const std::function<void(int64_t)>& hook) {
  std::vector<CellSource> sources = test::corpus_sources({200, 200});
  auto matrix = std::make_shared<MemoryMatrix>(test::kCorpusGenes, test::corpus_rows(200, 2));
  matrix->before_read = hook;
  sources[1].matrix = matrix;
  return sources;
}

TEST(TrainLoader, WhatAReaderThrowsReachesNextEachTime) {
  std::atomic<bool> is_broken = false;
  const Corpus corpus = make_corpus(sources_with([&](int64_t first_cell) {
    if (is_broken && first_cell >= 96) throw DataError("cell {} cannot be read", first_cell);
  }));
  is_broken = true;
  TrainLoader loader(corpus, options_for(corpus));
  const auto run = [&] {
    for (int step = 0; step < 100; ++step) loader.next();
  };
  EXPECT_CONTAINS(test::message_of<DataError>(run), "cannot be read");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { loader.next(); }), "cannot be read");
}

TEST(TrainLoader, CanBeDestroyedAtAnyMoment) {
  const Corpus corpus =
      make_corpus(sources_with([](int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }));
  for (int steps = 0; steps < 12; ++steps) {
    LoaderOptions options = options_for(corpus, 16);
    options.num_workers = 1 + steps % 3;
    options.prefetch_steps = 1 + steps % 2;
    TrainLoader loader(corpus, options);
    for (int i = 0; i < steps; ++i) loader.next();
    std::this_thread::sleep_for(std::chrono::milliseconds(steps % 4));
  }
}

TEST(TrainLoader, StopWakesANextThatWaitsInAnotherThread) {
  std::atomic<bool> is_slow = false, is_reading = false;
  const Corpus corpus = make_corpus(sources_with([&](int64_t) {
    if (!is_slow) return;
    is_reading = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }));
  is_slow = true;
  LoaderOptions options = options_for(corpus, 100 * corpus.num_training_cells());  // seconds to read
  options.num_workers = 1;
  TrainLoader loader(corpus, options);
  std::string message;
  {
    const std::jthread waiting([&] { message = test::message_of<InternalError>([&] { loader.next(); }); });
    while (!is_reading) std::this_thread::yield();
    loader.stop();
  }
  EXPECT_CONTAINS(message, "stopped");
  EXPECT_THROW(loader.next(), InternalError);
}

// A file that somebody overwrites with cells that have no gene, after the corpus has looked at it.
TEST(TrainLoader, AFileThatChangesBetweenPassesIsNoticed) {
  class ChangingMatrix : public MemoryMatrix {
   public:
    using MemoryMatrix::MemoryMatrix;
    [[nodiscard]] CellBlock read(int64_t first, int64_t count) const override {
      if (!has_changed) return MemoryMatrix::read(first, count);
      CellBlock block{.first_cell = first};
      block.indptr.resize(static_cast<std::size_t>(count) + 1);
      return block;
    }
    bool has_changed = false;
  };
  std::vector<CellSource> sources = test::corpus_sources({100});
  const auto matrix = std::make_shared<ChangingMatrix>(test::kCorpusGenes, test::corpus_rows(100, 1));
  sources[0].matrix = matrix;
  const Corpus corpus = make_corpus(sources);
  matrix->has_changed = true;
  TrainLoader loader(corpus, options_for(corpus, 16));
  EXPECT_CONTAINS(test::message_of<DataError>([&] { loader.next(); }),
                  "file0.h5ad: has changed since it was opened");
  EXPECT_THROW(HeldoutLoader(corpus, options_for(corpus)), DataError);
}

TEST(TrainLoader, ABatchSmallerThanTheRanksIsAConfigError) {
  const Corpus corpus = make_corpus(std::vector<int64_t>{30});
  LoaderOptions options = options_for(corpus, 3);
  options.num_ranks = 4;
  EXPECT_THROW(TrainLoader(corpus, options), ConfigError);
}

}  // namespace
}  // namespace scrna::data
