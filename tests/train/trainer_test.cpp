// Whole runs on a small synthetic file: what is written, going on after an interruption, and what is refused.
#include "lib/train/check.h"
#include "lib/train/trainer.h"

#include <csignal>
#include <chrono>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/signals.h"
#include "lib/data/vocabulary.h"
#include "tests/train/small_run.h"

namespace scrna::train {
namespace {

class TrainerTest : public SmallRun {
 protected:
  // Every number of the metrics but the times; with or without the held-out evaluations.
  static std::string curve_of(const fs::path& run, bool with_heldout = true) {
    std::string text;
    for (Json line : lines_of(run)) {
      if (!with_heldout && line.contains("heldout_loss")) continue;
      for (const char* key : {"seconds", "seconds_data_wait", "seconds_idle", "seconds_forward", "seconds_backward", "seconds_reduce",
                              "seconds_optimizer", "cells_per_second", "tokens_per_second", "model_tflops_per_second",
                              "data_wait_share", "heldout_seconds"}) {
        line.erase(key);
      }
      text += line.dump() + "\n";
    }
    return text;
  }

};

TEST_F(TrainerTest, ARunDirectoryHoldsWhatTheReadmePromises) {
  const TrainConfig config = small("run");
  const TrainResult result = train(config, std::nullopt);
  const fs::path run = config.run.dir;
  EXPECT_EQ(result.steps, 12);
  EXPECT_EQ(result.cells, 240);
  EXPECT_EQ(result.stop_signal, 0);
  EXPECT_EQ(config::dump(config::load<TrainConfig>(run / "config.yaml", {})), config::dump(config));
  EXPECT_EQ(data::Vocabulary::load(run / "vocabulary.tsv").genes().size(), 80U);
  EXPECT_GT(fs::file_size(run / "log.txt"), 0U);
  EXPECT_EQ(checkpoint::steps_in(run / "checkpoints"), (std::vector<int64_t>{5, 10, 12}));
  EXPECT_EQ(fs::canonical(run / "checkpoints/latest"), fs::canonical(run / "checkpoints/step-00000012"));
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}) {
    EXPECT_TRUE(fs::exists(run / "checkpoints/latest" / file)) << file;
  }
  std::vector<int64_t> steps, heldout_steps;
  for (const Json& line : lines_of(run)) {
    (line.contains("loss") ? steps : heldout_steps).push_back(line["step"].get<int64_t>());
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(heldout_steps, (std::vector<int64_t>{0, 4, 8, 12}));
  ASSERT_TRUE(result.last_heldout.has_value());
  EXPECT_LT(result.last_heldout->loss, result.first_heldout->loss);
}

TEST_F(TrainerTest, TheSameConfigurationGivesTheSameCurveBitForBitWhateverTheNumberOfWorkers) {
  TrainConfig one = small("one"), two = small("two");
  two.data.num_workers = 5;
  train(one, std::nullopt);
  train(two, std::nullopt);
  EXPECT_EQ(curve_of(one.run.dir), curve_of(two.run.dir));
  TrainConfig other = small("other");
  other.train.seed = 43;
  train(other, std::nullopt);
  EXPECT_NE(curve_of(one.run.dir), curve_of(other.run.dir));
}

TEST_F(TrainerTest, ARunResumedMidEpochContinuesTheCurveBitForBit) {
  for (const model::Attention attention : {model::Attention::kSigmoid, model::Attention::kSoftmax}) {
    const std::string suffix = attention == model::Attention::kSigmoid ? "-sigmoid" : "-softmax";
    TrainConfig whole = small("whole" + suffix);
    whole.model.attention = attention;
    train(whole, std::nullopt);
    // Stops after 7 of 12 steps; the schedule is constant, so train.steps may grow.
    TrainConfig parts = whole;
    parts.run.dir = (folder_ / ("parts" + suffix)).string();
    parts.heldout.every_steps = 0;
    parts.train.steps = 7;
    train(parts, std::nullopt);
    parts.train.steps = 12;
    train(parts, find_resume_point("latest", parts.run.dir));
    EXPECT_EQ(curve_of(parts.run.dir), curve_of(whole.run.dir, /*with_heldout=*/false)) << suffix;
  }
}

TEST_F(TrainerTest, ResumingFromAnOlderCheckpointWritesTheSameLinesAgainAndKeepsTheOldOnes) {
  const TrainConfig config = small("run");
  train(config, std::nullopt);
  const std::string before = curve_of(config.run.dir);
  train(config, find_resume_point((folder_ / "run/checkpoints/step-00000005").string(), config.run.dir));
  EXPECT_EQ(curve_of(config.run.dir), before);
  EXPECT_TRUE(fs::exists(folder_ / "run/metrics.superseded.jsonl"));
}

TEST_F(TrainerTest, ACheckpointMayBranchOffIntoANewRun) {
  const TrainConfig config = small("run");
  train(config, std::nullopt);
  const std::string before = curve_of(config.run.dir);
  TrainConfig branch = config;
  branch.run.dir = (folder_ / "branch").string();
  branch.optim.learning_rate = 1e-3;
  const TrainResult result =
      train(branch, find_resume_point((folder_ / "run/checkpoints/step-00000010").string(), config.run.dir));
  EXPECT_EQ(result.steps, 12);
  EXPECT_EQ(curve_of(config.run.dir), before);
  EXPECT_EQ(lines_of(folder_ / "branch").front()["step"], 11);
}

TEST_F(TrainerTest, SigtermSavesAndTheResumedRunContinuesTheCurve) {
  TrainConfig config = small("whole");
  config.checkpoint.every_steps = 0;
  config.train.steps = 60;  // long enough for the signal to come in between
  train(config, std::nullopt);
  const std::string whole = curve_of(config.run.dir);

  TrainConfig stopped = config;
  stopped.run.dir = (folder_ / "stopped").string();
  install_stop_signal_handlers();
  std::jthread killer([&](const std::stop_token& ended) {
    const fs::path metrics = fs::path(stopped.run.dir) / "metrics.jsonl";
    while (!ended.stop_requested()) {
      if (fs::exists(metrics) && read_file(metrics).find("\"step\":3") != std::string::npos) {
        ::kill(::getpid(), SIGTERM);
        return;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  const TrainResult result = train(stopped, std::nullopt);
  killer.request_stop();
  killer.join();
  EXPECT_EQ(result.stop_signal, SIGTERM);
  EXPECT_LT(result.steps, 60);
  EXPECT_EQ(checkpoint::steps_in(fs::path(stopped.run.dir) / "checkpoints"), (std::vector<int64_t>{result.steps}));
  clear_stop_signal();
  train(stopped, find_resume_point("latest", stopped.run.dir));
  EXPECT_EQ(curve_of(stopped.run.dir), whole);
}

TEST_F(TrainerTest, ASignalBeforeTheFirstStepWritesNothing) {
  install_stop_signal_handlers();
  ::raise(SIGTERM);
  const TrainConfig config = small("never");
  EXPECT_THROW(train(config, std::nullopt), Interrupted);
  EXPECT_FALSE(fs::exists(config.run.dir));
}

TEST_F(TrainerTest, DivergenceEndsTheRunWithItsLineAndTheLastGoodCheckpoint) {
  TrainConfig config = small("run");
  config.optim.learning_rate = 1e30;
  config.checkpoint.every_steps = 1;
  std::string message;
  try {
    train(config, std::nullopt);
  } catch (const NumericError& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("training has diverged"), std::string::npos) << message;
  EXPECT_NE(message.find("step-0000000"), std::string::npos) << message;
  const std::vector<Json> lines = lines_of(config.run.dir);
  EXPECT_TRUE(lines.back()["loss"].is_null() || lines.back()["grad_norm"].is_null());
}

TEST_F(TrainerTest, WhatIsWrongWithTheInputsLeavesNoRunDirectory) {
  TrainConfig config = small("run");
  config.data.files = {(folder_ / "missing.h5ad").string()};
  EXPECT_THROW(train(config, std::nullopt), DataError);
  EXPECT_FALSE(fs::exists(config.run.dir));
  config = small("run");
  config.data.min_genes = 1000;
  EXPECT_THROW(train(config, std::nullopt), DataError);
  EXPECT_FALSE(fs::exists(config.run.dir));
}

TEST_F(TrainerTest, AGpuThatIsNotThereIsADeviceError) {
  if (at::hasCUDA()) GTEST_SKIP() << "this machine has a GPU";
  TrainConfig config = small("run");
  config.train.device = DeviceChoice::kCuda;
  EXPECT_THROW(train(config, std::nullopt), DeviceError);
  EXPECT_FALSE(fs::exists(config.run.dir));
}

TEST_F(TrainerTest, AnExistingRunDirectoryIsRefused) {
  const TrainConfig config = small("run");
  train(config, std::nullopt);
  const std::string before = curve_of(config.run.dir);
  EXPECT_THROW(train(config, std::nullopt), ConfigError);
  EXPECT_EQ(curve_of(config.run.dir), before);
}

TEST_F(TrainerTest, CheckingWritesNothing) {
  const TrainConfig config = small("run");
  const CheckReport report = check(config, std::nullopt);
  EXPECT_FALSE(fs::exists(config.run.dir));
  EXPECT_EQ(report.training_cells + report.heldout_cells, 120);
  EXPECT_GT(report.parameters, 0);
  EXPECT_GT(report.peak_memory_bytes, 0);
  EXPECT_EQ(report.plan_tokens, 128);
  EXPECT_GT(report.plan.part(MemoryPart::kActivations), 0);
  // The check ran on the CPU: the plan is for a GPU in bf16, so there is a copy of the weights and nothing to compare.
  EXPECT_EQ(2 * report.plan.part(MemoryPart::kComputeCopy), report.plan.part(MemoryPart::kWeights));
  EXPECT_FALSE(report.measured.has_value());
}

TEST_F(TrainerTest, EveryStepAndTheRunSayHowWellTheMachineWasUsed) {
  const TrainConfig config = small("run");
  const TrainResult result = train(config, std::nullopt);
  double seconds = 0, flop = 0, wait = 0;
  for (const Json& line : lines_of(config.run.dir)) {
    if (!line.contains("loss")) continue;
    const double step_seconds = line["seconds"];
    EXPECT_NEAR(line["cells_per_second"].get<double>() * step_seconds, 20, 1e-9);
    // On the CPU a step is its wait for cells and what it computes, mark to mark.
    EXPECT_EQ(line["seconds_idle"], line["seconds_data_wait"]);
    EXPECT_NEAR(step_seconds,
                line["seconds_idle"].get<double>() + line["seconds_forward"].get<double>() +
                    line["seconds_backward"].get<double>() + line["seconds_optimizer"].get<double>(),
                1e-9);
    EXPECT_EQ(line["padding_share"], 0.0);
    EXPECT_TRUE(line["mfu"].is_null());
    EXPECT_TRUE(line["peak_device_memory_bytes"].is_null());
    seconds += step_seconds;
    flop += line["model_tflops_per_second"].get<double>() * 1e12 * step_seconds;
    wait += line["data_wait_share"].get<double>() * step_seconds;
  }
  // 3 x 2 x P x tokens is part of it, and every token is counted: P = 2 (4 x 16^2 + 2 x 16 x 32).
  EXPECT_GT(flop, 6.0 * 4096 * static_cast<double>(result.tokens));
  EXPECT_NEAR(result.meters.flop_per_second * seconds, flop, 1e-9 * flop);
  EXPECT_NEAR(result.meters.cells_per_second * seconds, 240, 1e-6);
  EXPECT_NEAR(result.meters.tokens_per_second * seconds, static_cast<double>(result.tokens), 1e-6);
  EXPECT_NEAR(result.meters.data_wait_share * seconds, wait, 1e-9);
}

TEST_F(TrainerTest, SettingsThatWouldBreakTheRunAreRefusedOnResume) {
  const TrainConfig config = small("run");
  train(config, std::nullopt);
  const ResumePoint point = find_resume_point("latest", config.run.dir);
  const auto refuses = [&](auto change) {
    TrainConfig changed = config;
    changed.train.steps = 20;
    change(changed);
    try {
      train(changed, point);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refuses([](TrainConfig& c) { c.train.seed = 1; }).find("train.seed: 42 -> 1"), std::string::npos);
  EXPECT_NE(refuses([](TrainConfig& c) { c.train.global_batch_cells = 10; }).find("global_batch_cells"),
            std::string::npos);
  EXPECT_NE(refuses([](TrainConfig& c) { c.model.width = 32; }).find("model.width"), std::string::npos);
  EXPECT_NE(refuses([](TrainConfig& c) { c.data.heldout_seed = 9; }).find("heldout_seed"), std::string::npos);
  EXPECT_EQ(refuses([](TrainConfig& c) { c.optim.learning_rate = 1e-3; }), "accepted");
  EXPECT_EQ(refuses([](TrainConfig& c) {
              c.model.attention_precision = model::AttentionPrecision::kFast;
              c.model.gelu_precision = model::GeluPrecision::kFast;
              c.train.steps = 21;  // the run has 20 by now
            }),
            "accepted");
}

TEST_F(TrainerTest, ACheckpointOfAnotherVocabularyOrOfOtherCellsIsRefused) {
  const TrainConfig config = small("run");
  train(config, std::nullopt);
  TrainConfig more = config;
  more.train.steps = 20;
  const ResumePoint point = find_resume_point("latest", config.run.dir);
  const fs::path vocabulary = folder_ / "run/vocabulary.tsv";

  std::vector<data::Gene> genes = data::Vocabulary::load(vocabulary).genes();
  genes.front().median *= 2;
  data::Vocabulary(genes).save(folder_ / "other.tsv");
  TrainConfig other = more;
  other.data.vocabulary = (folder_ / "other.tsv").string();
  EXPECT_THROW(train(other, point), CheckpointError);

  data::synthesize({.cells = 100, .genes = 80, .median_genes = 30, .num_workers = 1}, folder_ / "cells.h5ad");
  other = more;
  other.data.files = {(folder_ / "cells.h5ad").string()};
  EXPECT_THROW(train(other, point), CheckpointError);
  EXPECT_EQ(lines_of(folder_ / "run").back()["step"], 12);
}

TEST_F(TrainerTest, ADamagedNewestCheckpointIsPassedOverForTheOneBefore) {
  TrainConfig config = small("run");
  train(config, std::nullopt);
  const fs::path damaged = folder_ / "run/checkpoints/step-00000012/model.safetensors";
  std::string bytes = read_file(damaged);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_file_atomically(damaged, bytes);
  EXPECT_EQ(find_resume_point("latest", config.run.dir).checkpoint.filename(), "step-00000010");
  EXPECT_THROW(train(config, find_resume_point(damaged.parent_path().string(), config.run.dir)), CheckpointError);
}

TEST_F(TrainerTest, ResumingAutomaticallyBeginsGoesOnOrMakesRoom) {
  TrainConfig config = small("run");
  const fs::path run = config.run.dir;
  EXPECT_FALSE(resume_or_begin(run).has_value());  // nothing there
  fs::create_directory(run);                       // made, and killed at once
  EXPECT_FALSE(resume_or_begin(run).has_value());
  EXPECT_FALSE(fs::exists(run));
  train(config, std::nullopt);
  const std::optional<ResumePoint> point = resume_or_begin(run);
  ASSERT_TRUE(point.has_value());
  EXPECT_EQ(point->checkpoint.filename(), "step-00000012");
  // Killed before its first checkpoint: twice, so that neither is lost.
  for (const char* aside : {"run.without-checkpoint-1", "run.without-checkpoint-2"}) {
    fs::remove_all(run / "checkpoints");
    EXPECT_FALSE(resume_or_begin(run).has_value());
    EXPECT_TRUE(fs::exists(folder_ / aside / "metrics.jsonl")) << aside;
    train(config, resume_or_begin(run));
  }
  EXPECT_THROW((void)resume_or_begin(""), ConfigError);
  EXPECT_THROW((void)resume_or_begin(folder_.path()), ConfigError);  // a folder that is no run
}

TEST_F(TrainerTest, AFinishedRunResumedDoesNothingMore) {
  const TrainConfig config = small("run");
  train(config, std::nullopt);
  const std::string before = read_file(folder_ / "run/metrics.jsonl");
  const TrainResult result = train(config, find_resume_point("latest", config.run.dir));
  EXPECT_EQ(result.steps, 12);
  EXPECT_EQ(read_file(folder_ / "run/metrics.jsonl"), before);
}

}  // namespace
}  // namespace scrna::train
