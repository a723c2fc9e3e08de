// 10x Genomics .h5 files of both layouts, made here as Cell Ranger writes them.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/anndata.h"
#include "lib/data/cell_source.h"
#include "lib/data/gene_ids.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using Texts = std::vector<std::string>;

// 3 barcodes x 4 features: [1 0 2 0], [0 0 0 3], [4 5 6 7].
void write_matrix(H5Builder& h5, const std::string& group, const std::vector<int32_t>& shape = {4, 3}) {
  h5.texts(group + "/barcodes", {"AAC-1", "AAG-1", "AAT-1"}, 18);
  h5.numbers<int32_t>(group + "/data", {1, 2, 3, 4, 5, 6, 7});
  h5.numbers<int64_t>(group + "/indices", {0, 2, 3, 0, 1, 2, 3});
  h5.numbers<int64_t>(group + "/indptr", {0, 2, 3, 7});
  h5.numbers<int32_t>(group + "/shape", shape);
}

void write_genome(H5Builder& h5, const std::string& genome) {
  write_matrix(h5, genome);
  h5.texts(genome + "/gene_names", {"A", "B", "C", "D"}, 4);
  h5.texts(genome + "/genes", {"ENSG00000000001", "ENSG00000000002", "ENSG00000000003", "ENSG00000000004"},
           16);
}

void write_features(H5Builder& h5, const Texts& types, const Texts& genomes) {
  write_matrix(h5, "matrix");
  h5.texts("matrix/features/id", {"ENSG00000000001", "ENSMUSG00000000002", "ENSG00000000003", "CD3"}, 20);
  h5.texts("matrix/features/name", {"A", "b", "C", "CD3"}, 4);
  h5.texts("matrix/features/feature_type", types, 20);
  h5.texts("matrix/features/genome", genomes, 8);
  h5.texts("matrix/features/_all_tag_keys", {"genome"}, 8);
}
const Texts kGenes(4, "Gene Expression");
const Texts kOneGenome(4, "GRCh38");

template <class Write>
std::string problem_with(const Write& write, const std::string& genome = {}) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    write(h5);
  }
  return test::message_of<DataError>([&] { return AnnDataFile(folder / "f.h5", genome).open_matrix("X"); });
}

TEST(Tenx, FilesOfCellRanger2HoldCellsByGenome) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    write_genome(h5, "hg19");
  }
  const AnnDataFile file(folder / "f.h5");
  EXPECT_EQ(file.format(), "10x Genomics .h5 (Cell Ranger 2 or earlier)");
  EXPECT_EQ(file.num_cells(), 3);
  EXPECT_EQ(file.obs_index(), (Texts{"AAC-1", "AAG-1", "AAT-1"}));
  EXPECT_EQ(file.obs_columns(), Texts{});
  EXPECT_EQ(file.matrix_names(), Texts{"X"});
  EXPECT_EQ(file.var_index("X"), (Texts{"A", "B", "C", "D"}));
  EXPECT_EQ(file.var_columns("X"), Texts{"gene_ids"});
  EXPECT_EQ(choose_gene_ids(file, "X", "").type, GeneIdType::kEnsembl);
  const auto matrix = file.open_matrix("X");
  EXPECT_EQ(matrix->num_genes(), 4);
  const CellBlock block = matrix->read(0, 3);
  EXPECT_EQ(block.indptr, (std::vector<int64_t>{0, 2, 3, 7}));
  EXPECT_EQ(block.genes, (std::vector<int32_t>{0, 2, 3, 0, 1, 2, 3}));
  EXPECT_EQ(block.values, (std::vector<float>{1, 2, 3, 4, 5, 6, 7}));
}

TEST(Tenx, OneOfSeveralGenomesMustBeChosen) {
  const auto two = [](H5Builder& h5) {
    write_genome(h5, "hg19");
    write_genome(h5, "mm10");
  };
  EXPECT_CONTAINS(problem_with(two),
                  "is a 10x .h5 file with 2 genomes, each with cells of its own: hg19, mm10. Choose one with "
                  "data.genome (inspect: --genome)");
  EXPECT_CONTAINS(problem_with(two, "mm9"),
                  "has no genome 'mm9'; did you mean 'mm10'? it has: hg19, mm10. Set data.genome");
  EXPECT_EQ(problem_with(two, "mm10"), "nothing was thrown");
}

TEST(Tenx, FilesOfCellRanger3HaveATableOfFeatures) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    write_features(h5, kGenes, kOneGenome);
  }
  const AnnDataFile file(folder / "f.h5");
  EXPECT_EQ(file.format(), "10x Genomics .h5 (Cell Ranger 3 or later)");
  EXPECT_EQ(file.var_index("X"), (Texts{"A", "b", "C", "CD3"}));
  EXPECT_EQ(file.var_columns("X"), (Texts{"feature_types", "genome", "gene_ids"}));
  EXPECT_EQ(file.var_column("X", "genome"), kOneGenome);
  EXPECT_EQ(file.open_matrix("X")->read(2, 1).values, (std::vector<float>{4, 5, 6, 7}));
}

TEST(Tenx, FeaturesThatAreNoGenesAreLeftOut) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    write_features(h5, {"Gene Expression", "Gene Expression", "Gene Expression", "Antibody Capture"},
                   {"GRCh38", "GRCh38", "GRCh38", ""});
  }
  const AnnDataFile file(folder / "f.h5");
  EXPECT_EQ(file.var_index("X"), (Texts{"A", "b", "C"}));
  const auto matrix = file.open_matrix("X");
  EXPECT_EQ(matrix->num_genes(), 3);
  const CellBlock block = matrix->read(0, 3);
  EXPECT_EQ(block.indptr, (std::vector<int64_t>{0, 2, 2, 5}));
  EXPECT_EQ(block.values, (std::vector<float>{1, 2, 4, 5, 6}));
}

TEST(Tenx, AGenomeChoosesAmongFeatures) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    write_features(h5, kGenes, {"GRCh38", "mm10", "GRCh38", "mm10"});
  }
  EXPECT_EQ(AnnDataFile(folder / "f.h5").var_index("X").size(), 4U);  // cells may hold both
  const AnnDataFile file(folder / "f.h5", "mm10");
  EXPECT_EQ(file.var_index("X"), (Texts{"b", "CD3"}));
  EXPECT_EQ(file.var_column("X", "gene_ids"), (Texts{"ENSMUSG00000000002", "CD3"}));
  const CellBlock block = file.open_matrix("X")->read(1, 2);
  EXPECT_EQ(block.genes, (std::vector<int32_t>{1, 0, 1}));
  EXPECT_EQ(block.values, (std::vector<float>{3, 5, 7}));
  EXPECT_CONTAINS(problem_with([](H5Builder& h5) { write_features(h5, kGenes, kOneGenome); }, "hg19"),
                  "has no genome 'hg19'; it has: GRCh38.");
}

TEST(Tenx, TheGenomeOfTheConfigurationIsTaken) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    write_genome(h5, "hg19");
    write_genome(h5, "mm10");
    h5.texts("mm10/genes",
             {"ENSMUSG00000000001", "ENSMUSG00000000002", "ENSMUSG00000000003", "ENSMUSG00000000004"});
  }
  DataConfig config;
  config.files = {(folder / "f.h5").string()};
  config.genome = "mm10";
  const std::vector<CellSource> sources = open_sources(config);
  EXPECT_EQ(sources.at(0).gene_ids.ids.at(3), "ENSMUSG00000000004");
  EXPECT_EQ(sources.at(0).matrix->num_cells(), 3);
  EXPECT_TRUE(sources.at(0).is_counts);
}

TEST(Tenx, WhatCannotBeTrainedOnIsRefused) {
  EXPECT_CONTAINS(problem_with([](H5Builder& h5) { write_features(h5, Texts(4, "Peaks"), kOneGenome); }),
                  "without features of type 'Gene Expression' (they are 'Peaks')");
  EXPECT_CONTAINS(problem_with([](H5Builder& h5) {
                    write_features(h5, kGenes, kOneGenome);
                    h5.numbers<int32_t>("matrix/shape", {3, 4});
                  }),
                  "/matrix/shape: is 3 x 4, but the file has 4 features and 3 barcodes");
  EXPECT_CONTAINS(problem_with([](H5Builder& h5) {
                    write_features(h5, kGenes, kOneGenome);
                    h5.numbers<int64_t>("matrix/indices", {0, 2, 3, 0, 1, 2, 4});
                  }),
                  "nothing was thrown");  // found when the cells are read
  EXPECT_CONTAINS(problem_with([](H5Builder& h5) {
                    write_features(h5, kGenes, kOneGenome);
                    h5.remove("matrix/features/name");
                  }),
                  "name");
}

}  // namespace
}  // namespace scrna::data
