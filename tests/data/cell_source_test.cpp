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
