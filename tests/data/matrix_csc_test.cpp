// Turning CSC into CSR in a temporary file: several bands, several readers, no space. Small CSC matrices and
// damage to them are in matrix_test.cpp.
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/anndata.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using test::write_small_file;

TEST(CscMatrix, SeveralBandsGiveWhatTheRowsHold) {
  const int64_t num_cells = 3000, num_genes = 3100;  // 4.65 million entries; a band has 4.2 million
  std::vector<float> data;
  std::vector<int32_t> indices;
  std::vector<int64_t> indptr{0};
  const auto is_stored = [&](int64_t cell, int64_t gene) { return (cell * 31 + gene * 17) % 2 == 0; };
  const auto value = [](int64_t cell, int64_t gene) {
    return static_cast<float>(1 + (cell * 7 + gene * 3) % 1000);
  };
  for (int64_t gene = 0; gene < num_genes; ++gene) {
    for (int64_t cell = 0; cell < num_cells; ++cell) {
      if (!is_stored(cell, gene)) continue;
      data.push_back(value(cell, gene));
      indices.push_back(static_cast<int32_t>(cell));
    }
    indptr.push_back(std::ssize(data));
  }
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5ad");
    h5.table("obs", std::vector<std::string>(static_cast<std::size_t>(num_cells), "c"));
    h5.table("var", std::vector<std::string>(static_cast<std::size_t>(num_genes), "g"));
    h5.sparse<float, int32_t>("X", "csc_matrix", num_cells, num_genes, data, indices, indptr);
  }
  const auto matrix = AnnDataFile(folder / "f.h5ad").open_matrix("X");
  std::vector<std::jthread> readers;  // the first read turns the matrix; all others wait for it
  std::vector<int64_t> wrong(2, 0);
  for (std::size_t reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&, reader] {
      for (int64_t first = static_cast<int64_t>(reader) * 61; first < num_cells; first += 122) {
        const int64_t count = std::min<int64_t>(61, num_cells - first);
        const CellBlock block = matrix->read(first, count);
        for (int64_t cell = 0; cell < count; ++cell) {
          auto at = static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(cell)]);
          for (int64_t gene = 0; gene < num_genes; ++gene) {
            if (!is_stored(first + cell, gene)) continue;
            if (block.genes.at(at) != gene || block.values.at(at) != value(first + cell, gene))
              ++wrong[reader];
            ++at;
          }
          if (static_cast<int64_t>(at) != block.indptr[static_cast<std::size_t>(cell) + 1]) ++wrong[reader];
        }
      }
    });
  }
  readers.clear();
  EXPECT_EQ(wrong, (std::vector<int64_t>{0, 0}));
}

TEST(CscMatrix, WithoutTemporarySpaceTheErrorNamesAWayOut) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    h5.sparse<float, int32_t>("X", "csc_matrix", 4, 3, {1, 4, 3, 5, 2, 6}, {0, 3, 2, 3, 0, 3}, {0, 2, 4, 6});
  });
  const auto matrix = AnnDataFile(folder / "f.h5ad").open_matrix("X");
  const char* before = std::getenv("TMPDIR");
  const std::string kept = before != nullptr ? before : "";
  ::setenv("TMPDIR", "/nonexistent", 1);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return matrix->read(0, 1); }),
                  "/nonexistent: cannot create a temporary file there");
  before != nullptr ? ::setenv("TMPDIR", kept.c_str(), 1) : ::unsetenv("TMPDIR");
  EXPECT_EQ(matrix->read(0, 1).values, (std::vector<float>{1, 2})) << "a later attempt must succeed";
}

}  // namespace
}  // namespace scrna::data
