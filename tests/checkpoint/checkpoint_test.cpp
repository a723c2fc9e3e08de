#include "lib/checkpoint/checkpoint.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "lib/core/error.h"
#include "lib/core/files.h"
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

TEST(Checkpoint, AnEmptyFolderHasNothingToResume) {
  const test::TempDir root;
  EXPECT_THROW(find_latest(root.path()), CheckpointError);
}

}  // namespace
}  // namespace scrna::checkpoint
