#include "lib/data/gene_aliases.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"

namespace scrna::data {
namespace {

std::string problem_with(const std::string& text) {
  return test::message_of<DataError>([&] { return GeneAliases::parse(text, "map.tsv"); });
}

TEST(GeneAliases, TranslateOnceAndDecideTheTypeAnew) {
  const GeneAliases aliases = GeneAliases::parse(
      "alias\tid\r\nP53\tENSG00000141510.17\r\nTP53\tENSG00000141510\nKRAS\tENSG00000133703\nA\tB\nB\tC\n",
      "map.tsv");
  EXPECT_EQ(aliases.size(), 5U);
  GeneIds genes{
      .ids = {"P53", "KRAS", "TP53", "", "B", "A"}, .type = GeneIdType::kSymbol, .source = "var index"};
  EXPECT_EQ(aliases.translate(genes), 5);
  EXPECT_EQ(genes.ids, (std::vector<std::string>{"ENSG00000141510", "ENSG00000133703", "ENSG00000141510", "",
                                                 "C", "B"}));
  EXPECT_EQ(genes.type, GeneIdType::kEnsembl);
  GeneIds others{.ids = {"X", "Y"}, .type = GeneIdType::kSymbol, .source = "var index"};
  EXPECT_EQ(aliases.translate(others), 0);
  EXPECT_EQ(others.ids, (std::vector<std::string>{"X", "Y"}));
  EXPECT_EQ(GeneAliases().translate(genes), 0);
}

TEST(GeneAliases, DamagedTablesAreNamedWithTheirLine) {
  EXPECT_CONTAINS(problem_with("symbol\tid\na\tb\n"),
                  "map.tsv: line 1: expected the column names 'alias' and 'id'");
  EXPECT_CONTAINS(problem_with("alias\tid\na b\n"),
                  "map.tsv: line 2: expected an alias and an id, separated by one tab");
  EXPECT_CONTAINS(problem_with("alias\tid\na\tb\tc\n"), "line 2: expected an alias and an id");
  EXPECT_CONTAINS(problem_with("alias\tid\na\tb\n\tc\n"), "line 3: the alias is empty");
  EXPECT_CONTAINS(problem_with("alias\tid\na\t\n"), "line 2: the id is empty");
  EXPECT_CONTAINS(problem_with("alias\tid\na\tb\na\tb\na\tc\n"),
                  "line 4: alias 'a' stands for 'c' here and for 'b' in an earlier line");
  EXPECT_CONTAINS(problem_with("alias\tid\n\xff\tb\n"), "line 2: expected text in UTF-8");
  EXPECT_CONTAINS(problem_with("alias\tid\n"), "holds no alias");
  EXPECT_CONTAINS(problem_with(""), "holds no alias");
}

}  // namespace
}  // namespace scrna::data
