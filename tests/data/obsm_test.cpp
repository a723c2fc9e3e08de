// Matrices of obsm: what is read and what is refused, in one sentence.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/obsm.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

class Obsm : public testing::Test {
 protected:
  template <class Add>
  void write(const Add& add) {
    test::write_small_file(path_, [&](test::H5Builder& file) {
      file.group("obsm");
      add(file);
    });
  }
  [[nodiscard]] std::string message(const std::string& key) const {
    return test::message_of<DataError>([&] { read_obsm(path_, key); });
  }
  test::TempDir folder_;
  const std::filesystem::path path_ = folder_ / "f.h5ad";
};

TEST_F(Obsm, IsReadWhateverItsNumberType) {
  write([](test::H5Builder& file) {
    file.numbers<float>("obsm/X_pca", {1, 2, 3, 4, 5, 6, 7, 8}, {4, 2});
    file.numbers<double>("obsm/X_wide", {1, 2, 3, 4}, {4, 1});
    file.numbers<int64_t>("obsm/codes", {1, 2, 3, 4}, {4, 1});
  });
  EXPECT_EQ(obsm_keys(path_), (std::vector<std::string>{"X_pca", "X_wide", "codes"}));
  const ObsmMatrix matrix = read_obsm(path_, "X_pca");
  EXPECT_EQ(matrix.cells, 4);
  EXPECT_EQ(matrix.width, 2);
  EXPECT_EQ(matrix.values, (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(read_obsm(path_, "X_wide").values, (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(read_obsm(path_, "codes").values, (std::vector<float>{1, 2, 3, 4}));
}

TEST_F(Obsm, WhatIsNoMatrixOfNumbersIsRefused) {
  write([](test::H5Builder& file) {
    file.numbers<float>("obsm/flat", {1, 2, 3, 4});
    file.texts("obsm/text", {"a", "b", "c", "d"});
    file.table("obsm/frame", {"a", "b", "c", "d"});
    file.sparse<float, int32_t>("obsm/sparse", "csr_matrix", 4, 3, {1}, {0}, {0, 1, 1, 1, 1});
  });
  EXPECT_CONTAINS(message("flat"), "expected numbers, cells x dimensions");
  EXPECT_CONTAINS(message("text"), "expected numbers, cells x dimensions");
  EXPECT_CONTAINS(message("frame"), "is a dataframe; only dense matrices");
  EXPECT_CONTAINS(message("sparse"), "is a csr_matrix; only dense matrices");
  EXPECT_CONTAINS(message("fla"), "did you mean 'flat'?");
}

TEST_F(Obsm, AFileWithoutOneSaysSo) {
  test::write_small_file(path_);
  EXPECT_TRUE(obsm_keys(path_).empty());
  EXPECT_CONTAINS(message("X_pca"), "its obsm is empty or absent");
}

TEST_F(Obsm, ARowIsFiniteOrMissingAsAWhole) {
  const float nan = std::nanf(""), infinite = std::numeric_limits<float>::infinity();
  write([&](test::H5Builder& file) {
    file.numbers<float>("obsm/missing", {1, 2, nan, nan, 3, 4, 5, 6}, {4, 2});
    file.numbers<float>("obsm/partly", {1, 2, 3, 4, nan, 5, 6, nan}, {4, 2});
    file.numbers<float>("obsm/infinite", {1, 2, 3, 4, 5, 6, infinite, infinite}, {4, 2});
  });
  EXPECT_TRUE(std::isnan(read_obsm(path_, "missing").values[2]));
  EXPECT_CONTAINS(message("partly"), "2 of 4 rows have some values that are not finite (first: row 2)");
  EXPECT_CONTAINS(message("infinite"), "1 of 4 rows");
}

}  // namespace
}  // namespace scrna::data
