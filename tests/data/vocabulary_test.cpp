#include "lib/data/vocabulary.h"

#include <cmath>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

Vocabulary small() {
  return Vocabulary({{.id = "ENSG00000000003", .median = 1.5F, .cells = 12, .counts = 40},
                     {.id = "B2M", .median = 0.1F, .cells = 3, .counts = 3.25},
                     {.id = "ACTB", .median = 1e-7F, .cells = 0, .counts = 0}});
}

std::string message_of(const std::string& text) {
  try {
    Vocabulary::parse(text, "v.tsv");
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

const std::string kHead = "token\tgene\tmedian\tcells\tcounts\n";
const std::string kSpecials = "0\t<pad>\t0\t0\t0\n1\t<mask>\t0\t0\t0\n2\t<cls>\t0\t0\t0\n3\t<unk>\t0\t0\t0\n";

TEST(Vocabulary, GenesFollowTheFourSpecialTokens) {
  const Vocabulary vocabulary = small();
  EXPECT_EQ(vocabulary.size(), 7);
  EXPECT_EQ(vocabulary.name(0), "<pad>");
  EXPECT_EQ(vocabulary.name(Vocabulary::kMask), "<mask>");
  EXPECT_EQ(vocabulary.name(Vocabulary::kUnk), "<unk>");
  EXPECT_EQ(vocabulary.find("B2M"), 5);
  EXPECT_EQ(vocabulary.gene(5).median, 0.1F);
  EXPECT_EQ(vocabulary.find("absent"), Vocabulary::kUnk);
  EXPECT_THROW((void)vocabulary.gene(3), InternalError);
  EXPECT_THROW((void)vocabulary.gene(7), InternalError);
}

TEST(Vocabulary, TextIsTheDocumentedTable) {
  EXPECT_EQ(
      small().text(),
      kHead + kSpecials + "4\tENSG00000000003\t1.5\t12\t40\n5\tB2M\t0.1\t3\t3.25\n6\tACTB\t1e-07\t0\t0\n");
}

TEST(Vocabulary, SaveAndLoadKeepEveryBit) {
  const test::TempDir folder;
  std::vector<Gene> genes;
  float median = 1.0F / 3;
  for (int i = 0; i < 500; ++i) {
    genes.push_back({.id = fmt::format("G{}", i), .median = median, .cells = i, .counts = i / 7.0});
    median = median * 1.0371F + 1e-5F;
  }
  const Vocabulary before(genes);
  before.save(folder / "vocabulary.tsv");
  const Vocabulary after = Vocabulary::load(folder / "vocabulary.tsv");
  EXPECT_EQ(after.genes(), genes);
  EXPECT_EQ(after.hash(), before.hash());
  EXPECT_EQ(after.text(), read_file(folder / "vocabulary.tsv"));
}

TEST(Vocabulary, HashChangesWithAMedianAndWithTheOrder) {
  std::vector<Gene> genes = small().genes();
  genes[0].median = std::nextafter(genes[0].median, 2.0F);
  EXPECT_NE(Vocabulary(genes).hash(), small().hash());
  genes = small().genes();
  std::swap(genes[0], genes[1]);
  EXPECT_NE(Vocabulary(genes).hash(), small().hash());
  EXPECT_EQ(small().hash().size(), 64U);
}

TEST(Vocabulary, CopiesAndMovesKeepTheirIndex) {
  auto first = std::make_unique<Vocabulary>(small());
  const Vocabulary copy = *first;
  const Vocabulary moved = std::move(*first);
  first.reset();
  EXPECT_EQ(copy.find("ACTB"), 6);
  EXPECT_EQ(moved.find("ACTB"), 6);
}

TEST(Vocabulary, LinesEndingInCarriageReturnsAreRead) {
  EXPECT_EQ(
      Vocabulary::parse("token\tgene\tmedian\tcells\tcounts\r\n0\t<pad>\t0\t0\t0\r\n1\t<mask>\t0\t0\t0\r\n"
                        "2\t<cls>\t0\t0\t0\r\n3\t<unk>\t0\t0\t0\r\n4\tA\t1\t1\t1\r\n",
                        "v.tsv")
          .find("A"),
      4);
}

TEST(Vocabulary, AWrongFileIsNamedWithLineAndColumn) {
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(message_of(text).find(part), std::string::npos)
        << "expected '" << part << "' in: " << message_of(text);
  };
  expect("", "v.tsv: the file is empty");
  expect("gene\tmedian\n", "line 1: expected the column names");
  expect(kHead, "no gene");
  expect(kHead + kSpecials, "no gene");
  expect(kHead + "0\tTP53\t1\t1\t1\n", "line 2, column gene: expected the special token <pad>");
  expect(kHead + kSpecials + "5\tTP53\t1\t1\t1\n", "line 6, column token: expected token 4");
  expect(kHead + kSpecials + "x\tTP53\t1\t1\t1\n", "line 6, column token: expected an integer, got 'x'");
  expect(kHead + kSpecials + "4\tTP53\t1.5x\t1\t1\n", "line 6, column median: expected a number, got '1.5x'");
  expect(kHead + kSpecials + "4\tTP53\t0\t1\t1\n", "line 6, column median: expected a finite number above 0");
  expect(kHead + kSpecials + "4\tTP53\tnan\t1\t1\n", "column median");
  expect(kHead + kSpecials + "4\tTP53\tinf\t1\t1\n", "column median");
  expect(kHead + kSpecials + "4\tTP53\t1\t-1\t1\n", "column cells");
  expect(kHead + kSpecials + "4\tTP53\t1\t1\t-2\n", "column counts");
  expect(kHead + kSpecials + "4\t\t1\t1\t1\n", "line 6, column gene: expected a gene id");
  expect(kHead + kSpecials + "4\tTP53\t1\t1\n", "line 6: expected 5 columns separated by tabs");
  expect(kHead + kSpecials + "4\tTP53\t1\t1\t1\t1\n", "line 6: expected 5 columns separated by tabs");
  expect(kHead + kSpecials + "4\tTP53\t1\t1\t1\n5\tTP53\t1\t1\t1\n",
         "line 7, column gene: expected a gene id that is not");
  expect(kHead + kSpecials + "4\t<mask>\t1\t1\t1\n", "is a special token");
}

TEST(Vocabulary, AMissingFileIsADataError) {
  EXPECT_THROW(Vocabulary::load("/no/such/vocabulary.tsv"), DataError);
}

}  // namespace
}  // namespace scrna::data
