#include "lib/train/run_directory.h"

#include <chrono>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace scrna::train {
namespace {

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(RunDirectory, IsMadeWithItsParents) {
  const test::TempDir folder;
  const RunDirectory run = RunDirectory::create(folder / "a/b/run");
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/run"));
  EXPECT_EQ(run.metrics(), folder / "a/b/run/metrics.jsonl");
}

TEST(RunDirectory, WhatExistsIsRefusedAndLeftAlone) {
  const test::TempDir folder;
  std::filesystem::create_directory(folder / "taken");
  write_file_atomically(folder / "file", "contents");
  for (const char* name : {"taken", "file"}) {
    const std::string message = message_of([&] { (void)RunDirectory::create(folder / name); });
    EXPECT_NE(message.find("exists already"), std::string::npos) << message;
    EXPECT_NE(message.find("--resume"), std::string::npos) << message;
  }
  EXPECT_EQ(read_file(folder / "file"), "contents");
  EXPECT_TRUE(std::filesystem::is_empty(folder / "taken"));
}

TEST(RunDirectory, AFolderThatCannotBeMadeIsADataErrorBeforeAnyWork) {
  const test::TempDir folder;
  write_file_atomically(folder / "file", "contents");
  EXPECT_THROW(RunDirectory::require_free(folder / "file/run"), DataError);
  EXPECT_THROW(RunDirectory::require_free(folder / "file/deep/run"), DataError);
  EXPECT_NO_THROW(RunDirectory::require_free(folder / "new/deep/run"));
  EXPECT_TRUE(std::filesystem::is_regular_file(folder / "file"));
}

TEST(RunDirectory, AnEmptyNameIsRefused) {
  EXPECT_NE(message_of([] { (void)RunDirectory::create(""); }).find("run.dir"), std::string::npos);
}

TEST(RunDirectory, ASecondProcessInTheSameFolderIsRefusedWhileTheFirstRuns) {
  const test::TempDir folder;
  {
    const RunDirectory first = RunDirectory::create(folder / "run");
    write_file_atomically(first.config(), "{}");
    EXPECT_NE(message_of([&] { (void)RunDirectory::open(folder / "run"); }).find("another process"), std::string::npos);
  }
  EXPECT_NO_THROW((void)RunDirectory::open(folder / "run"));
}

TEST(RunDirectory, IsFoundFromItselfItsCheckpointsAndOneCheckpoint) {
  const test::TempDir folder;
  const std::filesystem::path run = std::filesystem::canonical(folder.path()) / "run";
  std::filesystem::create_directories(run / "checkpoints/step-00000005");
  write_file_atomically(run / "config.yaml", "{}");
  EXPECT_EQ(RunDirectory::containing(run), run);
  EXPECT_EQ(RunDirectory::containing(run / "checkpoints"), run);
  EXPECT_EQ(RunDirectory::containing(run / "checkpoints/step-00000005"), run);
  EXPECT_THROW((void)RunDirectory::containing(folder / "nothing"), ConfigError);
  std::filesystem::create_directories(folder / "x/y/z/deep");
  EXPECT_THROW((void)RunDirectory::containing(folder / "x/y/z/deep"), ConfigError);
}

TEST(RunDirectory, AFolderThatARankDoesNotSeeIsAConfigError) {
  const test::TempDir folder;
  const auto path = folder / "run";
  EXPECT_CONTAINS(message_of([&] { RunDirectory::require_shared(path, "a: 1\n", 0); }),
                  "does not see the folder that rank 0 made (no config.yaml)");
  std::filesystem::create_directory(path);
  write_file_atomically(path / "config.yaml", "a: 2\n");
  EXPECT_CONTAINS(message_of([&] { RunDirectory::require_shared(path, "a: 1\n", 0); }),
                  "another config.yaml");
  std::jthread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    write_file_atomically(path / "config.yaml", "a: 1\n");
  });
  RunDirectory::require_shared(path, "a: 1\n", 60);
}

}  // namespace
}  // namespace scrna::train
