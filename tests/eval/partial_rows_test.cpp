// The rows of an unfinished computation: kept, taken up again, cut to whole windows, and never mixed with
// others.
#include "lib/eval/partial_rows.h"

#include <filesystem>
#include <fstream>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace scrna::eval {
namespace {

constexpr int64_t kWidth = 3, kWindow = 4, kRows = 10;

std::vector<float> rows_from(int64_t first, int64_t count) {
  std::vector<float> rows(static_cast<std::size_t>(count * kWidth));
  std::iota(rows.begin(), rows.end(), static_cast<float>(first * kWidth));
  return rows;
}

TEST(PartialRows, RowsAreFoundAgain) {
  const test::TempDir folder;
  {
    PartialRows rows(folder / "p", "key", kRows, kWidth, kWindow);
    EXPECT_EQ(rows.num_done(), 0);
    rows.append(rows_from(0, 4).data(), 4);
  }
  PartialRows rows(folder / "p", "key", kRows, kWidth, kWindow);
  EXPECT_EQ(rows.num_done(), 4);
  rows.append(rows_from(4, 4).data(), 4);
  rows.append(rows_from(8, 2).data(), 2);
  std::vector<float> all(kRows * kWidth);
  rows.read(0, kRows, all.data());
  EXPECT_EQ(all, rows_from(0, kRows));
  rows.remove();
  EXPECT_FALSE(std::filesystem::exists(folder / "p"));
}

TEST(PartialRows, WhatAKillLeftOfAWindowIsCutOff) {
  const test::TempDir folder;
  {
    PartialRows rows(folder / "p", "key", kRows, kWidth, kWindow);
    rows.append(rows_from(0, 4).data(), 4);
  }
  std::ofstream(folder / "p", std::ios::app | std::ios::binary) << std::string(2 * kWidth * 4 + 5, 'x');
  PartialRows rows(folder / "p", "key", kRows, kWidth, kWindow);
  EXPECT_EQ(rows.num_done(), 4);
  rows.append(rows_from(4, 4).data(), 4);
  std::vector<float> all(8 * kWidth);
  rows.read(0, 8, all.data());
  EXPECT_EQ(all, rows_from(0, 8));
  std::vector<float> beyond(kWidth);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { rows.read(8, 1, beyond.data()); }),
                  "cannot read rows 8 to 9");
}

TEST(PartialRows, AnotherComputationBeginsAnew) {
  const test::TempDir folder;
  PartialRows(folder / "p", "key", kRows, kWidth, kWindow).append(rows_from(0, 4).data(), 4);
  {
    PartialRows rows(folder / "p", "other", kRows, kWidth, kWindow);
    EXPECT_EQ(rows.num_done(), 0);
    EXPECT_TRUE(rows.was_replaced());
  }
  EXPECT_EQ(PartialRows(folder / "p", "key", kRows, kWidth, kWindow).num_done(), 0);
}

TEST(PartialRows, OneWriterAtATime) {
  const test::TempDir folder;
  const PartialRows rows(folder / "p", "key", kRows, kWidth, kWindow);
  EXPECT_CONTAINS(
      test::message_of<DataError>([&] { PartialRows(folder / "p", "key", kRows, kWidth, kWindow); }),
      "another process is writing");
}

}  // namespace
}  // namespace scrna::eval
