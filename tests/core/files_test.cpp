#include "lib/core/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

std::size_t files_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

TEST(Files, AnAtomicFileAppearsOnlyWhenCommitted) {
  const test::TempDir folder;
  {
    AtomicFile file(folder / "a.txt");
    file.write("half");
    EXPECT_FALSE(std::filesystem::exists(folder / "a.txt"));
  }
  EXPECT_EQ(files_in(folder.path()), 0U) << "an abandoned temporary file stays behind";
  write_file_atomically(folder / "a.txt", "whole");
  EXPECT_EQ(read_file(folder / "a.txt"), "whole");
  EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(Files, AFullDiskLeavesTheOldFileAndSaysWhy) {
  // /dev/full answers every write with ENOSPC, as a full disk does.
  LineAppender full("/dev/full");
  try {
    full.append("line");
    FAIL() << "writing to a full disk succeeded";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
  }
}

TEST(Files, ReadingAMissingFileOrAFolderNamesIt) {
  const test::TempDir folder;
  EXPECT_THROW(read_file(folder / "missing"), DataError);
  EXPECT_THROW(read_file(folder.path()), DataError);
}

TEST(Files, Sha256MatchesThePublishedVectors) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const test::TempDir folder;
  write_file_atomically(folder / "a", "abc");
  EXPECT_EQ(sha256_of_file(folder / "a"), sha256("abc"));
}

TEST(Files, AppendedLinesFollowEachOther) {
  const test::TempDir folder;
  {
    LineAppender lines(folder / "m.jsonl");
    lines.append("{\"step\":1}");
  }
  LineAppender lines(folder / "m.jsonl");
  lines.append("{\"step\":2}");
  EXPECT_EQ(read_file(folder / "m.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(Files, AnIncompleteLastLineIsCutOffBeforeMoreAreAppended) {
  const test::TempDir folder;
  const auto after_opening = [&](const std::string& before) {
    write_file_atomically(folder / "m.jsonl", before);
    LineAppender(folder / "m.jsonl").append("next");
    return read_file(folder / "m.jsonl");
  };
  EXPECT_EQ(after_opening("one\ntw"), "one\nnext\n");
  EXPECT_EQ(after_opening("one\n"), "one\nnext\n");
  EXPECT_EQ(after_opening("on"), "next\n");
  EXPECT_EQ(after_opening(""), "next\n");
  EXPECT_EQ(after_opening("one\n" + std::string(10000, 'x')), "one\nnext\n");
  EXPECT_EQ(after_opening(std::string(4096, 'x') + "\n"), std::string(4096, 'x') + "\nnext\n");
}

TEST(Files, AFileThatNeverEndsIsNotReadForEver) {
  EXPECT_THROW(read_file("/dev/zero", 5'000'000), DataError);
  const test::TempDir folder;
  write_file_atomically(folder / "a", std::string(3'000'000, 'x'));
  EXPECT_EQ(read_file(folder / "a").size(), 3'000'000U);
  EXPECT_THROW(read_file(folder / "a", 2'999'999), DataError);
}

TEST(Files, AFolderThatIsMissingOrATargetThatIsAFolderIsNamed) {
  const test::TempDir folder;
  EXPECT_CONTAINS(test::message_of<DataError>([] { AtomicFile("/nonexistent/a"); }), "/nonexistent/a: cannot create the file: No such file");
  std::filesystem::create_directory(folder / "d");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { write_file_atomically(folder / "d", "x"); }), "cannot put the file in place: Is a directory");
  EXPECT_EQ(files_in(folder.path()), 1U) << "the temporary file stays behind";
}

TEST(Files, AWriteThatFailsHalfWayLeavesTheOldFile) {
  const test::TempDir folder;
  write_file_atomically(folder / "a", "old");
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on the size of files makes write() fail, as a full disk does
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 1000, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string problem = test::message_of<DataError>([&] { write_file_atomically(folder / "a", std::string(5000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_CONTAINS(problem, "a: cannot write");
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(files_in(folder.path()), 1U);
}

}  // namespace
}  // namespace scrna
