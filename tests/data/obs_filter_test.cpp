// data.filter: what an expression means, what missing values do, and where a message points.
#include "lib/data/obs_filter.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using Texts = std::vector<std::string>;

void add_categorical(H5Builder& h5, const std::string& path, const std::vector<int8_t>& codes,
                     const Texts& categories) {
  h5.group(path);
  h5.numbers<int8_t>(path + "/codes", codes);
  h5.texts(path + "/categories", categories);
}

// cell           a        b       c       d
// tissue         blood    lung    -       gut
// n_genes        100      250     3000    250
// score          0.5      NaN     -1      2
// primary        True     False   True    True       (categories of texts)
// flag           1        0       1       0          (integers)
// leiden         0        1       10      1          (categories of texts that are numbers)
// cell type      T cell   B       B       it's
class Cells {
 public:
  Cells() {
    test::write_small_file(folder_ / "f.h5ad", [](H5Builder& h5) {
      h5.attribute("obs", "column-order",
                   Texts{"tissue", "n_genes", "score", "primary", "flag", "leiden", "cell type"});
      add_categorical(h5, "obs/tissue", {1, 2, -1, 0}, {"gut", "blood", "lung", "unused"});
      h5.numbers<int32_t>("obs/n_genes", {100, 250, 3000, 250});
      h5.numbers<double>("obs/score", {0.5, std::nan(""), -1, 2});
      add_categorical(h5, "obs/primary", {1, 0, 1, 1}, {"False", "True"});
      h5.numbers<int8_t>("obs/flag", {1, 0, 1, 0});
      add_categorical(h5, "obs/leiden", {0, 1, 2, 1}, {"0", "1", "10"});
      h5.texts("obs/cell type", {"T cell", "B", "B", "it's"});
    });
  }
  // The letters of the cells that are chosen.
  [[nodiscard]] std::string chosen_by(const std::string& text) const {
    const AnnDataFile file(folder_ / "f.h5ad");
    const std::vector<bool> chosen = ObsFilter::parse(text).choose(file).chosen;
    std::string letters;
    for (std::size_t cell = 0; cell < chosen.size(); ++cell)
      if (chosen[cell]) letters += "abcd"[cell];
    return letters;
  }
  [[nodiscard]] std::string problem_of(const std::string& text) const {
    return test::message_of<DataError>([&] { return chosen_by(text); });
  }
  [[nodiscard]] std::map<std::string, std::string> unknown_values_of(const std::string& text) const {
    return ObsFilter::parse(text).choose(AnnDataFile(folder_ / "f.h5ad")).unknown_values;
  }

 private:
  test::TempDir folder_;
};

std::string syntax_problem(const std::string& text) {
  return test::message_of<ConfigError>([&] { return ObsFilter::parse(text); });
}

TEST(ObsFilter, ComparesTextsNumbersAndTruthValues) {
  const Cells cells;
  EXPECT_EQ(cells.chosen_by("tissue == 'blood'"), "a");
  EXPECT_EQ(cells.chosen_by("tissue == \"lung\""), "b");
  EXPECT_EQ(cells.chosen_by("n_genes == 250"), "bd");
  EXPECT_EQ(cells.chosen_by("n_genes < 250"), "a");
  EXPECT_EQ(cells.chosen_by("n_genes <= 250"), "abd");
  EXPECT_EQ(cells.chosen_by("n_genes > 2.5e2"), "c");
  EXPECT_EQ(cells.chosen_by("n_genes >= 250"), "bcd");
  EXPECT_EQ(cells.chosen_by("250 <= n_genes"), "bcd");
  EXPECT_EQ(cells.chosen_by("score < -.5"), "c");
  EXPECT_EQ(cells.chosen_by("primary == true"), "acd");
  EXPECT_EQ(cells.chosen_by("primary == False"), "b");
  EXPECT_EQ(cells.chosen_by("primary"), "acd");
  EXPECT_EQ(cells.chosen_by("not flag"), "bd");
  EXPECT_EQ(cells.chosen_by("flag == true"), "ac");
  EXPECT_EQ(cells.chosen_by("leiden == 1"), "bd");
  EXPECT_EQ(cells.chosen_by("leiden < 2"), "abd") << "as numbers, not as texts";
  EXPECT_EQ(cells.chosen_by("`cell type` == 'T cell'"), "a");
  EXPECT_EQ(cells.chosen_by("`cell type` == 'it\\'s'"), "d");
  EXPECT_EQ(cells.chosen_by("`cell type` == \"it's\""), "d");
}

TEST(ObsFilter, ListsHoldAnyOfTheirValues) {
  const Cells cells;
  EXPECT_EQ(cells.chosen_by("tissue in ['blood', 'gut']"), "ad");
  EXPECT_EQ(cells.chosen_by("tissue not in ['blood', 'gut']"), "bc");
  EXPECT_EQ(cells.chosen_by("n_genes in [100, 3000]"), "ac");
  EXPECT_EQ(cells.chosen_by("leiden in ['0', 10]"), "ac");
}

TEST(ObsFilter, AndBindsCloserThanOrAndNotCloserStill) {
  const Cells cells;
  EXPECT_EQ(cells.chosen_by("tissue == 'blood' or tissue == 'lung' and n_genes > 1000"), "a");
  EXPECT_EQ(cells.chosen_by("(tissue == 'blood' or tissue == 'lung') and n_genes > 200"), "b");
  EXPECT_EQ(cells.chosen_by("not primary or n_genes == 100"), "ab");
  EXPECT_EQ(cells.chosen_by("not (primary or n_genes == 250)"), "");
  EXPECT_EQ(cells.chosen_by("not not primary"), "acd");
  EXPECT_EQ(cells.chosen_by("primary == true and tissue in ['blood', 'lung', 'gut'] and not (n_genes < 200)"),
            "d");
}

TEST(ObsFilter, AMissingValueEqualsNothing) {
  const Cells cells;  // cell c has no tissue, cell b no score
  EXPECT_EQ(cells.chosen_by("tissue != 'blood'"), "bcd");
  EXPECT_EQ(cells.chosen_by("not tissue == 'blood'"), "bcd");
  EXPECT_EQ(cells.chosen_by("score < 100 or score >= 100"), "acd");
  EXPECT_EQ(cells.chosen_by("score != 2"), "abc");
  EXPECT_EQ(cells.chosen_by("score not in [2]"), "abc");
}

TEST(ObsFilter, AColumnWithAQuestionMarkMayBeAbsentAndItsValuesAreThenMissing) {
  const Cells cells;
  EXPECT_EQ(cells.chosen_by("batch? not in ['x', 'y']"), "abcd");
  EXPECT_EQ(cells.chosen_by("batch? != 'x' and n_genes == 250"), "bd");
  EXPECT_EQ(cells.chosen_by("batch? == 'x' or `no such`? or 3 < none?"), "");
  EXPECT_TRUE(cells.unknown_values_of("batch? not in ['x']").contains("'x' of 'batch'")) << "for a warning when no file has it";
  EXPECT_EQ(cells.chosen_by("tissue? == 'blood'"), "a") << "a column that is there is read as ever";
  EXPECT_CONTAINS(cells.problem_of("batch? != 'x' and batch != 'x'"), "column 'batch' is not in obs");
}

TEST(ObsFilter, SyntaxErrorsPointAtTheirPlace) {
  EXPECT_CONTAINS(
      syntax_problem("tissue == blood"),
      "data.filter: at character 11, before <blood>: expected a value; texts stand in quotes: 'blood'");
  EXPECT_CONTAINS(syntax_problem("tissue = 'blood'"),
                  "at character 8, before <= 'blood'>: expected a comparison; did "
                  "you mean '=='?");
  EXPECT_CONTAINS(syntax_problem("a == 1 && b == 2"),
                  "at character 8, before <&& b == 2>: expected 'and', 'or' or the end");
  EXPECT_CONTAINS(syntax_problem("ü == 1 b"), "at character 8, before <b>");
  EXPECT_CONTAINS(syntax_problem("a in 'b'"), "expected a list of values: ['a', 'b']");
  EXPECT_CONTAINS(syntax_problem("a in ['b' 'c']"), "before <'c']>: expected ',' or ']'");
  EXPECT_CONTAINS(syntax_problem("a in []"),
                  "before <]>: expected a value: a text in quotes, a number, true or false");
  EXPECT_CONTAINS(syntax_problem("a not 'b'"), "expected 'in' after 'not'");
  EXPECT_CONTAINS(syntax_problem("(a == 1"), "the end: expected 'and', 'or' or ')'");
  EXPECT_CONTAINS(syntax_problem("a == 1)"), "before <)>: expected 'and', 'or' or the end");
  EXPECT_CONTAINS(syntax_problem("a == 'b"), "before <'b>: the quotation that begins here has no end (')");
  EXPECT_CONTAINS(syntax_problem("a == 1x"), "before <1x>: this is no number");
  EXPECT_CONTAINS(syntax_problem("a == 1 and"),
                  "at character 11, the end: expected the name of an obs column");
  EXPECT_CONTAINS(syntax_problem(""), "expected the name of an obs column");
  EXPECT_CONTAINS(syntax_problem("1 == 2"), "expected the name of an obs column");
  EXPECT_CONTAINS(syntax_problem("0 < a < 5"), "expected 'and', 'or' or the end");
  EXPECT_CONTAINS(syntax_problem(std::string(50000, '(') + "a"), "nested more than 100 deep");
  EXPECT_CONTAINS(syntax_problem("a ~ 1"), "before <~ 1>: expected ==, !=, <");
}

// Whatever stands there, it is an expression or an error of the user with a place, and never anything else.
TEST(ObsFilter, AnySequenceOfPiecesIsReadOrRefused) {
  const Texts pieces = {"a",  "`b c`", "'t'",  "\"u\"", "1",  "-2.5e3", "true", "and", "or", "not", "in",
                        "(",  ")",     "[",    "]",     ",",  "==",     "!=",   "<",   ">=", "=",   "'",
                        "\\", "\n",    "\xff", "ü",     "&&", "1e999",  "+",    "-",   " "};
  int num_read = 0;
  for (uint64_t run = 0; run < 20000; ++run) {
    const RandomStream stream(1, RandomPurpose::kInit, run, 0);
    std::string text;
    const uint64_t num_pieces = 1 + stream.below(12, 0);
    for (uint64_t i = 0; i < num_pieces; ++i) text += pieces[stream.below(pieces.size(), i + 1)] + " ";
    const std::string problem = test::message_of<ConfigError>([&] { ObsFilter::parse(text); });
    num_read += problem == "nothing was thrown" ? 1 : 0;
    if (problem != "nothing was thrown") {
      EXPECT_EQ(problem.rfind("data.filter: at character ", 0), 0U) << problem;
      EXPECT_EQ(problem.find('\n'), std::string::npos) << problem;
    }
  }
  EXPECT_GT(num_read, 50);
}

TEST(ObsFilter, ColumnsThatAreMissingOrDoNotFitAreNamed) {
  const Cells cells;
  EXPECT_CONTAINS(
      cells.problem_of("primary and tisue == 'gut'"),
      "f.h5ad: data.filter, at character 13: column 'tisue' is not in obs; did you mean 'tissue'? it has: "
      "tissue, n_genes");
  EXPECT_CONTAINS(cells.problem_of("n_genes == '250'"),
                  "at character 12: column 'n_genes' holds numbers; expected a number, got the text '250'");
  EXPECT_CONTAINS(cells.problem_of("n_genes"), "holds numbers and cannot stand alone");
  EXPECT_CONTAINS(cells.problem_of("n_genes == true"), "holds numbers other than 0 and 1");
  EXPECT_CONTAINS(cells.problem_of("tissue == 3"),
                  "holds texts ('gut', 'blood', 'lung', ...); expected a text in quotes, got 3");
  EXPECT_CONTAINS(cells.problem_of("tissue"),
                  "holds texts ('gut', 'blood', 'lung', ...) and cannot stand alone");
  EXPECT_CONTAINS(cells.problem_of("tissue < 'lung'"), "can only be ordered against a number, got 'lung'");
}

TEST(ObsFilter, ValuesThatNoCellHasAreReported) {
  const Cells cells;
  EXPECT_EQ(cells.unknown_values_of("tissue in ['blod', 'lung', 'somewhere else']"),
            (std::map<std::string, std::string>{{"'blod' of 'tissue'", "blood"},
                                                {"'somewhere else' of 'tissue'", ""}}));
  EXPECT_TRUE(cells.unknown_values_of("n_genes == 7").empty());
}

}  // namespace
}  // namespace scrna::data
