// Help, version and everything that is wrong on the command line: exit code, one message, and where to look.
#include <sstream>

#include <gtest/gtest.h>

#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using test::contains;
using test::expect_failure;
using test::scrna_train;

void expect_at_most_100_columns(const std::string& text) {
  std::istringstream lines{text};
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
}

TEST(CommandLine, HelpOfTheProgramListsCommandsExamplesAndExitCodes) {
  const auto result = scrna_train({"--help"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  for (const char* part :
       {"Usage: scrna-train", "inspect", "synthesize", "Examples:", "Exit codes:", "143"}) {
    EXPECT_TRUE(contains(result.out, part)) << part;
  }
  expect_at_most_100_columns(result.out);
}

TEST(CommandLine, HelpOfEachCommandHasPurposeDefaultsAndExamples) {
  for (const char* command : {"inspect", "synthesize"}) {
    for (const char* flag : {"--help", "-h"}) {
      const auto result = scrna_train({command, flag});
      EXPECT_EQ(result.exit_code, 0);
      EXPECT_TRUE(contains(result.out, "Usage: scrna-train " + std::string(command))) << result.out;
      EXPECT_TRUE(contains(result.out, "Examples:\n  scrna-train " + std::string(command))) << result.out;
      expect_at_most_100_columns(result.out);
    }
  }
  EXPECT_TRUE(contains(scrna_train({"synthesize", "--help"}).out, "[5000]")) << "a flag's default";
}

TEST(CommandLine, VersionNamesWhatTheProgramWasBuiltWith) {
  const auto result = scrna_train({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out.rfind("scrna-train " SCRNA_VERSION " (revision ", 0), 0U) << result.out;
  for (const char* part :
       {"\ncompiler   ", "\nLibTorch   2.", "\nCUDA       ", "\nHDF5       1.", "\nCPU code   "}) {
    EXPECT_TRUE(contains(result.out, part)) << part << "\n" << result.out;
  }
}

TEST(CommandLine, WithoutACommandItNamesTheCommands) {
  expect_failure(scrna_train({}), 2, {"no command", "inspect", "synthesize", "scrna-train --help"});
}

TEST(CommandLine, AMisspeltCommandIsAnsweredWithTheNearest) {
  expect_failure(scrna_train({"inspekt", "cells.h5ad", "--json"}), 2,
                 {"'inspekt'", "did you mean 'inspect'?"});
  expect_failure(scrna_train({"frobnicate"}), 2, {"'frobnicate'", "inspect, synthesize"});
  expect_failure(scrna_train({"help"}), 2, {"did you mean '--help'?"});
}

TEST(CommandLine, AMisspeltFlagIsAnsweredWithTheNearest) {
  expect_failure(scrna_train({"inspect", "cells.h5ad", "--jsn"}), 2,
                 {"'--jsn'", "did you mean '--json'?", "scrna-train inspect --help"});
  // The misspelt flag is named, not the required one that it was meant to be.
  expect_failure(scrna_train({"synthesize", "--ouput=a.h5ad"}), 2, {"'--ouput'", "did you mean '--out'?"});
  expect_failure(scrna_train({"--versoin"}), 2, {"did you mean '--version'?"});
}

TEST(CommandLine, WhatIsMissingIsNamed) {
  expect_failure(scrna_train({"synthesize"}), 2, {"--out is required"});
  expect_failure(scrna_train({"synthesize", "--out"}), 2, {"--out", "expects one value"});
  expect_failure(scrna_train({"inspect"}), 2, {"FILE.h5ad", "is required"});
}

TEST(CommandLine, ValuesAreReadStrictlyAndInTheirRange) {
  const test::TempDir folder;
  const std::string out = (folder / "cells.h5ad").string();
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"--cells", "0"}, "--cells: must be at least 1"},
      {{"--cells", "-5"}, "--cells: must be at least 1"},
      {{"--cells", "1e3"}, "--cells: expected an integer"},
      {{"--genes", "5"}, "--genes: must be at least 20"},
      {{"--genes-spread", "wide"}, "--genes-spread: expected a number"},
      {{"--lengths", "long"}, "'long' is not one of median, cellxgene"},
      {{"--gzip-level", "10"}, "--gzip-level: must be"},
      {{"--seed", "99999999999999999999999"}, "too large"},
      {{"--genes", "100", "--median-genes", "90"}, "80 %"}};
  for (const auto& [flags, message] : wrong) {
    std::vector<std::string> words = {"synthesize", "--out", out};
    words.insert(words.end(), flags.begin(), flags.end());
    expect_failure(scrna_train(words), 2, {message});
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "a refused command left a file";
  expect_failure(scrna_train({"inspect", "--max-tokens", "2048,4", "x.h5ad"}), 2,
                 {"--max-tokens: must be at least 8"});
  expect_failure(scrna_train({"inspect", "--max-tokens", "", "x.h5ad"}), 2, {"--max-tokens"});
}

}  // namespace
}  // namespace scrna
