// What the writer stores, read back; and that a file is whole or absent.
#include "lib/data/h5ad_writer.h"

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using Texts = std::vector<std::string>;

std::size_t entries_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

// Cells first .. first + count of a matrix of 5 genes: cell i has genes i % 5 and, if different, 4.
CellBlock block_of(int64_t first, int64_t count) {
  CellBlock block{.first_cell = first};
  for (int64_t cell = first; cell < first + count; ++cell) {
    block.genes.push_back(static_cast<int32_t>(cell % 5));
    block.values.push_back(static_cast<float>(cell + 1));
    if (cell % 5 != 4) {
      block.genes.push_back(4);
      block.values.push_back(7);
    }
    block.indptr.push_back(std::ssize(block.genes));
  }
  return block;
}
Texts names(const std::string& prefix, int64_t first, int64_t count) {
  Texts result;
  for (int64_t i = first; i < first + count; ++i) result.push_back(prefix + std::to_string(i));
  return result;
}
void write_genes(H5adWriter& writer) { writer.write_var({}, {.index = names("g", 0, 5), .columns = {}}); }

TEST(H5adWriter, EveryKindOfColumnAndAllBlocksComeBack) {
  const test::TempDir folder;
  const Texts many = names("donor", 0, 300);  // codes need more than 8 bits
  {
    H5adWriter writer(folder / "f.h5ad",
                      {{.name = "text", .kind = ColumnType::kText, .categories = {}},
                       {.name = "few", .kind = ColumnType::kCategory, .categories = {"a", "b"}},
                       {.name = "many", .kind = ColumnType::kCategory, .categories = many},
                       {.name = "integer", .kind = ColumnType::kInteger, .categories = {}},
                       {.name = "number", .kind = ColumnType::kNumber, .categories = {}}});
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 3}, {3, 0}, {3, 997}}) {
      std::vector<int32_t> few, large;
      std::vector<int64_t> integers;
      std::vector<double> numbers;
      for (int64_t i = first; i < first + count; ++i) {
        few.push_back(static_cast<int32_t>(i % 3) - 1);
        large.push_back(static_cast<int32_t>(i % 300));
        integers.push_back(i * 1000000007);
        numbers.push_back(static_cast<double>(i) / 3);
      }
      writer.append(block_of(first, count),
                    {.index = names("cell-é", first, count),
                     .columns = {names("t", first, count), few, large, integers, numbers}});
    }
    writer.write_var({{.name = "length", .kind = ColumnType::kInteger, .categories = {}}},
                     {.index = names("g", 0, 5), .columns = {std::vector<int64_t>{1, 2, 3, 4, 5}}});
    writer.write_uns("made", "by", std::string("a test"));
    writer.write_uns("made", "number", int64_t{3});
    EXPECT_EQ(writer.num_cells(), 1000);
    EXPECT_EQ(writer.stored_values(), 1800);
    writer.commit();
  }
  const AnnDataFile file(folder / "f.h5ad");
  EXPECT_EQ(file.obs_index(), names("cell-é", 0, 1000));
  EXPECT_EQ(file.obs_columns(), (Texts{"text", "few", "many", "integer", "number"}));
  EXPECT_EQ(file.obs_categories("few").codes[0], -1);
  EXPECT_EQ(file.obs_categories("many").codes[299], 299);
  EXPECT_EQ(file.obs_categories("many").categories, many);
  EXPECT_EQ(file.obs_numbers("integer")[999], 999 * 1000000007.0);
  EXPECT_EQ(file.obs_numbers("number")[1], 1.0 / 3);
  EXPECT_EQ(file.var_column("X", "length"), (Texts{"1", "2", "3", "4", "5"}));
  const auto matrix = file.open_matrix("X");
  const CellBlock read = matrix->read(0, 1000), expected = block_of(0, 1000);
  EXPECT_EQ(read.indptr, expected.indptr);
  EXPECT_EQ(read.genes, expected.genes);
  EXPECT_EQ(read.values, expected.values);
}

TEST(H5adWriter, ATableNeedsNoColumns) {
  const test::TempDir folder;
  H5adWriter writer(folder / "f.h5ad", {});
  writer.append(block_of(0, 4), {.index = names("c", 0, 4), .columns = {}});
  write_genes(writer);
  writer.commit();
  EXPECT_EQ(AnnDataFile(folder / "f.h5ad").obs_columns(), Texts{});
}

TEST(H5adWriter, WithoutACommitNothingAppearsAndAnOldFileStays) {
  const test::TempDir folder;
  write_file_atomically(folder / "f.h5ad", "old");
  {
    H5adWriter writer(folder / "f.h5ad", {});
    writer.append(block_of(0, 4), {.index = names("c", 0, 4), .columns = {}});
  }
  EXPECT_EQ(read_file(folder / "f.h5ad"), "old");
  EXPECT_EQ(entries_in(folder.path()), 1U);
}

TEST(H5adWriter, AFolderThatCannotBeWrittenIsNamed) {
  EXPECT_CONTAINS(test::message_of<DataError>([] { H5adWriter("/nonexistent/f.h5ad", {}); }),
                  "/nonexistent/f.h5ad: cannot create the file");
}

TEST(H5adWriter, AFullDiskIsOneErrorAndLeavesNothing) {
  const test::TempDir folder;
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on the size of files makes write() fail, as a full disk does
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 50'000, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string problem = test::message_of<DataError>([&] {
    H5adWriter writer(folder / "f.h5ad", {}, 0);
    for (int64_t first = 0; first < 100000; first += 1000)
      writer.append(block_of(first, 1000), {.index = names("c", first, 1000), .columns = {}});
    write_genes(writer);
    writer.commit();
  });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_CONTAINS(problem, "f.h5ad");
  EXPECT_CONTAINS(problem, "cannot write");
  EXPECT_EQ(entries_in(folder.path()), 0U);
}

TEST(H5adWriter, PartsThatDoNotFitTogetherAreOurOwnMistake) {
  const test::TempDir folder;
  H5adWriter writer(folder / "f.h5ad", {{.name = "c", .kind = ColumnType::kCategory, .categories = {"a"}}});
  const auto append = [&](int64_t cells, int64_t rows, std::vector<ColumnValues> columns) {
    writer.append(block_of(0, cells), {.index = names("c", 0, rows), .columns = std::move(columns)});
  };
  EXPECT_THROW(append(2, 3, {std::vector<int32_t>{0, 0, 0}}), InternalError);
  EXPECT_THROW(append(2, 2, {}), InternalError);
  EXPECT_THROW(append(2, 2, {std::vector<int32_t>{0}}), InternalError);
  EXPECT_THROW(append(2, 2, {std::vector<int32_t>{0, 1}}), InternalError) << "a code without category";
  EXPECT_THROW(append(2, 2, {std::vector<double>{0, 1}}), InternalError);
  EXPECT_THROW(writer.commit(), InternalError) << "no genes";
}

}  // namespace
}  // namespace scrna::data
