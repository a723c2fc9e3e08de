// The launcher with shell scripts as ranks: whatever a rank does, all end in time, the cause is named and
// nothing remains.
#include "lib/dist/launcher.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/core/clock.h"
#include "lib/core/files.h"
#include "tests/support/temp_dir.h"

namespace scrna::dist {
namespace {

struct Outcome {
  LaunchResult result;
  std::string out, err;
  double seconds = 0;
};

LaunchOptions ranks(int64_t count, const std::string& script) {
  return {
      .command = {"/bin/sh", "-c", script}, .num_local_ranks = count, .stop_seconds = 1, .end_seconds = 1};
}

Outcome run(const LaunchOptions& options) {
  Outcome outcome;
  const double start = now_seconds();
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  outcome.result = launch(options);
  outcome.out = testing::internal::GetCapturedStdout();
  outcome.err = testing::internal::GetCapturedStderr();
  outcome.seconds = now_seconds() - start;
  // No zombies, no survivors.
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  return outcome;
}

TEST(Launcher, RanksGetTheirVariablesAndTheirLinesTheirNumber) {
  const Outcome outcome = run(ranks(2,
                                    "echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR; "
                                    "printf 'no newline' >&2; test $MASTER_PORT -gt 0"));
  EXPECT_EQ(outcome.result.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.result.message, "");
  EXPECT_NE(outcome.out.find("[0] 0/2 0/2 127.0.0.1\n"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("[1] 1/2 1/2 127.0.0.1\n"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.err.find("[0] no newline\n"), std::string::npos) << outcome.err;
}

TEST(Launcher, RanksOfAnotherMachineAreNumberedOn) {
  LaunchOptions options = ranks(2, "echo $RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR:$MASTER_PORT");
  options.num_machines = 3;
  options.machine = 1;
  options.address = "gpu-01";
  options.port = 29500;
  const Outcome outcome = run(options);
  EXPECT_NE(outcome.out.find("[2] 2/6 0 gpu-01:29500\n"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("[3] 3/6 1 gpu-01:29500\n"), std::string::npos) << outcome.out;
}

TEST(Launcher, WhenARankFailsTheOthersAreAskedToEndAndItIsNamedWithItsWords) {
  const Outcome outcome = run(ranks(3,
                                    "if [ $RANK = 1 ]; then echo 'scrna-train: error: cells.h5ad: damaged' "
                                    ">&2; exit 3; fi; exec sleep 60"));
  EXPECT_EQ(outcome.result.exit_code, 3);
  EXPECT_NE(outcome.result.message.find("rank 1 failed first"), std::string::npos) << outcome.result.message;
  EXPECT_NE(outcome.result.message.find("exit code 3: cells.h5ad: damaged"), std::string::npos)
      << outcome.result.message;
  EXPECT_NE(outcome.err.find("last lines of rank 1"), std::string::npos) << outcome.err;
  EXPECT_LT(outcome.seconds, 5);
}

TEST(Launcher, ARankThatIgnoresTheRequestOrStandsStillIsKilledAfterStopSeconds) {
  for (const char* deaf : {"trap '' TERM; while true; do sleep 1; done", "kill -STOP $$"}) {
    const Outcome outcome =
        run(ranks(2, std::string("if [ $RANK = 1 ]; then sleep 0.2; exit 70; fi; ") + deaf));
    EXPECT_EQ(outcome.result.exit_code, 70) << deaf;
    EXPECT_GE(outcome.seconds, 1);
    EXPECT_LT(outcome.seconds, 6) << deaf;
  }
}

TEST(Launcher, ARankThatIsKilledCountsAsTheCauseThoughTheOthersFailWithIt) {
  // Rank 0 fails first, but only because it lost rank 1.
  const Outcome outcome =
      run(ranks(2, "if [ $RANK = 1 ]; then sleep 0.3; kill -9 $$; fi; sleep 0.2; exit 5"));
  EXPECT_EQ(outcome.result.exit_code, 5);
  EXPECT_NE(outcome.result.message.find("rank 1 failed first"), std::string::npos) << outcome.result.message;
  EXPECT_NE(outcome.result.message.find("signal 9 (Killed)"), std::string::npos) << outcome.result.message;
}

TEST(Launcher, ARankThatOnlyRepeatsWhatAnotherSaidIsNotTheCause) {
  const Outcome outcome =
      run(ranks(2,
                "if [ $RANK = 1 ]; then sleep 0.4; echo 'scrna-train: error: disk full' >&2; exit 3; fi; "
                "echo 'scrna-train: error: rank 1: disk full' >&2; exit 3"));
  EXPECT_NE(outcome.result.message.find("rank 1 failed first"), std::string::npos) << outcome.result.message;
  EXPECT_NE(outcome.result.message.find("exit code 3: disk full"), std::string::npos)
      << outcome.result.message;
}

TEST(Launcher, ARankThatDoesNotEndWithTheOthersIsKilled) {
  const Outcome outcome = run(ranks(2, "if [ $RANK = 1 ]; then exec sleep 60; fi"));
  EXPECT_EQ(outcome.result.exit_code, 5);
  EXPECT_NE(outcome.result.message.find("rank 1"), std::string::npos) << outcome.result.message;
  EXPECT_NE(outcome.result.message.find("did not end with the others"), std::string::npos)
      << outcome.result.message;
  EXPECT_LT(outcome.seconds, 6);
}

TEST(Launcher, AProgramThatIsNotThereIsSaid) {
  LaunchOptions options = ranks(2, "");
  options.command = {"/nowhere/scrna-train"};
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.result.exit_code, 127) << outcome.result.message;
  EXPECT_NE(outcome.result.message.find("cannot be executed"), std::string::npos) << outcome.result.message;
}

TEST(Launcher, SignalsGoToAllRanksAndASavedRunIsNoFailure) {
  sigset_t term;
  ::sigemptyset(&term);
  ::sigaddset(&term, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &term, nullptr);  // in both threads: only the launcher reads it
  std::jthread signaller([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    ::kill(::getpid(), SIGTERM);
  });
  LaunchOptions options = ranks(2, "trap 'echo saved; exit 143' TERM; while true; do sleep 0.05; done");
  options.max_restarts = 3;
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.result.exit_code, 143);
  EXPECT_EQ(outcome.result.num_restarts, 0);
  EXPECT_NE(outcome.out.find("[0] saved"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("[1] saved"), std::string::npos) << outcome.out;
}

TEST(Launcher, RestartsAfterADeathUntilItGoesWellOrTheyAreUsedUp) {
  const test::TempDir folder;
  const std::string marks = (folder / "marks").string();
  LaunchOptions options = ranks(2, "echo first-$TORCHELASTIC_RESTART_COUNT >> " + marks + "; exit 70");
  options.restart_command = {
      "/bin/sh", "-c",
      "echo again-$TORCHELASTIC_RESTART_COUNT >> " + marks + "; test $TORCHELASTIC_RESTART_COUNT = 2"};
  options.max_restarts = 5;
  Outcome outcome = run(options);
  EXPECT_EQ(outcome.result.exit_code, 0) << outcome.result.message;
  EXPECT_EQ(outcome.result.num_restarts, 2);
  std::istringstream lines(read_file(marks));
  std::vector<std::string> seen;
  for (std::string line; std::getline(lines, line);) {
    if (std::find(seen.begin(), seen.end(), line) == seen.end()) seen.push_back(line);
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"first-0", "again-1", "again-2"}));

  options.restart_command.clear();
  options.max_restarts = 1;
  outcome = run(options);
  EXPECT_EQ(outcome.result.exit_code, 70);
  EXPECT_EQ(outcome.result.num_restarts, 1);
}

TEST(Launcher, WhatWouldFailAgainIsNotRestarted) {
  for (const int code : {2, 3, 4}) {
    LaunchOptions options = ranks(1, "exit " + std::to_string(code));
    options.max_restarts = 5;
    const Outcome outcome = run(options);
    EXPECT_EQ(outcome.result.exit_code, code);
    EXPECT_EQ(outcome.result.num_restarts, 0);
  }
}

}  // namespace
}  // namespace scrna::dist
