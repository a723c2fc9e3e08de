#include "lib/data/counts_verdict.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/memory_matrix.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using test::MemoryMatrix;
using test::Row;
using test::write_small_file;

ValueSurvey survey(const std::vector<float>& values) {
  Row row;
  for (std::size_t i = 0; i < values.size(); ++i) row[static_cast<int32_t>(i)] = values[i];
  return survey_values(MemoryMatrix(std::ssize(values), {row}));
}

void write_layer(H5Builder& h5, const std::string& path, const std::vector<float>& values) {
  h5.sparse<float, int32_t>(path, "csr_matrix", 4, 3, values, {0, 2, 1, 0, 1, 2}, {0, 2, 2, 3, 6});
}
const std::vector<float> kLogged = {0.5F, 1.1F, 2.3F, 0.5F, 0.7F, 3.3F};

template <class Change>
CountsVerdict verdict_of(const Change& change, std::string_view choice = "auto") {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", change);
  return judge_counts(AnnDataFile(folder / "f.h5ad"), choice);
}

TEST(CountsVerdict, ValuesAreToldApart) {
  EXPECT_TRUE(survey({1, 2, 2345}).is_counts);
  EXPECT_EQ(survey({1, 2, 2345}).description, "whole numbers up to 2345");
  EXPECT_TRUE(survey({1.00001F, 2}).is_counts) << "rounding noise is forgiven";
  EXPECT_FALSE(survey({1.01F, 2}).is_counts);
  EXPECT_CONTAINS(survey({0.5F, 8}).description, "looks log-normalised");
  EXPECT_CONTAINS(survey({0.5F, 800}).description, "looks normalised or corrected, not logarithmic");
  std::vector<float> mixed(500, 3);
  mixed[7] = 0.5F;
  EXPECT_CONTAINS(survey(mixed).description, "fractions among whole numbers (1 of 500 values), maximum 3");
  EXPECT_CONTAINS(survey({-1, 2}).description, "negative values");
  EXPECT_FALSE(survey({-1, 2}).is_counts);
  EXPECT_CONTAINS(survey({1, std::nanf("")}).description, "NaN or infinite");
  EXPECT_CONTAINS(survey({1, std::numeric_limits<float>::infinity()}).description, "NaN or infinite");
  EXPECT_EQ(survey({}).description, "nothing but zeros");
  EXPECT_FALSE(survey({}).is_counts);
}

TEST(CountsVerdict, CellsAllOverTheMatrixAreLookedAt) {
  std::vector<Row> rows(100000, Row{{0, 1}});
  rows[99900][0] = 0.5F;
  EXPECT_TRUE(survey_values(MemoryMatrix(1, rows)).is_counts)
      << "it is a sample; check_values() sees the rest";
  for (std::size_t row = 87500; row < 87756; ++row) rows[row][0] = 0.5F;
  EXPECT_FALSE(survey_values(MemoryMatrix(1, rows)).is_counts);
}

TEST(CountsVerdict, TheFirstMatrixThatHoldsCountsIsChosenAndTheOthersAreNamed) {
  const CountsVerdict in_layer = verdict_of([](H5Builder& h5) {
    write_layer(h5, "X", kLogged);
    test::write_small_csr(h5, "layers/counts");
  });
  EXPECT_EQ(in_layer.matrix, "layers/counts");
  EXPECT_TRUE(in_layer.is_counts);
  const CountsVerdict in_raw = verdict_of([](H5Builder& h5) {
    write_layer(h5, "X", kLogged);
    h5.table("raw/var", {"G0", "G1", "G2"});
    test::write_small_csr(h5, "raw/X");
  });
  EXPECT_EQ(in_raw.matrix, "raw/X");
  const CountsVerdict behind_logged_raw = verdict_of([](H5Builder& h5) {
    h5.table("raw/var", {"G0", "G1", "G2"});
    write_layer(h5, "raw/X", kLogged);
  });
  EXPECT_EQ(behind_logged_raw.matrix, "X");
  EXPECT_CONTAINS(behind_logged_raw.reason, "raw/X holds fractions");
  EXPECT_EQ(behind_logged_raw.opened->name(), "X");
}

TEST(CountsVerdict, ADamagedMatrixIsPassedOverWhenAnotherHoldsCounts) {
  const CountsVerdict verdict = verdict_of([](H5Builder& h5) {
    test::write_small_csr(h5, "layers/counts");
    h5.numbers<int32_t>("layers/counts/indices", {0, 2, 77, 0, 1, 2});
  });
  EXPECT_EQ(verdict.matrix, "X");
  EXPECT_CONTAINS(verdict.reason, "layers/counts holds unreadable (");
  EXPECT_CONTAINS(test::message_of<DataError>([] {
                    verdict_of([](H5Builder& h5) { h5.numbers<int32_t>("X/indices", {0, 2, 77, 0, 1, 2}); });
                  }),
                  "index 77 is outside");
}

TEST(CountsVerdict, WhatIsNotCountsIsRefusedUnlessAccepted) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) { write_layer(h5, "X", kLogged); });
  const AnnDataFile file(folder / "f.h5ad");
  const CountsVerdict verdict = judge_counts(file, "auto");
  EXPECT_FALSE(verdict.is_counts);
  const std::string problem = test::message_of<DataError>([&] { require_counts(file, verdict, false); });
  EXPECT_CONTAINS(problem,
                  "expected raw counts, but no matrix of the file holds raw counts; X holds fractions");
  EXPECT_CONTAINS(problem, "data.allow_normalized=true");
  EXPECT_NO_THROW(require_counts(file, verdict, true));
}

TEST(CountsVerdict, NegativeValuesAndNaNAreRefusedWhateverIsAccepted) {
  for (const float bad : {-1.0F, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const test::TempDir folder;
    write_small_file(folder / "f.h5ad", [&](H5Builder& h5) { write_layer(h5, "X", {1, 2, 3, 4, 5, bad}); });
    const AnnDataFile file(folder / "f.h5ad");
    EXPECT_CONTAINS(
        test::message_of<DataError>([&] { require_counts(file, judge_counts(file, "auto"), true); }),
        "cannot be ranked as expression");
    const std::string problem =
        test::message_of<DataError>([&] { require_counts(file, judge_counts(file, "auto"), false); });
    EXPECT_CONTAINS(problem, "expected raw counts");
    EXPECT_EQ(problem.find("allow_normalized"), std::string::npos) << "it would not help: " << problem;
  }
}

TEST(CountsVerdict, AMatrixOfZerosHoldsNoCounts) {
  const CountsVerdict verdict = verdict_of([](H5Builder& h5) { write_layer(h5, "X", {0, 0, 0, 0, 0, 0}); });
  EXPECT_FALSE(verdict.is_counts);
  EXPECT_CONTAINS(verdict.reason, "X holds nothing but zeros");
}

TEST(CountsVerdict, ANamedMatrixIsTakenAsNamed) {
  const CountsVerdict verdict =
      verdict_of([](H5Builder& h5) { write_layer(h5, "layers/log", kLogged); }, "layers/log");
  EXPECT_EQ(verdict.matrix, "layers/log");
  EXPECT_FALSE(verdict.is_counts);
  EXPECT_THROW(verdict_of([](H5Builder&) {}, "layers/absent"), DataError);
}

}  // namespace
}  // namespace scrna::data
