// Synthetic cells: a function of the options alone, valid for our own reader, and with structure to learn.
#include "lib/data/synthesize.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/counts_verdict.h"
#include "lib/data/synthesize_model.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

SynthesizeOptions small_options() {
  SynthesizeOptions options;
  options.cells = 600;
  options.genes = 500;
  options.median_genes = 100;
  options.cell_types = 4;
  return options;
}

CellBlock cells_of(const SynthesizeOptions& options) {
  const test::TempDir folder;
  synthesize(options, folder / "f.h5ad");
  return AnnDataFile(folder / "f.h5ad").open_matrix("X")->read(0, options.cells);
}

TEST(Synthesize, TheSameOptionsGiveTheSameFileByteForByteWhateverTheThreads) {
  const test::TempDir folder;
  SynthesizeOptions options = small_options();
  options.num_workers = 1;
  synthesize(options, folder / "one.h5ad");
  options.num_workers = 5;
  synthesize(options, folder / "five.h5ad");
  EXPECT_EQ(sha256_of_file(folder / "one.h5ad"), sha256_of_file(folder / "five.h5ad"));
  options.seed = 1;
  synthesize(options, folder / "other.h5ad");
  EXPECT_NE(sha256_of_file(folder / "one.h5ad"), sha256_of_file(folder / "other.h5ad"));
}

TEST(Synthesize, ACellDoesNotDependOnHowManyFollow) {
  SynthesizeOptions options = small_options();
  const CellBlock more = cells_of(options);
  options.cells = 100;
  const CellBlock fewer = cells_of(options);
  EXPECT_TRUE(std::equal(fewer.genes.begin(), fewer.genes.end(), more.genes.begin()));
  EXPECT_TRUE(std::equal(fewer.values.begin(), fewer.values.end(), more.values.begin()));
}

TEST(Synthesize, TheFileHoldsCountsGenesAndLabels) {
  const test::TempDir folder;
  const SynthesizeOptions options = small_options();
  const SynthesizeReport report = synthesize(options, folder / "f.h5ad");
  const AnnDataFile file(folder / "f.h5ad");
  const CountsVerdict verdict = judge_counts(file, "auto");
  EXPECT_EQ(verdict.matrix, "X");
  EXPECT_TRUE(verdict.is_counts);
  EXPECT_EQ(choose_gene_ids(file, "X", "").type, GeneIdType::kEnsembl);
  EXPECT_EQ(choose_gene_ids(file, "X", "gene_symbol").type, GeneIdType::kSymbol);
  EXPECT_EQ(file.obs_columns(), (std::vector<std::string>{"cell_type", "donor", "total_counts", "n_genes"}));
  const std::vector<int32_t> types = file.obs_categories("cell_type").codes;
  EXPECT_EQ(std::set<int32_t>(types.begin(), types.end()), (std::set<int32_t>{0, 1, 2, 3}));
  const CellBlock block = verdict.opened->read(0, options.cells);
  EXPECT_EQ(report.cells, options.cells);
  EXPECT_EQ(report.stored_values, std::ssize(block.genes));
  EXPECT_EQ(report.file_bytes, std::filesystem::file_size(folder / "f.h5ad"));
  const std::vector<double> totals = file.obs_numbers("total_counts"), lengths = file.obs_numbers("n_genes");
  for (std::size_t cell = 0; cell < static_cast<std::size_t>(options.cells); ++cell) {
    double total = 0;
    for (auto i = static_cast<std::size_t>(block.indptr[cell]);
         i < static_cast<std::size_t>(block.indptr[cell + 1]); ++i)
      total += block.values[i];
    EXPECT_EQ(total, totals[cell]);
    EXPECT_EQ(static_cast<double>(block.indptr[cell + 1] - block.indptr[cell]), lengths[cell]);
  }
}

// The model aims at the median of expressed genes; its own approximations (a table of depths, donors,
// programs) move it by a few percent, and the median of 2,000 draws of spread 0.35 by 1 % more.
TEST(Synthesize, CellsHaveAboutTheWantedNumberOfGenes) {
  const test::TempDir folder;
  SynthesizeOptions options;
  options.cells = 2000;
  options.genes = 4000;
  options.median_genes = 600;
  EXPECT_NEAR(synthesize(options, folder / "f.h5ad").median_genes, 600, 90);
  options.cells = 60;
  options.genes = 20000;
  options.lengths = LengthDistribution::kCellxgene;
  EXPECT_NEAR(std::log2(synthesize(options, folder / "f.h5ad").median_genes), 10.75, 0.8);
}

TEST(Synthesize, SixteenThousandGenesPerCellAreReached) {
  SynthesizeOptions options;
  options.cells = 8;
  options.genes = 20000;
  options.median_genes = 16000;
  options.genes_spread = 0;
  const CellBlock block = cells_of(options);
  for (std::size_t cell = 0; cell < 8; ++cell)
    EXPECT_NEAR(static_cast<double>(block.indptr[cell + 1] - block.indptr[cell]), 16000, 1600);
}

// What a model is to learn: genes of a program rise together, so the cells of a type that has it switched on
// hold more of them than those of a type that has not.
TEST(Synthesize, ProgramsDistinguishCellTypes) {
  const SynthesizeOptions options = small_options();
  const CellModel model(options);
  CellModel::Scratch scratch;
  CellBlock block;
  double on = 0, off = 0, num_on = 0, num_off = 0;
  for (int64_t cell = 0; cell < 400; ++cell) {
    const CellModel::CellInfo info = model.append(cell, scratch, block);
    std::vector<float> counts(static_cast<std::size_t>(options.genes));
    for (auto i = static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(cell)]);
         i < block.genes.size(); ++i)
      counts[static_cast<std::size_t>(block.genes[i])] = block.values[i];
    for (std::size_t gene = 0; gene < counts.size(); ++gene) {
      const int32_t program = model.gene_programs()[gene];
      if (program >= options.programs - 2) continue;  // states and free genes
      const bool is_on = model.is_active(info.cell_type, program);
      (is_on ? on : off) += counts[gene] > 0 ? 1 : 0;
      (is_on ? num_on : num_off) += 1;
    }
  }
  EXPECT_GT(on / num_on, 3 * off / num_off);
}

TEST(Synthesize, OptionsThatContradictEachOtherAreRefusedAndNothingIsWritten) {
  const test::TempDir folder;
  SynthesizeOptions options = small_options();
  options.median_genes = 401;
  EXPECT_CONTAINS(test::message_of<ConfigError>([&] { synthesize(options, folder / "f.h5ad"); }),
                  "median_genes: at most 80 % of genes (500)");
  options = small_options();
  options.genes = 1000000;
  options.donors = 10000;
  EXPECT_CONTAINS(test::message_of<ConfigError>([&] { synthesize(options, folder / "f.h5ad"); }),
                  "need too much memory; at most 26832 genes fit");
  EXPECT_FALSE(std::filesystem::exists(folder / "f.h5ad"));
  EXPECT_THROW(synthesize(small_options(), "/nonexistent/f.h5ad"), DataError);
}

TEST(Synthesize, ProgressEndsAtTheLastCell) {
  const test::TempDir folder;
  int64_t last = 0;
  synthesize(small_options(), folder / "f.h5ad", [&](std::string_view, int64_t cells, int64_t total) {
    EXPECT_GT(cells, last);
    EXPECT_EQ(total, 600);
    last = cells;
  });
  EXPECT_EQ(last, 600);
}

}  // namespace
}  // namespace scrna::data
