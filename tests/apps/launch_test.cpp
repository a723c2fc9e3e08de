// Real processes on loopback: scrna-train launch, what it makes of ranks that are killed, stopped or asked to
// end, and what is left afterwards.
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "lib/core/clock.h"
#include "lib/core/files.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tolerance.h"

namespace scrna {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::expect_failure;
using test::scrna_train;

class Launch : public testing::Test {
 protected:
  void SetUp() override {
    test::synthesize_small(cells_);
    std::ofstream(config_) << test::small_model_config(cells_)
                           << "optim: {learning_rate: 0.001, warmup_steps: 1}\n"
                           << "train: {steps: 120, global_batch_cells: 8, device: cpu, num_threads: 1}\n"
                           << "heldout: {every_steps: 0}\n"
                           << "checkpoint: {every_steps: 15}\n"
                           << "dist: {timeout_seconds: 60}\n";
  }
  [[nodiscard]] std::string run(const std::string& name) const { return (folder_ / name).string(); }
  [[nodiscard]] std::vector<std::string> train_words(const std::string& name,
                                                     const std::vector<std::string>& settings = {}) const {
    std::vector<std::string> words = {"train", "--config", config_, "--set", "run.dir=" + run(name)};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return words;
  }
  // Starts two ranks, waits for step 20 (or `awaited` in the metrics), then does `action` with $launcher, $rank0 and $rank1.
  [[nodiscard]] test::ProcessResult disturb(const std::string& name, const std::string& action,
                                            const std::vector<std::string>& flags = {},
                                            const std::vector<std::string>& settings = {},
                                            const std::string& awaited = "\"step\":20,") const {
    std::string line = SCRNA_TRAIN_PROGRAM " launch --nproc-per-node 2";
    for (const std::string& flag : flags) line += " " + flag;
    line += " --";
    for (const std::string& word : train_words(name, settings)) line += " " + word;
    return test::run_process({"/bin/sh", "-c",
                              line +
                                  " & launcher=$!\n"
                                  "until grep -q '" + awaited + "' '" +
                                  run(name) +
                                  "/metrics.jsonl' 2>/dev/null; do\n"
                                  "  kill -0 $launcher 2>/dev/null || exit 99\n"
                                  "  sleep 0.02\n"
                                  "done\n"
                                  "for child in $(cat /proc/$launcher/task/$launcher/children); do\n"
                                  "  rank=$(tr '\\0' '\\n' < /proc/$child/environ | sed -n 's/^RANK=//p')\n"
                                  "  eval rank$rank=$child\n"
                                  "done\n" +
                                  action + "\nwait $launcher\n"});
  }
  [[nodiscard]] std::vector<double> losses(const std::string& name) const {
    std::vector<double> result;
    std::istringstream stream(read_file(run(name) + "/metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) result.push_back(nlohmann::json::parse(line)["loss"]);
    return result;
  }
  void expect_same_curve(const std::string& name, const std::string& reference) const {
    const std::vector<double> curve = losses(name), expected = losses(reference);
    ASSERT_EQ(curve.size(), expected.size());
    for (std::size_t i = 0; i < curve.size(); ++i) {
      EXPECT_NEAR(curve[i], expected[i], test::kLongRanksRelative * expected[i]) << "step " << i + 1;
    }
  }

  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string();
  const std::string config_ = (folder_ / "config.yaml").string();
};

TEST_F(Launch, ARankKilledInTheMiddleIsReplacedAndTheCurveGoesOn) {
  ASSERT_EQ(scrna_train(train_words("whole")).exit_code, 0);
  const auto result = disturb("killed", "kill -9 $rank1", {"--max-restarts", "1"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "signal 9 (Killed)")) << result.err;
  EXPECT_TRUE(contains(result.err, "restart 1 of 1")) << result.err;
  EXPECT_TRUE(contains(result.err, "[0] ")) << result.err;
  EXPECT_TRUE(contains(result.out, "120 steps")) << result.out;
  EXPECT_FALSE(contains(result.out, "[1]")) << "only the first rank sums up: " << result.out;
  expect_same_curve("killed", "whole");
}

// Steps that are forward and backward passes for the most part; the kill comes at six moments of one.
TEST_F(Launch, ARankKilledAnywhereInAStepEndsAllAtOnceWithOneReport) {
  int num_in_gradient_sum = 0;
  for (int moment = 0; moment < 6; ++moment) {
    const std::string name = "killed-" + std::to_string(moment);
    const double start = now_seconds();
    const auto result = disturb(name, "sleep 0." + std::to_string(3 * moment) + "; kill -9 $rank1", {},
                                {"train.global_batch_cells=600", "train.steps=100000", "checkpoint.every_steps=0"},
                                "\"step\":2,");
    EXPECT_EQ(result.exit_code, 5) << result.err;
    EXPECT_TRUE(contains(result.err, "rank 1 failed first")) << result.err;
    EXPECT_TRUE(contains(result.err, "signal 9 (Killed)")) << result.err;
    EXPECT_LT(now_seconds() - start, 55) << "not by its timeout: its connections close";
    // "a sum of counts" is the exchange before a step.
    num_in_gradient_sum += contains(result.err, "a sum over the ranks failed") ? 1 : 0;
  }
  EXPECT_GE(num_in_gradient_sum, 1) << "no kill came during the passes of a step";
}

// Rank 0 has its gradients and waits for the sum: rank 1 stood still before it died.
TEST_F(Launch, ARankThatDiesWhileTheOthersSumGradientsEndsAll) {
  const auto result = disturb("summing", "sleep 0.1; kill -STOP $rank1; sleep 3; kill -9 $rank1", {},
                              {"train.global_batch_cells=600", "train.steps=100000", "checkpoint.every_steps=0"},
                              "\"step\":2,");
  EXPECT_EQ(result.exit_code, 5) << result.err;
  EXPECT_TRUE(contains(result.err, "rank 1 failed first")) << result.err;
  EXPECT_TRUE(contains(result.err, "signal 9 (Killed)")) << result.err;
}

TEST_F(Launch, TheFirstRankKilledWhileItWritesACheckpointLeavesTheOneBeforeGood) {
  const auto result = disturb("writing",
                              "until ls '" + run("writing") + "/checkpoints' 2>/dev/null | grep -q '^partial-step'; do\n"
                              "  kill -0 $rank0 2>/dev/null || exit 98\ndone\nkill -9 $rank0",
                              {}, {"checkpoint.every_steps=1", "train.steps=100000"}, "\"step\":3,");
  EXPECT_EQ(result.exit_code, 5) << result.err;
  EXPECT_TRUE(contains(result.err, "rank 0 failed first")) << result.err;
  const auto resumed = scrna_train({"train", "--resume", run("writing"), "--set", "checkpoint.every_steps=0", "--set",
                                    "train.steps=120"});
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(losses("writing").size(), 120U);
}

TEST_F(Launch, AShardedOptimizerSurvivesAKillAndGoesOnWithAnyNumberOfRanks) {
  ASSERT_EQ(scrna_train(train_words("whole")).exit_code, 0);
  const auto killed = disturb("shards", "kill -9 $rank1", {"--max-restarts", "1"},
                              {"dist.shard_optimizer=true", "train.steps=60"});
  EXPECT_EQ(killed.exit_code, 0) << killed.err;
  EXPECT_TRUE(contains(killed.err, "restart 1 of 1")) << killed.err;
  std::vector<std::string> words = {"launch", "--nproc-per-node", "3", "--"};
  for (const std::string& word : train_words("shards", {"dist.shard_optimizer=true", "train.steps=90"})) words.push_back(word);
  words.insert(words.end(), {"--resume", "auto"});
  EXPECT_EQ(scrna_train(words).exit_code, 0);
  words = train_words("shards", {"dist.shard_optimizer=false"});
  words.insert(words.end(), {"--resume", "latest"});
  EXPECT_EQ(scrna_train(words).exit_code, 0);
  expect_same_curve("shards", "whole");
}

TEST_F(Launch, TheFirstRankKilledEndsAllAndItsLastCheckpointIsGood) {
  // A checkpoint after every step: the kill comes while one is being written, more often than not.
  const double start = now_seconds();
  const auto result = disturb("killed", "kill -9 $rank0", {}, {"checkpoint.every_steps=1"});
  EXPECT_EQ(result.exit_code, 5) << result.err;
  EXPECT_TRUE(contains(result.err, "rank 0 failed first")) << result.err;
  EXPECT_TRUE(contains(result.err, "signal 9")) << result.err;
  EXPECT_LT(now_seconds() - start, 55) << "not by its timeout: its connections close";
  const auto resumed = scrna_train({"train", "--resume", run("killed"), "--set", "checkpoint.every_steps=0"});
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(losses("killed").size(), 120U);
}

TEST_F(Launch, ARankThatStandsStillEndsAllAfterTheTimeout) {
  const double start = now_seconds();
  const auto result = disturb("still", "kill -STOP $rank1", {"--stop-seconds", "1"},
                              {"dist.timeout_seconds=3", "train.steps=100000", "checkpoint.every_steps=0"});
  EXPECT_EQ(result.exit_code, 5) << result.err;
  EXPECT_TRUE(contains(result.err, "did not answer within 3 s (dist.timeout_seconds)")) << result.err;
  EXPECT_LT(now_seconds() - start, 100);
}

TEST_F(Launch, ASignalToTheLauncherSavesOnceAndAnyNumberOfRanksGoesOn) {
  const auto stopped = disturb("stopped", "kill -TERM $launcher", {}, {"checkpoint.every_steps=0"});
  EXPECT_EQ(stopped.exit_code, 143) << stopped.err;
  EXPECT_TRUE(contains(stopped.out, "everything is saved")) << stopped.out;
  const std::size_t num_done = losses("stopped").size();
  ASSERT_LT(num_done, 120U);
  std::vector<std::string> words = {"launch", "--nproc-per-node", "3", "--"};
  for (const std::string& word : train_words("stopped")) words.push_back(word);
  words.insert(words.end(), {"--resume", "auto"});
  const auto resumed = scrna_train(words);
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  ASSERT_EQ(scrna_train(train_words("whole")).exit_code, 0);
  expect_same_curve("stopped", "whole");
}

TEST_F(Launch, RanksThatAreGivenDifferentSettingsRefuse) {
  const std::string start = "'" SCRNA_TRAIN_PROGRAM "' train --config " + config_ +
                            " --set run.dir=" + run("mixed") + " --set train.seed=$RANK";
  const auto result = test::run_process(
      {"/bin/sh", "-c",
       "export WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000))\n"
       "(export RANK=0 LOCAL_RANK=0; " +
           start +
           ") & first=$!\n"
           "(export RANK=1 LOCAL_RANK=1; " +
           start +
           ")\n"
           "second=$?; wait $first; echo $? $second"});
  EXPECT_EQ(result.out, "2 2\n") << result.err;
  EXPECT_TRUE(
      contains(result.err, "rank 1 was given other settings than rank 0: train.seed is 1 instead of 0"))
      << result.err;
  EXPECT_FALSE(fs::exists(run("mixed")));
}

// The second rank has a file system of its own where the run directory would be.
TEST_F(Launch, ARankThatDoesNotSeeTheRunDirectorySaysSoAtTheStart) {
  if (test::run_process({"/bin/sh", "-c", "unshare -m true"}).exit_code != 0) GTEST_SKIP() << "needs mount namespaces";
  fs::create_directory(folder_ / "shared");
  const std::string start = "'" SCRNA_TRAIN_PROGRAM "' train --config " + config_ + " --set run.dir=" +
                            run("shared/run") + " --set dist.timeout_seconds=6";
  const auto result = test::run_process(
      {"/bin/sh", "-c",
       "export WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000))\n"
       "(export RANK=0 LOCAL_RANK=0; " +
           start +
           ") & first=$!\n"
           "(export RANK=1 LOCAL_RANK=1; unshare -m sh -c 'mount -t tmpfs none " +
           run("shared") + " && " + start +
           "')\n"
           "second=$?; wait $first; echo $? $second"});
  EXPECT_EQ(result.out, "2 2\n") << result.err;
  EXPECT_TRUE(contains(result.err, "rank 1: run.dir: ")) << result.err;
  EXPECT_TRUE(contains(result.err, "does not see the folder that rank 0 made")) << result.err;
}

TEST_F(Launch, APortThatIsTakenAndAHostThatDoesNotExistAreNamedAtOnce) {
  std::vector<std::string> words = {"launch", "--nproc-per-node", "2", "--rdzv-endpoint", "127.0.0.1:PORT", "--"};
  for (const std::string& word : train_words("run", {"dist.timeout_seconds=4"})) words.push_back(word);
  const auto [taken, port] = test::listen_on_loopback();
  words[4] = "127.0.0.1:" + std::to_string(port);
  const double start = now_seconds();
  auto result = scrna_train(words);
  ::close(taken);
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_TRUE(contains(result.err, "port " + std::to_string(port) + " of this machine is taken")) << result.err;
  EXPECT_LT(now_seconds() - start, 25) << "the other rank, which still waits to meet, ends at once";
  words[4] = "nosuch.invalid:29500";
  result = scrna_train(words);
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_TRUE(contains(result.err, "no machine is called 'nosuch.invalid'")) << result.err;
}

TEST_F(Launch, WhatCannotBeStartedIsAUsageError) {
  expect_failure(scrna_train({"launch"}), 2, {"command is required"});
  expect_failure(scrna_train({"launch", "--", "inspect", "x"}), 2, {"'inspect'", "-- train"});
  expect_failure(scrna_train({"launch", "--nnodes", "2", "--", "train"}), 2, {"--rdzv-endpoint HOST:PORT"});
  expect_failure(scrna_train({"launch", "--nnodes", "2", "--rdzv-endpoint", "here", "--", "train"}), 2,
                 {"HOST:PORT", "'here'"});
  expect_failure(scrna_train({"launch", "--node-rank", "1", "--", "train"}), 2, {"--node-rank: 1 of 1"});
  expect_failure(scrna_train({"launch", "--nproc-per-node", "0", "--", "train"}), 2, {"--nproc-per-node"});
}

}  // namespace
}  // namespace scrna
