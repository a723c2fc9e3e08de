// From the patterns of data.files to opened matrices with gene ids of one kind.
#include "lib/data/cell_source.h"

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/build_vocabulary.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using test::write_small_file;
using Texts = std::vector<std::string>;

const Texts kSymbols = {"TP53", "KRAS", "EGFR"};
const Texts kEnsembl = {"ENSG00000141510", "ENSG00000133703", "ENSG00000146648"};

void write_genes(const std::filesystem::path& path, const Texts& index, const Texts& column = {}) {
  write_small_file(path, [&](H5Builder& h5) {
    h5.texts("var/_index", index);
    if (column.empty()) return;
    h5.attribute("var", "column-order", Texts{"other"});
    h5.texts("var/other", column);
  });
}

DataConfig config_for(const Texts& files) {
  DataConfig config;
  config.files = files;
  return config;
}

TEST(ResolveFiles, PatternsAreSortedRepeatsDroppedAndTheOrderKept) {
  const test::TempDir folder;
  for (const char* name : {"b.h5ad", "a.h5ad", "c.h5ad", "c.txt"}) write_file_atomically(folder / name, "");
  const auto path = [&](const std::string& name) { return (folder / name).string(); };
  const std::vector<std::filesystem::path> found =
      resolve_files({path("c.h5ad"), path("*.h5ad"), path("./b.h5ad"), path("[ab].h5ad")});
  EXPECT_EQ(found, (std::vector<std::filesystem::path>{path("c.h5ad"), path("a.h5ad"), path("b.h5ad")}));
}

TEST(ResolveFiles, ANameWithSignsOfAPatternIsTakenLiterallyIfItExists) {
  const test::TempDir folder;
  write_file_atomically(folder / "a[1].h5ad", "");
  EXPECT_EQ(resolve_files({(folder / "a[1].h5ad").string()}).size(), 1U);
}

TEST(ResolveFiles, NothingFoundIsAnErrorThatSaysWhereItLooked) {
  EXPECT_CONTAINS(test::message_of<DataError>([] { return resolve_files({"/nonexistent/*.h5ad"}); }),
                  "no file matches '/nonexistent/*.h5ad' (the current folder is /");
  EXPECT_CONTAINS(test::message_of<DataError>([] { return resolve_files({"/nonexistent.h5ad"}); }),
                  "there is no file '/nonexistent.h5ad'");
  EXPECT_CONTAINS(test::message_of<ConfigError>([] { return resolve_files({}); }),
                  "data.files: expected one or more .h5ad files, got none");
  EXPECT_THROW(resolve_files({std::string(5000, 'x')}), DataError);
}

TEST(OpenSources, FilesOfDifferentKindsMeetInAKindThatAllOffer) {
  const test::TempDir folder;
  write_genes(folder / "a.h5ad", kSymbols, kEnsembl);
  write_genes(folder / "b.h5ad", kSymbols);
  const auto sources = open_sources(config_for({(folder / "*.h5ad").string()}));
  ASSERT_EQ(sources.size(), 2U);
  for (const CellSource& source : sources) {
    EXPECT_EQ(source.gene_ids.ids, kSymbols);
    EXPECT_TRUE(source.is_counts);
    EXPECT_EQ(source.matrix->num_cells(), 4);
  }
}

TEST(OpenSources, AVocabularyDecidesWhichIdsAreUsed) {
  const test::TempDir folder;
  write_genes(folder / "a.h5ad", kSymbols, kEnsembl);
  const Vocabulary symbols({{.id = "TP53", .median = 1}});
  const Vocabulary ensembl({{.id = "ENSG00000141510", .median = 1}});
  const DataConfig config = config_for({(folder / "a.h5ad").string()});
  EXPECT_EQ(open_sources(config, &symbols)[0].gene_ids.ids, kSymbols);
  EXPECT_EQ(open_sources(config, &ensembl)[0].gene_ids.ids, kEnsembl);
  EXPECT_EQ(open_sources(config)[0].gene_ids.ids, kEnsembl);
}

TEST(OpenSources, NormalisedDataAreRefusedUnlessAccepted) {
  const test::TempDir folder;
  write_small_file(folder / "a.h5ad", [](H5Builder& h5) {
    h5.numbers<float>("X/data", {0.5F, 1.5F, 2.5F, 0.1F, 0.2F, 3});
  });
  DataConfig config = config_for({(folder / "a.h5ad").string()});
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return open_sources(config); }), "expected raw counts");
  config.allow_normalized = true;
  EXPECT_FALSE(open_sources(config)[0].is_counts);
}

// 5,000 cells of which the sample of 2,048 sees only whole numbers.
TEST(OpenSources, FractionsOutsideTheSampleAreFoundInTheFirstPass) {
  const test::TempDir folder;
  constexpr std::size_t kCells = 5000;
  write_small_file(folder / "a.h5ad", [&](H5Builder& h5) {
    h5.texts("obs/_index", Texts(kCells, "c"));
    std::vector<int64_t> indptr(kCells + 1);
    for (std::size_t i = 0; i <= kCells; ++i) indptr[i] = static_cast<int64_t>(i);
    std::vector<float> data(kCells, 1);
    for (std::size_t cell = 300; cell < 600; ++cell) data[cell] = 1.25F;
    h5.sparse<float, int32_t>("X", "csr_matrix", kCells, 3, data, std::vector<int32_t>(kCells, 1), indptr);
  });
  DataConfig config = config_for({(folder / "a.h5ad").string()});
  const std::vector<CellSource> sources = open_sources(config);
  EXPECT_TRUE(sources[0].is_counts);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return build_vocabulary(sources, 1); }),
                  "a.h5ad: X holds 1.25 in cell 300 (counted from 0), gene 'G1'; expected raw counts");
  config.allow_normalized = true;
  EXPECT_EQ(build_vocabulary(open_sources(config), 1).genes().size(), 1U);
}

TEST(OpenSources, AnObsColumnThatIsMissingIsNamed) {
  const test::TempDir folder;
  write_small_file(folder / "a.h5ad");
  DataConfig config = config_for({(folder / "a.h5ad").string()});
  config.heldout_column = "donor";
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return open_sources(config); }),
                  "obs: has no column 'donor'");
}

TEST(OpenSources, AMapOfGenesTranslatesSymbolsToTheVocabulary) {
  const test::TempDir folder;
  write_genes(folder / "a.h5ad", {"P53", "KRAS", "EGFR"});
  write_file_atomically(folder / "map.tsv", "alias\tid\nP53\tENSG00000141510\nKRAS\tENSG00000133703\n");
  DataConfig config = config_for({(folder / "a.h5ad").string()});
  config.gene_map = (folder / "map.tsv").string();
  const CellSource source = std::move(open_sources(config)[0]);
  EXPECT_EQ(source.gene_ids.ids, (Texts{"ENSG00000141510", "ENSG00000133703", "EGFR"}));
  EXPECT_EQ(source.gene_ids.type, GeneIdType::kEnsembl);
  config.gene_map = (folder / "missing.tsv").string();
  EXPECT_THROW(open_sources(config), DataError);
}

TEST(OpenSources, GenomesBeforeTheNamesOfGenesAreTakenOff) {
  const test::TempDir folder;
  write_genes(folder / "a.h5ad", {"hg19_TP53", "hg19_KRAS", "mm10_Egfr"});
  write_genes(folder / "b.h5ad",
              {"GRCh38_ENSG00000141510", "GRCh38_ENSG00000133703.2", "mm10___ENSMUSG00000059552"});
  const auto ids_of = [&](const std::string& name) {
    return open_sources(config_for({(folder / name).string()}))[0].gene_ids;
  };
  EXPECT_EQ(ids_of("a.h5ad").ids, (Texts{"TP53", "KRAS", "Egfr"}));
  EXPECT_EQ(ids_of("a.h5ad").removed_prefixes, (Texts{"hg19_", "mm10_"}));
  EXPECT_EQ(ids_of("b.h5ad").ids, (Texts{"ENSG00000141510", "ENSG00000133703", "ENSMUSG00000059552"}));
}

TEST(OpenSources, FilesOfTwoSpeciesBuildOneVocabulary) {
  const test::TempDir folder;
  write_genes(folder / "human.h5ad", kEnsembl, kSymbols);
  write_genes(folder / "mouse.h5ad", {"Trp53", "Kras", "Egfr"},
              {"ENSMUSG00000059552.9", "ENSMUSG00000030265", "ENSMUSG00000020122"});
  std::vector<CellSource> sources = open_sources(config_for({(folder / "*.h5ad").string()}));
  const Vocabulary vocabulary = build_vocabulary(sources, 1);
  EXPECT_EQ(vocabulary.genes().size(), 6U);
  EXPECT_NE(vocabulary.find("ENSG00000141510"), Vocabulary::kUnk);
  EXPECT_NE(vocabulary.find("ENSMUSG00000059552"), Vocabulary::kUnk);
}

TEST(OpenSources, AFilterChoosesCellsOfEveryFile) {
  const test::TempDir folder;
  const auto write = [&](const std::string& name, const Texts& tissues) {
    write_small_file(folder / name, [&](H5Builder& h5) {
      h5.attribute("obs", "column-order", Texts{"tissue"});
      h5.texts("obs/tissue", tissues);
    });
  };
  write("a.h5ad", {"blood", "lung", "lung", "gut"});
  write("b.h5ad", {"gut", "gut", "gut", "gut"});
  DataConfig config = config_for({(folder / "*.h5ad").string()});
  EXPECT_TRUE(open_sources(config)[0].chosen.empty());
  config.filter = "tissue in ['blood', 'lung']";
  const auto sources = open_sources(config);
  EXPECT_EQ(sources[0].chosen, (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(sources[1].chosen, (std::vector<bool>(4, false)));
  EXPECT_TRUE(sources[0].any_chosen(2, 2));
  EXPECT_FALSE(sources[0].any_chosen(3, 1));
  config.filter = "tissue == 'blod'";
  EXPECT_CONTAINS(
      test::message_of<DataError>([&] { return open_sources(config); }),
      "data.filter chooses no cell of 2 file(s): no file has 'blod' of 'tissue' (did you mean 'blood'?)");
  write_small_file(folder / "c.h5ad");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return open_sources(config); }),
                  "c.h5ad: data.filter, at character 1: column 'tissue' is not in obs; obs has no columns");
}

TEST(DataConfig, AFilterThatIsNoExpressionAndTwoSplitsAreRefused) {
  DataConfig config;
  config.filter = "tissue == ";
  EXPECT_CONTAINS(test::message_of<ConfigError>([&] { config.validate("data"); }),
                  "data.filter: at character 11, the end");
  config.filter = "";
  config.heldout_whole_files = true;
  config.validate("data");
  config.heldout_column = "donor";
  EXPECT_CONTAINS(test::message_of<ConfigError>([&] { config.validate("data"); }),
                  "data.heldout_whole_files: true, but data.heldout_column is 'donor'");
}

TEST(OpenSources, AFileWithoutGenesEndsInADataError) {
  const test::TempDir folder;
  write_small_file(folder / "a.h5ad", [](H5Builder& h5) {
    h5.texts("var/_index", {});
    h5.sparse<float, int32_t>("X", "csr_matrix", 4, 0, {}, {}, {0, 0, 0, 0, 0});
  });
  EXPECT_CONTAINS(
      test::message_of<DataError>([&] { return open_sources(config_for({(folder / "a.h5ad").string()})); }),
      "nothing but zeros");
}

}  // namespace
}  // namespace scrna::data
