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

TEST(GeneIds, EnsemblIdsAreFoundInsideOtherTexts) {
  EXPECT_EQ(ensembl_id_in("ENSG00000141510.17"), "ENSG00000141510");
  EXPECT_EQ(ensembl_id_in("GRCh38_ENSG00000141510"), "ENSG00000141510");
  EXPECT_EQ(ensembl_id_in("mm10___ENSMUSG00000059552.3"), "ENSMUSG00000059552");
  EXPECT_EQ(ensembl_id_in("TP53_ENSG00000141510"), "ENSG00000141510");
  EXPECT_EQ(ensembl_id_in("ENSG00000141510.2|TP53"), "ENSG00000141510");
  EXPECT_EQ(ensembl_id_in("ENSG00000228572.7_PAR_Y"), "ENSG00000228572");
  EXPECT_EQ(ensembl_id_in("ENSG00000141510:ENSG00000141510.1"), "ENSG00000141510") << "the same one twice";
  EXPECT_EQ(ensembl_id_in("ENSG00000141510;ENSG00000133703"), "") << "two genes are none";
  EXPECT_EQ(ensembl_id_in("TP53"), "");
  EXPECT_EQ(ensembl_id_in(""), "");
  EXPECT_EQ(type_of({"TP53_ENSG00000141510", "KRAS_ENSG00000133703"}), GeneIdType::kEnsembl);
}

TEST(GeneIds, GenomesBeforeSymbolsAreTakenOffWhenNearlyAllHaveOne) {
  Texts mixed = {"GRCh38_TP53", "GRCh38_MT-CO1", "mm10___Trp53", "mm10___Kras"};
  EXPECT_EQ(remove_genome_prefixes(mixed), (Texts{"GRCh38_", "mm10___"}));
  EXPECT_EQ(mixed, (Texts{"TP53", "MT-CO1", "Trp53", "Kras"}));
  Texts species = {"human_TP53", "mouse_Trp53"};
  EXPECT_EQ(remove_genome_prefixes(species), (Texts{"human_", "mouse_"}));
  for (const Texts& others :
       {Texts{"TP53", "KRAS", "HLA1_A"}, Texts{"gene1_1", "gene1_2"}, Texts{"LOC_Os01", "LOC_Os02"},
        Texts{"a1_x", "a2_x", "a3_x", "a4_x", "a5_x"}, Texts{}, Texts{"", "_", "x1_"}}) {
    Texts symbols = others;
    EXPECT_EQ(remove_genome_prefixes(symbols), Texts{});
    EXPECT_EQ(symbols, others);
  }
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
