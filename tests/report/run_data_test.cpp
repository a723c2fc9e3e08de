#include "lib/report/run_data.h"

#include <cmath>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/report/figures.h"
#include "lib/report/run_report.h"
#include "tests/support/temp_dir.h"

namespace scrna::report {
namespace {

class RunDataTest : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  void write_run(const std::string& metrics) const {
    write("config.yaml", "train: {steps: 3}\nmodel: {attention: sigmoid}\ndata: {files: [a.h5ad, b.h5ad]}\n");
    write("metrics.jsonl", metrics);
  }
  static std::string dump(int64_t step, const std::string& policy) {
    return "{\"step\":" + std::to_string(step) + ",\"reason\":\"r\",\"policy\":\"" + policy +
           "\",\"loss\":\"nan\",\"grad_norm\":\"inf\",\"grad_norm_limit\":5,\"cells\":[1,2]}";
  }
  const test::TempDir folder_;
};

TEST_F(RunDataTest, HoldsCurvesSettingsAndWhatItEndedWith) {
  write_run(
      "{\"step\":1,\"loss\":4,\"applied\":true,\"grad_norm_per_layer\":{\"embedding\":1,\"head\":2,\"layer_"
      "00\":3},\"mfu\":null,\"seconds\":0.5}\n"
      "{\"step\":2,\"loss\":2,\"applied\":true,\"seconds\":0.25}\n{\"step\":2,\"heldout_loss\":3}\n{\"step\":"
      "3,\"lo");
  const RunData run = read_run(folder_.path());
  EXPECT_EQ(run.steps_done, 2);
  EXPECT_EQ(run.find("loss")->values, (std::vector<double>{4, 2}));
  EXPECT_TRUE(std::isnan(run.find("mfu")->values[0]));
  EXPECT_EQ(run.layers_of("grad_norm_per_layer"),
            (std::vector<std::string>{"embedding", "layer_00", "head"}));
  EXPECT_EQ(run.setting("data.files"), "a.h5ad, b.h5ad");
  EXPECT_EQ(run.setting("model.attention"), "sigmoid");
  EXPECT_EQ(run.last_mean("loss"), 2);
  EXPECT_EQ(run.training_seconds(), 0.75);
  EXPECT_FALSE(run.is_finished());
  EXPECT_FALSE(run.end().has_value());
  EXPECT_EQ(status_of(run).text, "at step 2 of 3");
}

TEST_F(RunDataTest, ALastStepThatWasNotAppliedEndedTheRunAlsoWithoutItsDump) {
  const std::string metrics =
      "{\"step\":1,\"loss\":4,\"grad_norm\":1,\"applied\":true}\n"
      "{\"step\":2,\"loss\":5,\"grad_norm\":700,\"applied\":false}\n";
  write_run(metrics);
  EXPECT_FALSE(read_run(folder_.path()).end().has_value());  // the policy may have been to skip it
  write("config.yaml", "train: {steps: 3, on_divergence: stop}\n");
  const RunData run = read_run(folder_.path());
  ASSERT_TRUE(run.end().has_value());
  EXPECT_EQ(run.end()->step, 2);
  EXPECT_EQ(run.end()->grad_norm, 700);
  EXPECT_FALSE(run.is_finished());
  write("metrics.jsonl", metrics + "{\"step\":3,\"loss\":4,\"grad_norm\":1,\"applied\":true}\n");
  EXPECT_FALSE(read_run(folder_.path()).end().has_value());
}

TEST_F(RunDataTest, TellsAStepThatEndedTheRunFromOneThatItSkipped) {
  write_run("{\"step\":1,\"loss\":4}\n{\"step\":2,\"loss\":null}\n");
  write("divergence/step-00000002.json", dump(2, "stop"));
  RunData run = read_run(folder_.path());
  ASSERT_TRUE(run.end().has_value());
  EXPECT_EQ(run.end()->step, 2);
  EXPECT_TRUE(std::isnan(run.end()->loss));
  EXPECT_TRUE(std::isinf(run.end()->grad_norm));
  EXPECT_EQ(status_of(run).text, "diverged at step 2");
  write_run("{\"step\":1,\"loss\":4}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":4}\n");
  write("divergence/step-00000002.json", dump(2, "skip"));
  run = read_run(folder_.path());
  EXPECT_FALSE(run.end().has_value());
  EXPECT_TRUE(run.is_finished());
  // The very last step: skipped is finished, stopped is not.
  write("divergence/step-00000002.json", dump(3, "skip"));
  EXPECT_TRUE(read_run(folder_.path()).is_finished());
  write("divergence/step-00000002.json", dump(3, "stop"));
  EXPECT_FALSE(read_run(folder_.path()).is_finished());
  EXPECT_TRUE(read_run(folder_.path()).end().has_value());
}

TEST_F(RunDataTest, ReadsLengthsAndRollbacks) {
  write_run(
      "{\"step\":1,\"loss\":4}\n{\"step\":0,\"rollback_from_step\":2,\"data_offset\":2,\"reason\":\"r\"}\n");
  write("checkpoints/latest/state.json", "{\"cells_by_length\":[[64,10],[90.5,20]]}");
  const RunData run = read_run(folder_.path());
  ASSERT_EQ(run.length_edges.size(), 3U);
  EXPECT_NEAR(run.length_edges[2], 128, 0.1);
  EXPECT_EQ(run.length_counts, (std::vector<double>{10, 20}));
  EXPECT_EQ(run.rollbacks, (std::vector<std::pair<int64_t, int64_t>>{{2, 0}}));
}

TEST_F(RunDataTest, RefusesWhatItCannotUnderstand) {
  EXPECT_THROW((void)read_run(folder_.path()), DataError);
  for (const char* metrics : {"nonsense\n", "[]\n", "{\"loss\":1}\n", "{\"step\":\"1\"}\n",
                              "{\"step\":1,\"rollback_from_step\":\"x\"}\n"}) {
    write_run(metrics);
    EXPECT_THROW((void)read_run(folder_.path()), DataError) << metrics;
  }
  write_run("{\"step\":1,\"loss\":4}\n");
  write("checkpoints/latest/state.json", "{\"cells_by_length\":[3]}");
  EXPECT_THROW((void)read_run(folder_.path()), DataError);
  write("checkpoints/latest/state.json", "{}");
  write("run.json", "[");
  EXPECT_THROW((void)read_run(folder_.path()), DataError);
  write("run.json", "{}");
  EXPECT_NO_THROW((void)read_run(folder_.path()));
  write("divergence/step-00000001.json", "{}");
  EXPECT_THROW((void)read_run(folder_.path()), DataError);
}

TEST_F(RunDataTest, AnEmptyRunHasAReport) {
  write_run("");
  EXPECT_NE(run_report({read_run(folder_.path())}).html().find("at step 0 of 3"), std::string::npos);
}

}  // namespace
}  // namespace scrna::report
