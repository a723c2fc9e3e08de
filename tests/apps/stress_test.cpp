// scrna-train stress, report and replay from the outside: a whole table on a tiny file, gone on with, and
// looked at.
#include <algorithm>
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
    std::ofstream(table_) << "title: A small table\nbase: config.yaml\naxes: {model.attention: [sigmoid, "
                             "softmax], optim.learning_rate: [0.01, 1e30]}\n";
  }
  [[nodiscard]] test::ProcessResult stress(std::vector<std::string> flags = {}) const {
    std::vector<std::string> words = {"stress", "--config", table_, "--out", out_.string()};
    words.insert(words.end(), flags.begin(), flags.end());
    return scrna_train(words);
  }
  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string(), config_ = (folder_ / "config.yaml").string(),
                    table_ = (folder_ / "table.yaml").string();
  const fs::path out_ = folder_ / "out";
};

TEST_F(Stress, ATableRunsToItsReportAndIsNotRunAgain) {
  const auto first = stress({"--jobs-per-gpu", "2"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_TRUE(contains(first.out, "4 arms")) << first.out;
  EXPECT_TRUE(contains(first.out, "2 arms finished, 2 diverged, 0 failed")) << first.out;
  EXPECT_TRUE(contains(first.out, (out_ / "report.html").string())) << first.out;
  const std::string html = read_file(out_ / "report.html");
  for (const char* part :
       {"A small table", "Verdicts", "panel-max-score", "rate-loss-0", "4 of 4 arms have ended"})
    EXPECT_TRUE(contains(html, part)) << part;
  EXPECT_TRUE(fs::exists(out_ / "report-figures/panel-loss.svg"));
  EXPECT_TRUE(fs::exists(out_ / "vocabulary.tsv"));
  const std::string metrics = read_file(out_ / "sigmoid-lr0.01/metrics.jsonl");

  const auto again = stress();
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_TRUE(contains(again.err, "4 of 4 arms have ended before")) << again.err;
  EXPECT_EQ(read_file(out_ / "sigmoid-lr0.01/metrics.jsonl"), metrics);

  // Arms that were run with other settings do not stand for these.
  const std::string arm_file = read_file(out_ / "sigmoid-lr0.01.yaml");
  const auto other = stress({"--set", "optim.beta2=0.9", "--steps", "5"});
  EXPECT_EQ(other.exit_code, 2) << other.err;
  for (const char* part :
       {"sigmoid-lr0.01: that arm was begun with other settings", "optim.beta2", "train.steps: 6 -> 5", "another --out"})
    EXPECT_TRUE(contains(other.err, part)) << part << other.err;
  EXPECT_EQ(read_file(out_ / "sigmoid-lr0.01.yaml"), arm_file);
  EXPECT_EQ(stress({"--set", "data.num_workers=2"}).exit_code, 0);

  const fs::path dump = *fs::directory_iterator(out_ / "softmax-lr1e30/divergence");
  const auto replay = scrna_train({"replay", dump.string()});
  ASSERT_EQ(replay.exit_code, 0) << replay.err;
  for (const char* part :
       {"not finite", "8 cells", "the beginning of the run", "largest |score|", "the same bits"})
    EXPECT_TRUE(contains(replay.out, part)) << part << replay.out;
}

TEST_F(Stress, ATableThatIsCutKeepsWhatIsDoneSaysWhatIsMissingAndGoesOn) {
  std::ofstream(table_) << "base: config.yaml\nsettings: {train.steps: 300, heldout.every_steps: 0, "
                           "checkpoint.every_steps: 0}\n"
                           "axes: {model.attention: [sigmoid, softmax], train.seed: [1, 2]}\n";
  const auto arm_file = [&](const std::string& arm) { return out_ / arm / "metrics.jsonl"; };
  const auto num_lines = [&](const std::string& arm) {
    const std::string text = read_file(arm_file(arm));
    return std::count(text.begin(), text.end(), '\n');
  };
  // No time for more than one arm.
  const auto first = stress({"--minutes", "0.0001"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_TRUE(contains(first.out, "1 arms finished, 0 diverged, 0 failed")) << first.out;
  EXPECT_TRUE(contains(first.out, "3 arms were not begun within 0.0001 minutes")) << first.out;
  EXPECT_TRUE(contains(read_file(out_ / "report.html"), "3 arms are missing, 0 of them begun"));
  const std::string done = read_file(arm_file("sigmoid-seed1"));

  // The table is killed in the middle of the second arm, which saves.
  const std::string script =
      "\"$1\" stress --config \"$2\" --out \"$3\" & table=$!\n"
      "until [ \"$(wc -l < \"$3/sigmoid-seed2/metrics.jsonl\" 2> /dev/null || echo 0)\" -gt 20 ]; do\n"
      "  kill -0 $table 2> /dev/null || exit 99\n  sleep 0.01\ndone\n"
      "kill -9 $table; wait $table 2> /dev/null\n"
      "flock \"$3/sigmoid-seed2\" true\n";
  ASSERT_EQ(test::run_process({"/bin/bash", "-c", script, "bash", SCRNA_TRAIN_PROGRAM, table_, out_.string()})
                .exit_code,
            0);
  EXPECT_LT(num_lines("sigmoid-seed2"), 300);
  ASSERT_EQ(stress({"--report"}).exit_code, 0);
  const std::string html = read_file(out_ / "report.html");
  for (const char* part :
       {"1 of 4 arms have ended", "3 arms are missing, 1 of them begun", "sigmoid-seed2</td>", "of 300</td>",
        "softmax-seed2</td><td class=\"text muted\">not begun"})
    EXPECT_TRUE(contains(html, part)) << part;
  EXPECT_TRUE(fs::exists(out_ / "stress.json"))
      << "without it the report of a table that was cut has no machine";

  const auto rest = stress();
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_TRUE(contains(rest.err, "1 of 4 arms have ended before")) << rest.err;
  EXPECT_TRUE(contains(rest.out, "4 arms finished")) << rest.out;
  EXPECT_EQ(read_file(arm_file("sigmoid-seed1")), done);
  EXPECT_EQ(num_lines("sigmoid-seed2"), 300);
  EXPECT_FALSE(fs::exists(out_ / "sigmoid-seed2.without-checkpoint-1")) << "it went on where it was";

  // An arm that could save nothing begins anew, and nothing else is run.
  fs::remove_all(out_ / "softmax-seed1/checkpoints");
  const std::string all = read_file(arm_file("softmax-seed1"));
  std::ofstream(arm_file("softmax-seed1")) << all.substr(0, all.find('\n') + 1);
  const auto last = stress();
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_TRUE(contains(last.err, "3 of 4 arms have ended before")) << last.err;
  EXPECT_TRUE(fs::exists(out_ / "softmax-seed1.without-checkpoint-1"));
  EXPECT_EQ(num_lines("softmax-seed1"), 300);
  EXPECT_EQ(read_file(arm_file("sigmoid-seed1")), done);
  EXPECT_TRUE(contains(read_file(out_ / "report.html"), "4 of 4 arms have ended"));
}

TEST_F(Stress, AnArmThatFailsIsReportedAndTheOthersRun) {
  std::ofstream(table_)
      << "base: config.yaml\naxes: {train.seed: [1, 2]}\nvariants: {good: {}, bad: {data.min_genes: 1000}}\n";
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
  expect_failure(stress({"--set", "train.setps=5"}), 2, {"train.setps", "did you mean 'steps'"});
  expect_failure(stress({"--axis", "train.seed=[1, 1]"}), 2, {"twice"});
  expect_failure(scrna_train({"stress", "--config", (folder_ / "missing.yaml").string()}), 2,
                 {"missing.yaml"});
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(Stress, ReportsOfRunsAreWrittenAndWrongFoldersRefused) {
  const std::string run = (folder_ / "run").string(), page = (folder_ / "pages/run.html").string();
  ASSERT_EQ(scrna_train({"train", "--config", config_, "--set", "run.dir=" + run}).exit_code, 0);
  const auto result = scrna_train({"report", run, "--out", page});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, page + "\n");
  const std::string html = read_file(page);
  for (const char* part :
       {"Training loss", "Held-out loss", "Gradient norm by layer", "Where the time of a step goes",
        "Lengths of the cells", "optim.learning_rate: 0.01", "finished"}) {
    EXPECT_TRUE(contains(html, part)) << part;
  }
  EXPECT_TRUE(fs::exists(folder_ / "pages/run-figures/loss.svg"));
  expect_failure(scrna_train({"report", (folder_ / "pages").string(), "--out", page}), 3,
                 {"not a run directory"});
  expect_failure(scrna_train({"replay", config_}), 3, {"not the dump of a step"});
}

}  // namespace
}  // namespace scrna
