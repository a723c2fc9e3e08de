// scrna-train stress, report and replay from the outside: a whole table on a tiny file, gone on with, and looked at.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "lib/core/files.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::expect_failure;
using test::scrna_train;

class Stress : public testing::Test {
 protected:
  void SetUp() override {
    test::synthesize_small(cells_);
    std::ofstream(config_) << test::small_model_config(cells_)
                           << "optim: {learning_rate: 0.01, warmup_steps: 1}\n"
                              "train: {steps: 6, global_batch_cells: 8, device: cpu, num_threads: 1}\n"
                              "heldout: {every_steps: 3}\n";
    std::ofstream(table_) << "title: A small table\nbase: config.yaml\naxes: {model.attention: [sigmoid, softmax], optim.learning_rate: [0.01, 1e30]}\n";
  }
  [[nodiscard]] test::ProcessResult stress(std::vector<std::string> flags = {}) const {
    std::vector<std::string> words = {"stress", "--config", table_, "--out", out_.string()};
    words.insert(words.end(), flags.begin(), flags.end());
    return scrna_train(words);
  }
  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string(), config_ = (folder_ / "config.yaml").string(), table_ = (folder_ / "table.yaml").string();
  const fs::path out_ = folder_ / "out";
};

TEST_F(Stress, ATableRunsToItsReportAndIsNotRunAgain) {
  const auto first = stress({"--jobs-per-gpu", "2"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_TRUE(contains(first.out, "4 arms")) << first.out;
  EXPECT_TRUE(contains(first.out, "2 arms finished, 2 diverged, 0 failed")) << first.out;
  EXPECT_TRUE(contains(first.out, (out_ / "report.html").string())) << first.out;
  const std::string html = read_file(out_ / "report.html");
  for (const char* part : {"A small table", "Verdicts", "panel-max-score", "rate-loss-0", "4 of 4 arms have ended"}) EXPECT_TRUE(contains(html, part)) << part;
  EXPECT_TRUE(fs::exists(out_ / "report-figures/panel-loss.svg"));
  EXPECT_TRUE(fs::exists(out_ / "vocabulary.tsv"));
  const std::string metrics = read_file(out_ / "sigmoid-lr0.01/metrics.jsonl");

  const auto again = stress();
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_TRUE(contains(again.err, "4 of 4 arms have ended before")) << again.err;
  EXPECT_EQ(read_file(out_ / "sigmoid-lr0.01/metrics.jsonl"), metrics);

  const fs::path dump = *fs::directory_iterator(out_ / "softmax-lr1e30/divergence");
  const auto replay = scrna_train({"replay", dump.string()});
  ASSERT_EQ(replay.exit_code, 0) << replay.err;
  for (const char* part : {"not finite", "8 cells", "the beginning of the run", "largest |score|", "the same bits"}) EXPECT_TRUE(contains(replay.out, part)) << part << replay.out;
}

TEST_F(Stress, AnArmThatFailsIsReportedAndTheOthersRun) {
  std::ofstream(table_) << "base: config.yaml\naxes: {train.seed: [1, 2]}\nvariants: {good: {}, bad: {data.min_genes: 1000}}\n";
  const auto result = stress();
  EXPECT_EQ(result.exit_code, 5) << result.err;
  EXPECT_TRUE(contains(result.err, "arm bad-seed1 failed: exit code 3")) << result.err;
  EXPECT_TRUE(contains(result.out, "2 arms finished, 0 diverged, 2 failed")) << result.out;
  EXPECT_TRUE(contains(read_file(out_ / "report.html"), "Arms that failed"));
}

TEST_F(Stress, ThePlanShowsArmsAndCostAndRunsNothing) {
  const auto result = stress({"--plan", "--steps", "100", "--axis", "model.attention=[softmax]"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, "2 arms")) << result.out;
  EXPECT_TRUE(contains(result.out, "100 steps")) << result.out;
  EXPECT_TRUE(contains(result.out, "GPU-hours")) << result.out;
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(Stress, WhatIsWrongIsToldBeforeAnythingRuns) {
  expect_failure(stress({"--set", "train.setps=5"}), 2, {"train.setps", "train.steps"});
  expect_failure(stress({"--axis", "train.seed=[1, 1]"}), 2, {"twice"});
  expect_failure(scrna_train({"stress", "--config", (folder_ / "missing.yaml").string()}), 2, {"missing.yaml"});
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(Stress, ReportsOfRunsAreWrittenAndWrongFoldersRefused) {
  const std::string run = (folder_ / "run").string(), page = (folder_ / "pages/run.html").string();
  ASSERT_EQ(scrna_train({"train", "--config", config_, "--set", "run.dir=" + run}).exit_code, 0);
  const auto result = scrna_train({"report", run, "--out", page});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, page + "\n");
  const std::string html = read_file(page);
  for (const char* part : {"Training loss", "Held-out loss", "Gradient norm by layer", "Where the time of a step goes", "Lengths of the cells", "optim.learning_rate: 0.01", "finished"}) {
    EXPECT_TRUE(contains(html, part)) << part;
  }
  EXPECT_TRUE(fs::exists(folder_ / "pages/run-figures/loss.svg"));
  expect_failure(scrna_train({"report", folder_.path().string(), "--out", page}), 3, {"not a run directory"});
  expect_failure(scrna_train({"replay", config_}), 3, {"not the dump of a step"});
}

}  // namespace
}  // namespace scrna
