// Whole runs on several ranks (threads, Gloo): the same curve as one process, whatever their number, also
// when it changes; what ranks must agree on; what happens to all when one fails.
#include "tests/train/ranks_fixture.h"

#include <csignal>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <ATen/ops/arange.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/signals.h"
#include "lib/train/agreement.h"
#include "lib/train/check.h"
#include "lib/train/replay.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tolerance.h"

namespace scrna::train {
namespace {

TEST_F(RanksTest, AnyNumberOfRanksGivesTheCurveOfOneProcess) {
  const TrainConfig one = small("one");
  train(one, std::nullopt);
  for (const int64_t ranks : {1, 2, 3, 4}) {
    const TrainConfig config = small("ranks-" + std::to_string(ranks));
    const TrainResult result = train_with(ranks, config);
    EXPECT_EQ(result.steps, 12);
    EXPECT_EQ(result.cells, 264);
    EXPECT_GT(result.meters.cells_per_second, 0);
    // Connected but single: the same sums, the same bits.
    expect_same_curve(config.run.dir, one.run.dir, ranks == 1 ? 0 : test::kRanksRelative);
    EXPECT_EQ(checkpoint::steps_in(fs::path(config.run.dir) / "checkpoints"),
              (std::vector<int64_t>{5, 10, 12}));
  }
}

TEST_F(RanksTest, RecomputationAndSmallBucketsChangeNothing) {
  const TrainConfig one = small("one");
  train(one, std::nullopt);
  for (const model::Recompute recompute : {model::Recompute::kFeedForward, model::Recompute::kBlock}) {
    TrainConfig config = small("recompute-" + std::to_string(static_cast<int>(recompute)));
    config.train.recompute = recompute;
    config.dist.bucket_megabytes = 1;
    train_with(2, config);
    expect_same_curve(config.run.dir, one.run.dir, test::kRanksRelative);
  }
}

TEST_F(RanksTest, ARunResumedWithAnotherNumberOfRanksContinuesTheCurve) {
  const TrainConfig whole = small("whole");
  train(whole, std::nullopt);
  TrainConfig parts = small("parts");
  parts.heldout.every_steps = 0;
  const auto go_on_with = [&](int64_t ranks, int64_t steps) {
    parts.train.steps = steps;
    const bool is_new = !fs::exists(parts.run.dir);
    train_with(ranks, parts,
               is_new ? std::nullopt : std::optional(find_resume_point("latest", parts.run.dir)));
  };
  go_on_with(2, 3);
  go_on_with(4, 7);
  go_on_with(1, 9);
  parts.heldout.every_steps = 4;
  go_on_with(3, 12);
  std::vector<Json> lines = lines_of(parts.run.dir), expected = lines_of(whole.run.dir);
  std::erase_if(expected,
                [](const Json& line) { return line.contains("heldout_loss") && line["step"] < 12; });
  ASSERT_EQ(lines.size(), expected.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const char* key = expected[i].contains("loss") ? "loss" : "heldout_loss";
    EXPECT_NEAR(lines[i].value(key, 0.0), expected[i][key].get<double>(),
                test::kRanksRelative * expected[i][key].get<double>());
    EXPECT_EQ(lines[i]["step"], expected[i]["step"]);
  }
}

TEST_F(RanksTest, GradientsSummedInBf16GiveNearlyTheSameCurve) {
  const TrainConfig one = small("one");
  train(one, std::nullopt);
  TrainConfig config = small("bf16");
  config.dist.gradient_type = dist::GradientType::kBf16;
  train_with(2, config);
  expect_same_curve(config.run.dir, one.run.dir, test::kBf16GradientsRelative);
  EXPECT_NE(lines_of(config.run.dir).back()["heldout_loss"], lines_of(one.run.dir).back()["heldout_loss"]);
}

TEST_F(RanksTest, ASignalToOneRankStopsAllBeforeTheSameStep) {
  TrainConfig config = small("run");
  config.train.steps = 400;
  config.heldout.every_steps = 0;
  config.checkpoint.every_steps = 0;
  std::jthread signaller([&](const std::stop_token& ended) {
    while (!ended.stop_requested()) {
      const fs::path metrics = fs::path(config.run.dir) / "metrics.jsonl";
      if (fs::exists(metrics) && read_file(metrics).find("\"step\":3,") != std::string::npos) {
        install_stop_signal_handlers();
        ::kill(::getpid(), SIGTERM);  // a flag that every thread sees at another moment
        return;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  std::mutex mutex;
  std::vector<int64_t> steps;
  test::run_good_ranks(3, [&](dist::Communicator& communicator) {
    const TrainResult result = train(config, std::nullopt, at::kCPU, communicator);
    EXPECT_EQ(result.stop_signal, SIGTERM);
    const std::scoped_lock lock(mutex);
    steps.push_back(result.steps);
  });
  signaller.request_stop();
  ASSERT_EQ(steps.size(), 3U);
  EXPECT_EQ(steps[0], steps[1]);
  EXPECT_EQ(steps[0], steps[2]);
  EXPECT_LT(steps[0], 400);
  EXPECT_EQ(checkpoint::steps_in(fs::path(config.run.dir) / "checkpoints"), std::vector<int64_t>{steps[0]});
}

// Runs two ranks that are expected to fail alike; what rank 0 and rank 1 said.
template <class E, class Run>
std::vector<std::string> failures(const Run& run) {
  std::vector<std::string> messages;
  for (const std::exception_ptr& problem : test::run_ranks(2, run)) {
    messages.push_back(test::message_of<Error>([&] {
      if (problem) std::rethrow_exception(problem);
    }));
    EXPECT_TRUE(problem);
    try {
      if (problem) std::rethrow_exception(problem);
    } catch (const E&) {  // its own
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), E("{}", "").code()) << error.what();  // what it heard
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
  return messages;
}

TEST_F(RanksTest, SettingsThatDifferBetweenRanksAreNamedBeforeAnythingIsWritten) {
  const auto messages = failures<ConfigError>([&](dist::Communicator& communicator) {
    TrainConfig config = small("run");
    if (communicator.rank() == 1) config.optim.learning_rate = 0.5;
    train(config, std::nullopt, at::kCPU, communicator);
  });
  for (const std::string& message : messages) {
    EXPECT_CONTAINS(
        message, "rank 1 was given other settings than rank 0: optim.learning_rate is 0.5 instead of 0.01");
  }
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(RanksTest, WhatTheFirstRankCannotWriteEndsAll) {
  const TrainConfig config = small("run");
  fs::create_directory(config.run.dir);
  const auto messages = failures<ConfigError>(
      [&](dist::Communicator& communicator) { train(config, std::nullopt, at::kCPU, communicator); });
  EXPECT_EQ(messages[0].find("run.dir: "), 0U) << messages[0];
  EXPECT_EQ(messages[1].find("rank 0: run.dir: "), 0U) << messages[1];
}

TEST_F(RanksTest, CellsThatOneRankCannotReadEndAll) {
  const auto messages = failures<DataError>([&](dist::Communicator& communicator) {
    (void)share_step(communicator, [&]() -> DeviceBatch {
      if (communicator.rank() == 1) throw DataError("cells.h5ad: damaged");
      return {};
    });
  });
  EXPECT_EQ(messages[0], "rank 1: cells.h5ad: damaged");
  EXPECT_EQ(messages[1], "cells.h5ad: damaged");
}

TEST_F(RanksTest, DivergenceIsTheSameDecisionOnEveryRank) {
  TrainConfig config = small("run");
  config.optim.learning_rate = 1e30;
  config.optim.clip_norm = 0;
  const auto messages = failures<NumericError>(
      [&](dist::Communicator& communicator) { train(config, std::nullopt, at::kCPU, communicator); });
  const auto step_of = [](const std::string& message) { return message.substr(0, message.find(':')); };
  EXPECT_EQ(step_of(messages[0]), step_of(messages[1]));
  EXPECT_TRUE(lines_of(config.run.dir).back()["loss"].is_null() ||
              lines_of(config.run.dir).back()["grad_norm"].is_null());
}

TEST_F(RanksTest, WeightsThatDifferBetweenRanksAreNoticed) {
  const auto with_seed = [](uint64_t seed_of_second) {
    return [seed_of_second](dist::Communicator& communicator) {
      model::Encoder encoder({.num_layers = 1, .width = 16, .num_heads = 2, .feed_forward_width = 32}, 50, 32,
                             communicator.rank() == 1 ? seed_of_second : 1, at::kCPU);
      const optim::AdamW optimizer(encoder.parameters(), {});
      require_same_weights(communicator, encoder, optimizer, "here");
    };
  };
  test::run_good_ranks(2, with_seed(1));
  for (const std::string& message : failures<InternalError>(with_seed(2))) {
    EXPECT_CONTAINS(message, "here: rank 1 has other weights");
  }
}

TEST_F(RanksTest, AChecksumSeesEveryNumberAndItsRow) {
  const at::Tensor numbers = at::arange(4096, at::kFloat);
  const int64_t sum = checksum(numbers);
  EXPECT_EQ(checksum(numbers.clone()), sum);
  for (const int64_t index : {0, 1023, 1024, 4095}) {
    const at::Tensor changed = numbers.clone();
    changed[index].add_(0.001);
    EXPECT_NE(checksum(changed), sum) << index;
  }
  const at::Tensor swapped = numbers.view({4, 1024}).flip(0).contiguous().view({-1});
  EXPECT_NE(checksum(swapped), sum);
}

TEST_F(RanksTest, CheckingWorksOnSeveralRanksAndWritesNothing) {
  const TrainConfig config = small("run");
  const double loss = check(config, std::nullopt).loss;
  test::run_good_ranks(2, [&](dist::Communicator& communicator) {
    const double shared = check(config, std::nullopt, at::kCPU, communicator).loss;
    EXPECT_NEAR(shared, loss, test::kRanksRelative * loss);
  });
  EXPECT_FALSE(fs::exists(config.run.dir));
}

// A limit that ordinary noise exceeds: all ranks must skip, and go back, at the same steps, or one would wait for the others.
TEST_F(RanksTest, StepsThatDivergeAreSkippedOrGoneBackFromOnEveryRank) {
  for (const OnDivergence on_divergence : {OnDivergence::kSkip, OnDivergence::kRollback}) {
    TrainConfig config = small(std::string(config::name_of(on_divergence)));
    config.train.on_divergence = on_divergence;
    config.train.steps = 24;
    config.train.max_recoveries = 50;
    config.train.global_batch_cells = 6;
    config.checkpoint.every_steps = 2;
    config.monitor.explosion_factor = 1.1;
    config.monitor.explosion_window_steps = 10;
    EXPECT_EQ(train_with(2, config).steps, 24);
    const fs::path run = config.run.dir;
    const std::vector<fs::path> dumps(fs::directory_iterator(run / "divergence"), {});
    ASSERT_FALSE(dumps.empty());
    for (const fs::path& file : dumps) {
      const StepDump dump = read_dump(file);
      EXPECT_EQ(dump.num_ranks, 2);
      EXPECT_EQ(dump.cells.size(), 6U);
      EXPECT_EQ(dump.cells.front().rank, 0);
      EXPECT_EQ(dump.cells.back().rank, 1);
    }
    // One process finds the same cells and, but for rounding, the same numbers.
    const ReplayReport report = replay(dumps.front(), {});
    EXPECT_FALSE(report.is_exact_expected);
    for (const std::string& difference : report.differences) EXPECT_EQ(difference.find("cells"), std::string::npos) << difference;
    EXPECT_NEAR(report.step.loss, report.dump.loss, test::kRanksRelative * report.dump.loss);
    EXPECT_NEAR(report.step.grad_norm, report.dump.grad_norm, test::kRanksRelative * report.dump.grad_norm);
  }
}

}  // namespace
}  // namespace scrna::train
