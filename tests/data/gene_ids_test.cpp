#include "lib/data/gene_ids.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using Texts = std::vector<std::string>;

TEST(GeneIds, EnsemblIdsOfEverySpeciesAreKnown) {
  for (const char* id : {"ENSG00000141510", "ENSG00000141510.17", "ENSMUSG00000059552",
                         "ENSDARG00000035559.3", "WBGene00000001", "FBgn0000008", "WBGene00000001.1"}) {
    EXPECT_TRUE(is_ensembl_id(id)) << id;
  }
  for (const char* id : {"", "ENSG", "ENSG0000014151", "ENSG000001415101", "ENST00000269305",
                         "ensg00000141510", "TP53", "ENS00000141510", "WBGene", "WBGene0x", "FBgn",
                         "ENSG00000141510.x", ".1", "ENSG00000228572.7_PAR_Y"}) {
    EXPECT_FALSE(is_ensembl_id(id)) << id;
  }
}

TEST(GeneIds, OnlyEnsemblIdsLoseTheirVersion) {
  EXPECT_EQ(without_version("ENSG00000141510.17"), "ENSG00000141510");
  EXPECT_EQ(without_version("ENSG00000141510"), "ENSG00000141510");
  EXPECT_EQ(without_version("AC000093.1"), "AC000093.1") << "a clone's name, not a version";
  EXPECT_EQ(without_version(""), "");
}

TEST(GeneIds, TheKindIsThatOfMostIds) {
  EXPECT_EQ(type_of({"ENSG00000141510", "TP53"}), GeneIdType::kEnsembl);
  EXPECT_EQ(type_of({"ENSG00000141510", "TP53", "KRAS"}), GeneIdType::kSymbol);
  EXPECT_EQ(type_of({"1", "2", "3"}), GeneIdType::kOther);
  EXPECT_EQ(type_of({}), GeneIdType::kOther);
  EXPECT_EQ(type_of({"", "", ""}), GeneIdType::kOther);
}

class GenesFile {
 public:
  explicit GenesFile(const Texts& index, const Texts& column = {}, const std::string& name = "gene_ids") {
    test::write_small_file(folder_ / "f.h5ad", [&](H5Builder& h5) {
      h5.texts("var/_index", index);
      if (column.empty()) return;
      h5.attribute("var", "column-order", Texts{name});
      h5.texts("var/" + name, column);
    });
  }
  [[nodiscard]] GeneIds choose(const std::string& column) const {
    return choose_gene_ids(AnnDataFile(folder_ / "f.h5ad"), "X", column);
  }

 private:
  test::TempDir folder_;
};

const Texts kSymbols = {"TP53", "KRAS", "EGFR"};
const Texts kEnsembl = {"ENSG00000141510.17", "ENSG00000133703", "ENSG00000146648.2"};

TEST(GeneIds, EnsemblIdsAreFoundInWhateverColumn) {
  const GeneIds ids = GenesFile(kSymbols, kEnsembl, "feature_id").choose("");
  EXPECT_EQ(ids.source, "var['feature_id']");
  EXPECT_EQ(ids.type, GeneIdType::kEnsembl);
  EXPECT_EQ(ids.ids[0], "ENSG00000141510");
  EXPECT_EQ(GenesFile(kEnsembl, kSymbols).choose("").source, "var index");
  EXPECT_EQ(GenesFile(kSymbols).choose("").ids, kSymbols);
}

TEST(GeneIds, AChoiceIsFollowed) {
  const GenesFile file(kSymbols, kEnsembl);
  EXPECT_EQ(file.choose("index").ids, kSymbols);
  EXPECT_EQ(file.choose("gene_ids").type, GeneIdType::kEnsembl);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return file.choose("gene_id"); }),
                  "did you mean 'gene_ids'?");
}

TEST(GeneIds, TextThatCannotBeAnIdIsRefusedWithItsPlace) {
  EXPECT_CONTAINS(test::message_of<DataError>([] {
                    return GenesFile({"A", "B\tC", "D"}).choose("");
                  }),
                  "gene 1 (counted from 0) of var index");
  EXPECT_CONTAINS(test::message_of<DataError>([] {
                    return GenesFile({"A", "B", "\xff\xfe"}).choose("");
                  }),
                  "gene 2 (counted from 0) of var index");
  EXPECT_EQ(GenesFile({"A", "", "ß"}).choose("").ids, (Texts{"A", "", "ß"}))
      << "no id is allowed, and any UTF-8";
}

}  // namespace
}  // namespace scrna::data
