// Two machines made of network namespaces joined by a veth pair: each sees its own interfaces only, so what
// they say to each other goes over the link, and the link can be cut. Skipped where namespaces may not be
// made (they need root or CAP_NET_ADMIN and CAP_SYS_ADMIN).
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "lib/core/clock.h"
#include "lib/core/files.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tolerance.h"

namespace scrna {
namespace {

using test::contains;

test::ProcessResult shell(const std::string& line) { return test::run_process({"/bin/sh", "-c", line}); }

class Hosts : public testing::Test {
 protected:
  void SetUp() override {
    // All three or nothing; names of this process, so that tests of several builds do not meet.
    const auto made =
        shell("set -e; ip netns add " + host(0) + "; ip netns add " + host(1) + "; ip link add " + link(0) +
              " netns " + host(0) + " type veth peer name " + link(1) + " netns " + host(1));
    if (made.exit_code != 0) GTEST_SKIP() << "no network namespaces here: " << made.err;
    for (int i : {0, 1}) {
      const auto up =
          shell("set -e; ip -n " + host(i) + " link set lo up; ip -n " + host(i) + " addr add " + address(i) +
                "/24 dev " + link(i) + "; ip -n " + host(i) + " link set " + link(i) + " up");
      ASSERT_EQ(up.exit_code, 0) << up.err;
    }
    test::synthesize_small(cells_);
    std::ofstream(config_) << test::small_model_config(cells_)
                           << "optim: {learning_rate: 0.001, warmup_steps: 1}\n"
                           << "train: {steps: 40, global_batch_cells: 8, device: cpu, num_threads: 1}\n"
                           << "heldout: {every_steps: 20}\n"
                           << "checkpoint: {every_steps: 10}\n"
                           << "dist: {timeout_seconds: 60}\n";
  }
  void TearDown() override { shell("ip netns del " + host(0) + "; ip netns del " + host(1)); }

  static std::string host(int i) { return fmt::format("scrna{}{}", ::getpid(), i == 0 ? "a" : "b"); }
  static std::string link(int i) { return fmt::format("v{}{}", ::getpid(), i == 0 ? "a" : "b"); }
  static std::string address(int i) { return i == 0 ? "10.77.0.1" : "10.77.0.2"; }
  [[nodiscard]] std::string run(const std::string& name) const { return (folder_ / name).string(); }
  [[nodiscard]] std::string train_line(const std::string& name, const std::string& more = "") const {
    return " train --config " + config_ + " --set run.dir=" + run(name) + " " + more;
  }
  // Two ranks on each of the two machines.
  [[nodiscard]] std::string launch_line(int i, const std::string& name, const std::string& more = "") const {
    return "ip netns exec " + host(i) +
           " " SCRNA_TRAIN_PROGRAM " launch --nproc-per-node 2 --nnodes 2 --node-rank " + std::to_string(i) +
           " --rdzv-endpoint " + address(0) + ":29500 --" + train_line(name, more);
  }
  [[nodiscard]] std::vector<double> losses(const std::string& name) const {
    std::vector<double> result;
    std::istringstream stream(read_file(run(name) + "/metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) {
      const auto json = nlohmann::json::parse(line);
      result.push_back(json.contains("loss") ? json["loss"] : json["heldout_loss"]);
    }
    return result;
  }
  void expect_same_curve(const std::string& name, const std::string& reference) const {
    const std::vector<double> curve = losses(name), expected = losses(reference);
    ASSERT_EQ(curve.size(), expected.size());
    for (std::size_t i = 0; i < curve.size(); ++i)
      EXPECT_NEAR(curve[i], expected[i], test::kRanksRelative * expected[i]);
  }

  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string();
  const std::string config_ = (folder_ / "config.yaml").string();
};

TEST_F(Hosts, TwoMachinesGiveTheCurveOfOneProcessAlsoWithAShardedOptimizer) {
  ASSERT_EQ(shell(SCRNA_TRAIN_PROGRAM + train_line("one")).exit_code, 0);
  for (const char* sharded : {"false", "true"}) {
    const std::string name = std::string("run-") + sharded;
    const std::string more = std::string("--set dist.shard_optimizer=") + sharded;
    const auto result = shell(launch_line(1, name, more) + " & " + launch_line(0, name, more) +
                              "; first=$?; wait $! && exit $first");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_TRUE(contains(result.err, "4 ranks on ")) << result.err;
    EXPECT_TRUE(contains(result.err, "[3] ")) << result.err;
    expect_same_curve(name, "one");
  }
}

TEST_F(Hosts, ACableThatIsCutEndsBothMachinesAfterTheTimeout) {
  const std::string more =
      "--set dist.timeout_seconds=4 --set train.steps=1000000 --set heldout.every_steps=0";
  const double start = now_seconds();
  const auto result = shell("cd " + folder_.path().string() + "; " + launch_line(1, "cut", more) +
                            " 2> second.err & " + launch_line(0, "cut", more) +
                            " 2> first.err & first=$!\n"
                            "until grep -q '\"step\":20,' " +
                            run("cut") +
                            "/metrics.jsonl 2>/dev/null; do\n"
                            "  kill -0 $first 2>/dev/null || exit 99\n  sleep 0.02\ndone\n"
                            "ip -n " +
                            host(0) + " link set " + link(0) +
                            " down\n"
                            "wait $first; first=$?; wait; echo $first");
  EXPECT_EQ(result.out.substr(result.out.rfind('\n', result.out.size() - 2) + 1), "5\n") << result.out;
  EXPECT_LT(now_seconds() - start, 90);
  for (const char* file : {"first.err", "second.err"}) {
    const std::string text = read_file(folder_ / file);
    EXPECT_TRUE(contains(text, "did not answer within 4 s (dist.timeout_seconds)")) << text;
  }
}

TEST_F(Hosts, AMachineThatNeverComesIsSaidSo) {
  const auto result = shell(launch_line(0, "alone", "--set dist.timeout_seconds=3"));
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_TRUE(contains(result.err, "the ranks did not meet at 10.77.0.1:29500: not within 3 s"))
      << result.err;
  const auto other = shell(launch_line(1, "alone", "--set dist.timeout_seconds=3"));
  EXPECT_EQ(other.exit_code, 5);
  EXPECT_TRUE(contains(other.err, "the ranks did not meet at 10.77.0.1:29500: not within 3 s")) << other.err;
}

}  // namespace
}  // namespace scrna
