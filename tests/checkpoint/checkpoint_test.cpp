#include "lib/checkpoint/checkpoint.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace scrna::checkpoint {
namespace {

namespace fs = std::filesystem;

Contents contents_of(double value, int64_t count = 100) {
  Contents contents;
  contents.model.tensors.emplace_back("w", at::full({count}, value));
  contents.optimizer.tensors.emplace_back("m", at::full({count}, -value));
  contents.state = "{\"value\":" + std::to_string(value) + "}";
  return contents;
}

std::size_t entries_in(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

void flip_one_byte(const fs::path& path) {
  std::string bytes = read_file(path);
  bytes[bytes.size() - 1] = static_cast<char>(bytes.back() ^ 1);
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(Checkpoint, WhatIsSavedIsLoadedAndLatestPointsAtIt) {
  const test::TempDir root;
  const fs::path folder = save(root.path(), 500, contents_of(3), 2);
  EXPECT_EQ(folder.filename(), "step-00000500");
  EXPECT_EQ(fs::read_symlink(root / "latest"), "step-00000500");
  const Contents loaded = load(root / "latest");
  EXPECT_TRUE(at::equal(loaded.model.tensors[0].second, at::full({100}, 3.0)));
  EXPECT_EQ(loaded.state, contents_of(3).state);
}

TEST(Checkpoint, OnlyTheLastFewAreKept) {
  const test::TempDir root;
  for (const int64_t step : {1, 2, 3, 4}) save(root.path(), step, contents_of(1), 2);
  EXPECT_EQ(steps_in(root.path()), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(entries_in(root.path()), 3U) << "two checkpoints and `latest`";
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  const test::TempDir root;
  save(root.path(), 7, contents_of(1), 2);
  save(root.path(), 7, contents_of(2), 2);
  EXPECT_EQ(load(find_latest(root.path())).state, contents_of(2).state);
}

TEST(Checkpoint, EveryFlippedByteIsNoticedAndTheFileNamed) {
  for (const std::string name : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
    const test::TempDir root;
    const fs::path folder = save(root.path(), 1, contents_of(1), 2);
    flip_one_byte(folder / name);
    try {
      load(folder);
      FAIL() << "a damaged " << name << " was loaded";
    } catch (const CheckpointError& error) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
    }
  }
}

TEST(Checkpoint, ADamagedNewestFallsBackToTheOneBefore) {
  const test::TempDir root;
  save(root.path(), 1, contents_of(1), 3);
  const fs::path newest = save(root.path(), 2, contents_of(2), 3);
  flip_one_byte(newest / "model.safetensors");
  EXPECT_EQ(find_latest(root.path()).filename(), "step-00000001");
  fs::remove(root / "step-00000001" / "manifest.json");
  EXPECT_THROW(find_latest(root.path()), CheckpointError);
}

TEST(Checkpoint, AnInterruptedSaveIsInvisibleAndCleanedUp) {
  const test::TempDir root;
  save(root.path(), 1, contents_of(1), 3);
  fs::create_directory(root / "partial-step-00000002");  // what a kill in the middle of a save leaves
  std::ofstream(root / "partial-step-00000002" / "model.safetensors") << "half";
  EXPECT_EQ(find_latest(root.path()).filename(), "step-00000001");
  save(root.path(), 3, contents_of(3), 3);
  EXPECT_FALSE(fs::exists(root / "partial-step-00000002"));
}

TEST(Checkpoint, AFullDiskLeavesThePreviousCheckpointGood) {
  const test::TempDir root;
  save(root.path(), 1, contents_of(1), 3);
  // A limit on file size makes write() fail half-way through the model, as a full disk does.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 100'000, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_THROW(save(root.path(), 2, contents_of(2, 1'000'000), 3), DataError);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(find_latest(root.path()).filename(), "step-00000001");
  EXPECT_EQ(entries_in(root.path()), 2U) << "nothing half-written stays";
}

TEST(Checkpoint, TheOneJustSavedStaysEvenIfAnEarlierAttemptWentFurther) {
  const test::TempDir root;
  for (const int64_t step : {100, 200, 300}) save(root.path(), step, contents_of(1), 3);
  save(root.path(), 150, contents_of(2), 2);  // resumed from step 100
  EXPECT_EQ(steps_in(root.path()), (std::vector<int64_t>{150, 300}));
  EXPECT_EQ(find_latest(root.path()).filename(), "step-00000150") << "what was saved last, not what went furthest";
  save(root.path(), 160, contents_of(2), 1);
  EXPECT_EQ(steps_in(root.path()), (std::vector<int64_t>{160}));
}

TEST(Checkpoint, ALinkThatLeadsNowhereOrElsewhereIsNoObstacle) {
  const test::TempDir root;
  save(root.path(), 1, contents_of(1), 3);
  save(root.path(), 2, contents_of(2), 3);
  for (const std::string target : {"step-00000009", "../elsewhere", "step-00000001/../step-00000001", ""}) {
    fs::remove(root / "latest");
    if (!target.empty()) fs::create_symlink(target, root / "latest");
    EXPECT_EQ(find_latest(root.path()).filename(), "step-00000002") << target;
  }
  fs::create_directory(root / "latest");  // a folder where the link should be: saving goes on, with a warning
  EXPECT_EQ(save(root.path(), 3, contents_of(3), 3).filename(), "step-00000003");
  EXPECT_EQ(find_latest(root.path()).filename(), "step-00000003");
}

TEST(Checkpoint, OnlyFoldersOfExactlyOurNamesAreCheckpoints) {
  const test::TempDir root;
  for (const char* name : {"step-5", "step--0000005", "step-0000000x", "step-000000005", "step-", "other"}) fs::create_directory(root / name);
  std::ofstream(root / "step-00000007") << "a file";
  fs::create_symlink("other", root / "step-00000008");
  EXPECT_TRUE(steps_in(root.path()).empty());
  EXPECT_TRUE(steps_in("/nonexistent").empty());
  EXPECT_EQ(folder_name(123456789), "step-123456789");
  fs::create_directory(root / "step-123456789");
  EXPECT_EQ(steps_in(root.path()), std::vector<int64_t>{123456789});
}

std::string problem_loading(const fs::path& folder) {
  return test::message_of<CheckpointError>([&] { return load(folder); });
}

TEST(Checkpoint, MissingTruncatedAndForeignFilesAreNamed) {
  for (const std::string name : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
    const test::TempDir root;
    const fs::path folder = save(root.path(), 1, contents_of(1), 2);
    const std::string bytes = read_file(folder / name);
    write_file_atomically(folder / name, bytes.substr(0, bytes.size() / 2));
    EXPECT_CONTAINS(problem_loading(folder), name + ": damaged");
    write_file_atomically(folder / name, read_file(folder / "manifest.json"));
    EXPECT_CONTAINS(problem_loading(folder), name + ": damaged");
    fs::remove(folder / name);
    EXPECT_CONTAINS(problem_loading(folder), name + ": missing from the checkpoint");
    fs::create_directory(folder / name);
    EXPECT_CONTAINS(problem_loading(folder), name + ": missing from the checkpoint");
  }
  EXPECT_CONTAINS(problem_loading("/nonexistent"), "/nonexistent: not a finished checkpoint");
}

TEST(Checkpoint, AManifestOfAnyContentEndsInACheckpointError) {
  const test::TempDir root;
  const fs::path folder = save(root.path(), 1, contents_of(1), 2);
  const std::string good = read_file(folder / "manifest.json");
  for (const std::string text : {"", "{}", "[]", "null", "3", "{", R"({"format_version":"1","files":{}})", R"({"format_version":1,"files":[]})",
                                 R"({"format_version":1,"files":{"model.safetensors":3}})", R"({"format_version":1})",
                                 R"({"format_version":1,"files":{"model.safetensors":{"bytes":"a","sha256":1}}})"}) {
    write_file_atomically(folder / "manifest.json", text);
    EXPECT_CONTAINS(problem_loading(folder), folder.string()) << text;
    EXPECT_THROW(find_latest(root.path()), CheckpointError) << text;
  }
  write_file_atomically(folder / "manifest.json", R"({"format_version":2,"files":{}})");
  EXPECT_CONTAINS(problem_loading(folder), "written in version 2 of the format, but this program reads version 1");
  for (std::size_t i = 0; i < good.size(); ++i) {  // every byte, damaged one at a time
    std::string text = good;
    text[i] = static_cast<char>(text[i] ^ 1);
    std::ofstream(folder / "manifest.json", std::ios::binary) << text;
    try {
      load(folder);
    } catch (const CheckpointError&) {
    }
  }
}

// A child process saves again and again and is killed at some moment; whatever the moment, what is found afterwards
// is whole, and it is one of the two last steps that the child had begun.
TEST(Checkpoint, AKillAtAnyMomentLeavesAWholeCheckpoint) {
  const test::TempDir root;
  double save_seconds = 0;  // on this machine, in this build
  {
    const ScopedTimer timer(save_seconds);
    save(root.path(), 1, contents_of(1, 20000), 2);
  }
  int64_t last = 1;
  constexpr int kKills = 12;
  for (int kill = 0; kill < kKills; ++kill) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int64_t step = last + 1;; ++step) save(root.path(), step % 3 == 0 ? step - 1 : step, contents_of(static_cast<double>(step), 20000), 2);
    }
    ::usleep(static_cast<useconds_t>(1e6 * 4 * save_seconds * kill / kKills));
    // On a busy machine no child may have got its turn so far: the last one is given until it has saved.
    const double give_up_seconds = now_seconds() + 60;
    while (kill == kKills - 1 && last == 1 && steps_in(root.path()).back() == 1 && now_seconds() < give_up_seconds) {
      ::usleep(1000);
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const fs::path found = find_latest(root.path());
    const Contents contents = load(found);
    EXPECT_EQ(contents.model.tensors.size(), 1U);
    const int64_t step = steps_in(root.path()).back();
    EXPECT_GE(step, last);
    last = step;
  }
  EXPECT_GT(last, 1) << "no child lived long enough to save";
  save(root.path(), last + 1, contents_of(1), 1);
  EXPECT_EQ(entries_in(root.path()), 2U) << "what killed saves left behind is removed by the next one";
}

TEST(Checkpoint, AFolderThatCannotBeWrittenIsAnErrorAndStaysAsItWas) {
  const test::TempDir root;
  write_file_atomically(root / "file", "x");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return save(root / "file", 1, contents_of(1), 1); }), "file: cannot create the folder");
  save(root.path(), 1, contents_of(1), 2);
  if (::geteuid() == 0) GTEST_SKIP() << "the administrator may write everywhere; only another user can see this fail";
  fs::permissions(root.path(), fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THROW(save(root.path(), 2, contents_of(2), 2), DataError);
  fs::permissions(root.path(), fs::perms::owner_all);
  EXPECT_EQ(find_latest(root.path()).filename(), "step-00000001");
}

// A disk of 1 MiB that is really full, where the machine lets us make one.
TEST(Checkpoint, AFullFileSystemLeavesThePreviousCheckpointGood) {
  const test::TempDir root;
  const fs::path disk = root / "disk";
  fs::create_directory(disk);
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "mounting a small file system is not permitted here";
  }
  save(disk / "checkpoints", 1, contents_of(1), 3);
  const std::string problem = test::message_of<DataError>([&] { return save(disk / "checkpoints", 2, contents_of(2, 1'000'000), 3); });
  EXPECT_CONTAINS(problem, "No space left on device");
  EXPECT_EQ(find_latest(disk / "checkpoints").filename(), "step-00000001");
  EXPECT_EQ(entries_in(disk / "checkpoints"), 2U) << "nothing half-written stays";
  save(disk / "checkpoints", 3, contents_of(3), 3);  // and the space is free again
  ::umount(disk.c_str());
}

TEST(Checkpoint, KeepingNoneIsOurOwnMistake) {
  const test::TempDir root;
  EXPECT_THROW(save(root.path(), 1, contents_of(1), 0), InternalError);
  EXPECT_THROW(save(root.path(), -1, contents_of(1), 1), InternalError);
}

TEST(Checkpoint, AnEmptyFolderHasNothingToResume) {
  const test::TempDir root;
  EXPECT_THROW(find_latest(root.path()), CheckpointError);
}

}  // namespace
}  // namespace scrna::checkpoint
