// scrna-train bench data: text, JSON and refusals, on a tiny file.
#include <algorithm>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using test::contains;
using test::expect_failure;
using test::scrna_train;

TEST(BenchData, TextAndJsonHoldEveryRowWithNumbersThatAgree) {
  const test::TempDir folder;
  const std::string cells = (folder / "cells.h5ad").string(), cache = (folder / "cache").string();
  test::synthesize_small(cells);
  ASSERT_EQ(scrna_train({"cache", cells, "--out", cache}).exit_code, 0);
  const auto result =
      scrna_train({"bench", "data", cells, "--max-workers", "3", "--repeats", "2", "--single-rows", "20",
                   "--batch-cells", "20", "--cache", cache, "--vocabulary", cache + "/vocabulary.tsv",
                   "--json", (folder / "data.json").string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"single rows", "blocks, shuffled", "tokenized, shuffled", "micro-batches",
                           "from cache, shuffled", "cells/s", "peak MB", "60 cells", "median of 2 passes"})
    EXPECT_TRUE(contains(result.out, part)) << "no '" << part << "' in: " << result.out;
  const auto json = nlohmann::json::parse(read_file(folder / "data.json"));
  EXPECT_EQ(json.at("benchmark"), "data");
  EXPECT_EQ(json.at("data").at("cells"), 60);
  int64_t tokens = -1;
  std::vector<std::string> found;
  for (const auto& row : json.at("rows")) {
    found.push_back(row.at("what").get<std::string>() + " " +
                    std::to_string(row.at("workers").get<int64_t>()));
    auto seconds = row.at("seconds").get<std::vector<double>>();
    ASSERT_EQ(seconds.size(), 2U);
    const double median = 0.5 * (seconds[0] + seconds[1]);
    EXPECT_NEAR(row.at("cells_per_second").get<double>(), row.at("cells").get<double>() / median,
                1e-6 * row.at("cells_per_second").get<double>());
    EXPECT_GT(row.at("peak_resident_bytes").get<int64_t>(), 1 << 20);
    if (row.at("what") == "single rows") {
      EXPECT_EQ(row.at("cells"), 20);
      continue;
    }
    EXPECT_EQ(row.at("cells"), 60) << row;
    if (row.at("what") == "blocks, shuffled") {
      EXPECT_EQ(row.at("entries"), json.at("data").at("stored_values"));
    }
    if (row.at("context") == 0) continue;
    if (tokens < 0) tokens = row.at("entries").get<int64_t>();
    EXPECT_EQ(row.at("entries"), tokens)
        << "no cell is as long as a context, so all passes give the same tokens";
  }
  EXPECT_EQ(std::count(found.begin(), found.end(), "blocks, shuffled 1"), 1);
  EXPECT_EQ(std::count(found.begin(), found.end(), "from cache, shuffled 3"), 1);
  EXPECT_EQ(found.size(), 1 + 3 * 6U);  // threads 1, 2, 3
}

TEST(BenchData, RefusesWhatItCannotMeasure) {
  const test::TempDir folder;
  const std::string cells = (folder / "cells.h5ad").string();
  expect_failure(scrna_train({"bench", "data"}), 2, {"FILE.h5ad"});
  test::synthesize_small(cells);
  expect_failure(scrna_train({"bench", "data", cells, "--max-workers", "0"}), 2, {"--max-workers"});
  expect_failure(scrna_train({"bench", "data", cells, "--json", folder.path().string()}), 2, {"--json"});
}

}  // namespace
}  // namespace scrna
