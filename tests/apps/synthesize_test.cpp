// scrna-train synthesize: the file, and everything that can go wrong with where it is written. Its contents
// are checked with the anndata package by check_synthesized.py.
#include <fstream>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "lib/core/files.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using test::contains;
using test::expect_failure;
using test::scrna_train;

std::vector<std::string> small(const std::filesystem::path& out) {
  return {"synthesize", "--out", out.string(), "--cells", "300", "--genes", "200", "--median-genes", "50"};
}

std::size_t files_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

TEST(Synthesize, TheClosingLinesSayWhatWasMadeAndNameTheNextCommand) {
  const test::TempDir folder;
  const auto result = scrna_train(small(folder / "cells.h5ad"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"300 cells x 200 genes", "median", "scrna-train inspect "})
    EXPECT_TRUE(contains(result.out, part)) << result.out;
  EXPECT_EQ(result.err, "") << "a short run has no progress lines in a log";
  EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(Synthesize, TheSeedAloneDecidesTheBytesOfTheFile) {
  const test::TempDir folder;
  std::vector<std::string> hashes;
  for (const auto& [seed, workers] : {std::pair{"1", "1"}, std::pair{"1", "3"}, std::pair{"2", "2"}}) {
    auto words = small(folder / "cells.h5ad");
    words.insert(words.end(), {"--force", "--seed", seed, "--num-workers", workers});
    ASSERT_EQ(scrna_train(words).exit_code, 0);
    hashes.push_back(sha256_of_file(folder / "cells.h5ad"));
  }
  EXPECT_EQ(hashes[0], hashes[1]);
  EXPECT_NE(hashes[0], hashes[2]);
}

TEST(Synthesize, AnExistingFileIsReplacedOnlyByForce) {
  const test::TempDir folder;
  std::ofstream(folder / "cells.h5ad") << "mine";
  expect_failure(scrna_train(small(folder / "cells.h5ad")), 2, {"cells.h5ad", "exists", "--force"});
  EXPECT_EQ(read_file(folder / "cells.h5ad"), "mine");
  auto words = small(folder / "cells.h5ad");
  words.emplace_back("--force");
  EXPECT_EQ(scrna_train(words).exit_code, 0);
  EXPECT_GT(std::filesystem::file_size(folder / "cells.h5ad"), 1000U);
}

TEST(Synthesize, AFolderThatIsMissingOrCannotBeWrittenIsNamed) {
  const test::TempDir folder;
  expect_failure(scrna_train(small(folder / "no/cells.h5ad")), 3, {"there is no folder", "mkdir -p"});
  expect_failure(scrna_train(small(folder.path())), 2, {"is a folder"});
  // Nobody, not even root, can make files there.
  expect_failure(scrna_train(small("/proc/cells.h5ad")), 3, {"/proc/cells.h5ad", "cannot create"});
}

TEST(Synthesize, AFileSizeLimitEndsInOneErrorAndLeavesNothing) {
  const test::TempDir folder;
  auto words = small(folder / "cells.h5ad");
  words.insert(words.end(), {"--cells", "5000"});
  words.erase(words.begin() + 3, words.begin() + 5);
  const auto limit = [] {
    const rlimit most{.rlim_cur = 100000, .rlim_max = 100000};
    ::setrlimit(RLIMIT_FSIZE, &most);
  };
  expect_failure(scrna_train(words, {.before_exec = limit}), 3, {"cells.h5ad", "File too large"});
  EXPECT_EQ(files_in(folder.path()), 0U);
}

// Mounts a file system of 128 KiB on `folder`, visible to this process and its children only.
bool mount_tiny_disk(const std::filesystem::path& folder) {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tiny", folder.c_str(), "tmpfs", 0, "size=128k") == 0;
}

TEST(Synthesize, AFullDiskEndsInOneErrorAndLeavesNothing) {
  const test::TempDir folder;
  constexpr int kNotPermitted = 77;
  const auto disk = [&] {
    if (!mount_tiny_disk(folder.path())) ::_exit(kNotPermitted);
  };
  const std::string out = (folder / "cells.h5ad").string();
  // The disk lives as long as its process, so a shell looks at it afterwards.
  const auto result =
      test::run_process({"/bin/sh", "-c",
                         "'" SCRNA_TRAIN_PROGRAM "' synthesize --out '" + out +
                             "' --cells 3000; code=$?; ls -A '" + folder.path().string() + "'; exit $code"},
                        {.before_exec = disk});
  if (result.exit_code == kNotPermitted) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  expect_failure(result, 3, {"cells.h5ad", "No space left"});  // ls adds nothing to stdout
}

TEST(Synthesize, ASignalRemovesWhatWasHalfWritten) {
  const test::TempDir folder;
  const auto result =
      test::run_process({"/bin/sh", "-c",
                         "'" SCRNA_TRAIN_PROGRAM "' synthesize --cells 100000000 --out '" +
                             (folder / "cells.h5ad").string() + "' & until ls '" + folder.path().string() +
                             "' | grep -q tmp; do sleep 0.1; done; kill -TERM $!; wait $!"});
  EXPECT_EQ(result.exit_code, 143) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(files_in(folder.path()), 0U);
}

TEST(Synthesize, ATerminalShowsABarThatIsClearedAtTheEnd) {
  const test::TempDir folder;
  const auto result = scrna_train(small(folder / "cells.h5ad"), {.before_exec =
                                                                     [] {
                                                                       ::setenv("TERM", "xterm", 1);
                                                                       ::unsetenv("NO_COLOR");
                                                                     },
                                                                 .close_stdout = false,
                                                                 .on_terminal = true});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_TRUE(contains(result.out, "synthesize [")) << result.out;
  const std::size_t cleared = result.out.rfind("\r\x1b[K");
  ASSERT_NE(cleared, std::string::npos) << result.out;
  EXPECT_TRUE(contains(result.out.substr(cleared), "300 cells x 200 genes")) << result.out;
}

TEST(Synthesize, ADumbTerminalShowsNoBar) {
  const test::TempDir folder;
  const auto result = scrna_train(
      small(folder / "cells.h5ad"),
      {.before_exec = [] { ::setenv("TERM", "dumb", 1); }, .close_stdout = false, .on_terminal = true});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_FALSE(contains(result.out, "\x1b[K")) << result.out;
}

}  // namespace
}  // namespace scrna
