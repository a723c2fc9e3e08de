// The promises of feeder.h. Compiled for both devices: on a GPU the copies run ahead on their own stream.
#include "lib/train/feeder.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/memory_corpus.h"
#include "tests/support/test_device.h"

namespace scrna::train {
namespace {

using data::Corpus;
using data::LoaderOptions;

class FeederTest : public test::OnDevice {};

LoaderOptions options_for(const Corpus& corpus, int64_t first_step = 0) {
  LoaderOptions options = data::loader_options(corpus.config(), data::MaskingConfig{}, 7, 64);
  options.first_step = first_step;
  return options;
}

// A corpus whose second file calls `hook` before each read.
Corpus corpus_with(const std::function<void(int64_t)>& hook) {
  std::vector<data::CellSource> sources = test::corpus_sources({200, 200});
  auto matrix = std::make_shared<test::MemoryMatrix>(test::kCorpusGenes, test::corpus_rows(200, 2));
  matrix->before_read = hook;
  sources[1].matrix = matrix;
  return test::make_corpus(std::move(sources));
}

std::vector<std::pair<std::string, at::Tensor>> tensors_of(const model::TokenTensors& x) {
  return {{"tokens", x.tokens},
          {"ranks", x.ranks},
          {"cu_seqlens", x.cu_seqlens},
          {"cu_seqlens_host", x.cu_seqlens_host},
          {"cell_ids", x.cell_ids},
          {"masked_positions", x.masked_positions},
          {"masked_targets", x.masked_targets}};
}

TEST_F(FeederTest, GivesWhatTheLoaderGivesFromAnyStepOn) {
  const Corpus corpus = test::make_corpus({300, 150, 5});
  for (const int64_t first_step : {0, 5}) {
    data::TrainLoader loader(corpus, options_for(corpus, first_step));
    Feeder feeder(corpus, options_for(corpus, first_step), device());
    for (int64_t step = first_step; step < first_step + 12; ++step) {
      const DeviceBatch expected = to_device(loader.next(), at::kCPU);
      const DeviceBatch batch = feeder.next();
      ASSERT_EQ(batch.step, step);
      ASSERT_EQ(batch.epoch, expected.epoch);
      ASSERT_EQ(batch.num_cells, expected.num_cells);
      ASSERT_EQ(batch.num_tokens, expected.num_tokens);
      ASSERT_EQ(batch.num_masked, expected.num_masked);
      ASSERT_EQ(batch.micro_batches.size(), expected.micro_batches.size());
      for (std::size_t i = 0; i < batch.micro_batches.size(); ++i) {
        ASSERT_EQ(batch.micro_batches[i].max_cell_tokens, expected.micro_batches[i].max_cell_tokens);
        const auto actual = tensors_of(batch.micro_batches[i]),
                   wanted = tensors_of(expected.micro_batches[i]);
        for (std::size_t field = 0; field < actual.size(); ++field) {
          const at::Tensor& x = actual[field].second;
          ASSERT_EQ(x.device().type(), actual[field].first == "cu_seqlens_host" ? at::kCPU : device().type());
          ASSERT_TRUE(x.is_contiguous()) << actual[field].first;
          ASSERT_EQ(reinterpret_cast<uintptr_t>(x.data_ptr()) % 16, 0U) << actual[field].first;
          ASSERT_TRUE(at::equal(x.to(at::kCPU), wanted[field].second)) << actual[field].first;
        }
      }
    }
  }
}

// On a GPU the sums are enqueued behind much other work, and each batch is dropped long before they run: its
// memory must not be given to a later batch meanwhile.
TEST_F(FeederTest, ABatchMayBeDroppedAsSoonAsItsWorkIsEnqueued) {
  const Corpus corpus = test::make_corpus({300, 150, 5});
  const int64_t size = test::kOnCuda ? 4096 : 8;
  const at::Tensor weights = here(at::ones({size, size})).mul_(1.0 / static_cast<double>(size));
  at::Tensor work = weights.clone();
  std::vector<at::Tensor> sums;
  Feeder feeder(corpus, options_for(corpus), device());
  constexpr int kSteps = 40;
  for (int step = 0; step < kSteps; ++step) {
    const DeviceBatch batch = feeder.next();
    work = work.matmul(weights);
    for (const model::TokenTensors& micro_batch : batch.micro_batches)
      sums.push_back(micro_batch.tokens.mul(micro_batch.ranks.add(1)).sum());
  }
  ASSERT_GT(work.mean().item<double>(), 0.0);
  data::TrainLoader loader(corpus, options_for(corpus));
  std::size_t index = 0;
  for (int step = 0; step < kSteps; ++step) {
    for (const PackedMicroBatch& micro_batch : loader.next().micro_batches) {
      int64_t sum = 0;
      for (std::size_t i = 0; i < micro_batch.tokens.size(); ++i)
        sum += int64_t{micro_batch.tokens[i]} * (micro_batch.ranks[i] + 1);
      ASSERT_EQ(sums.at(index++).item<int64_t>(), sum) << "step " << step;
    }
  }
  EXPECT_EQ(index, sums.size());
}

TEST_F(FeederTest, WhatAThreadThrowsReachesNextEachTime) {
  std::atomic<bool> is_broken = false;
  const Corpus corpus = corpus_with([&](int64_t first_cell) {
    if (is_broken && first_cell >= 96) throw DataError("cell {} cannot be read", first_cell);
  });
  is_broken = true;
  Feeder feeder(corpus, options_for(corpus), device());
  const auto run = [&] {
    for (int step = 0; step < 100; ++step) feeder.next();
  };
  EXPECT_CONTAINS(test::message_of<DataError>(run), "cannot be read");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { feeder.next(); }), "cannot be read");
}

TEST_F(FeederTest, CanBeDestroyedAtAnyMoment) {
  const Corpus corpus =
      corpus_with([](int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); });
  for (int steps = 0; steps < 12; ++steps) {
    Feeder feeder(corpus, options_for(corpus), device());
    for (int i = 0; i < steps; ++i) feeder.next();
    std::this_thread::sleep_for(std::chrono::milliseconds(steps % 4));
  }
}

// Its thread waits for a batch that takes a hundred blocks of 20 ms; at most one of them is waited for.
TEST_F(FeederTest, IsDestroyedWhileItsThreadWaitsForTheLoader) {
  std::atomic<bool> is_slow = false;
  std::atomic<int> num_slow_reads = 0;
  const Corpus corpus = corpus_with([&](int64_t) {
    if (!is_slow) return;
    ++num_slow_reads;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  });
  is_slow = true;
  LoaderOptions options = options_for(corpus);
  options.global_batch_cells = 100 * corpus.num_training_cells();
  options.num_workers = 1;
  {
    const Feeder feeder(corpus, options, device());
    while (num_slow_reads == 0) std::this_thread::yield();
  }
  EXPECT_LE(num_slow_reads, 10);
}

TEST_F(FeederTest, KnowsHowLongNextHasWaited) {
  std::atomic<bool> is_slow = false;
  const Corpus corpus = corpus_with([&](int64_t) {
    if (is_slow) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  });
  is_slow = true;
  Feeder feeder(corpus, options_for(corpus), device());
  EXPECT_EQ(feeder.waited_seconds(), 0);
  double total = 0;
  {
    const ScopedTimer timer(total);
    for (int step = 0; step < 10; ++step) feeder.next();
  }
  EXPECT_GE(feeder.waited_seconds(), 0.005)
      << "the first window cannot be there before a slow block of it was read";
  EXPECT_LE(feeder.waited_seconds(), total);
}

}  // namespace
}  // namespace scrna::train
