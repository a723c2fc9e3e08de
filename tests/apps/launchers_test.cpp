// The same program under other people's launchers: the real torchrun and mpirun where they are installed
// (skipped elsewhere), and srun by the variables that it sets.
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tolerance.h"

namespace scrna {
namespace {

using test::contains;
using test::scrna_train;

class Launchers : public testing::Test {
 protected:
  void SetUp() override {
    test::synthesize_small(cells_);
    std::ofstream(config_) << test::small_model_config(cells_)
                           << "optim: {learning_rate: 0.001, warmup_steps: 1}\n"
                           << "train: {steps: 40, global_batch_cells: 8, device: cpu, num_threads: 1}\n"
                           << "heldout: {every_steps: 20}\n"
                           << "checkpoint: {every_steps: 10}\n"
                           << "dist: {timeout_seconds: 60}\n";
  }
  [[nodiscard]] std::string run(const std::string& name) const { return (folder_ / name).string(); }
  [[nodiscard]] std::string train_line(const std::string& name) const {
    return SCRNA_TRAIN_PROGRAM " train --config " + config_ + " --set run.dir=" + run(name);
  }
  static test::ProcessResult shell(const std::string& line) {
    return test::run_process({"/bin/sh", "-c", line});
  }
  static bool has(const std::string& program) { return shell("command -v " + program).exit_code == 0; }

  [[nodiscard]] std::vector<double> losses(const std::string& name) const {
    std::vector<double> result;
    std::istringstream stream(read_file(run(name) + "/metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) {
      const auto json = nlohmann::json::parse(line);
      result.push_back(json.contains("loss") ? json["loss"] : json["heldout_loss"]);
    }
    return result;
  }
  void expect_curve_of_one_process(const std::string& name) const {
    ASSERT_EQ(shell(train_line("one")).exit_code, 0);
    const std::vector<double> curve = losses(name), expected = losses("one");
    ASSERT_EQ(curve.size(), expected.size());
    for (std::size_t i = 0; i < curve.size(); ++i)
      EXPECT_NEAR(curve[i], expected[i], test::kRanksRelative * expected[i]);
  }

  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string();
  const std::string config_ = (folder_ / "config.yaml").string();
};

TEST_F(Launchers, TorchrunStartsItAndRestartsItFromTheNewestCheckpoint) {
  if (!has("torchrun")) GTEST_SKIP() << "no torchrun in PATH (it comes with the torch wheel)";
  // The first attempt of rank 1 is killed once the run has a checkpoint.
  const std::string rank = (folder_ / "rank.sh").string();
  std::ofstream(rank) << "echo \"agent store: $TORCHELASTIC_USE_AGENT_STORE\" >&2\n"
                      << "if [ $RANK = 1 ] && [ $TORCHELASTIC_RESTART_COUNT = 0 ]; then\n"
                      << "  " << train_line("run") << " --resume auto & p=$!\n"
                      << "  until [ -e " << run("run")
                      << "/checkpoints/latest ]; do sleep 0.01; done; kill -9 $p; exit 9\n"
                      << "fi\nexec " << train_line("run") << " --resume auto --set train.steps=40\n";
  const auto result = shell(
      "torchrun --nnodes 1 --nproc-per-node 2 --max-restarts 1 --master-port $((20000 + $$ % 10000)) "
      "--no-python sh " +
      rank);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "2 ranks on 1 machine, started by torchrun: Gloo")) << result.err;
  EXPECT_TRUE(contains(result.err, "agent store: True")) << "torchrun itself serves the store";
  expect_curve_of_one_process("run");
}

TEST_F(Launchers, TorchrunShowsWhyARankFailed) {
  if (!has("torchrun")) GTEST_SKIP() << "no torchrun in PATH (it comes with the torch wheel)";
  const auto result = shell("torchrun --standalone --nproc-per-node 2 --no-python " + train_line("run") +
                            " --set data.files=no.h5ad");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(contains(result.err, "exitcode  : 3")) << result.err;
  EXPECT_TRUE(contains(result.err, "traceback : no.h5ad") || contains(result.err, "traceback : data.files"))
      << result.err;
}

TEST_F(Launchers, MpirunStartsIt) {
  if (!has("mpirun")) GTEST_SKIP() << "no mpirun in PATH (Debian: openmpi-bin)";
  const auto result = shell(
      "MASTER_PORT=$((20000 + $$ % 10000)) OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun "
      "--oversubscribe -n 2 " +
      train_line("run"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "2 ranks on 1 machine, started by mpirun: Gloo")) << result.err;
  expect_curve_of_one_process("run");
}

TEST_F(Launchers, TheVariablesOfSrunAreEnough) {
  const std::string common =
      "SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=2 SLURM_STEP_NODELIST=localhost SLURM_JOB_ID=$$ ";
  const auto result =
      shell("(" + common + "SLURM_PROCID=1 SLURM_LOCALID=1 " + train_line("run") + ") & " + common +
            "SLURM_PROCID=0 SLURM_LOCALID=0 " + train_line("run") + "; first=$?; wait $! && exit $first");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "2 ranks on 1 machine, started by srun: Gloo")) << result.err;
  expect_curve_of_one_process("run");
}

}  // namespace
}  // namespace scrna
