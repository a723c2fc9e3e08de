// CSR, CSC and dense matrices: values, and every kind of damage with the sentence it ends in.
#include <cmath>
#include <limits>
#include <string>
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
using test::Storage;
using test::write_small_file;
using Dense = std::vector<std::vector<float>>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Dense dense_of(const CellBlock& block, int64_t num_genes) {
  Dense rows;
  for (int64_t cell = 0; cell < block.num_cells(); ++cell) {
    std::vector<float> row(static_cast<std::size_t>(num_genes));
    int32_t last = -1;
    for (auto i = static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(cell)]);
         i < static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(cell) + 1]); ++i) {
      EXPECT_GT(block.genes[i], last) << "genes must ascend inside a cell";
      EXPECT_NE(block.values[i], 0) << "no zero may be stored";
      last = block.genes[i];
      row[static_cast<std::size_t>(last)] = block.values[i];
    }
    rows.push_back(row);
  }
  return rows;
}

// Reads X in blocks of every size and expects the same each time.
Dense read_all(const std::filesystem::path& path) {
  const AnnDataFile file(path);
  const auto matrix = file.open_matrix("X");
  const Dense whole = dense_of(matrix->read(0, matrix->num_cells()), matrix->num_genes());
  for (int64_t size = 1; size < matrix->num_cells(); ++size) {
    Dense pieces;
    for (int64_t first = 0; first < matrix->num_cells(); first += size) {
      const CellBlock block = matrix->read(first, std::min(size, matrix->num_cells() - first));
      EXPECT_EQ(block.first_cell, first);
      for (const auto& row : dense_of(block, matrix->num_genes())) pieces.push_back(row);
    }
    EXPECT_EQ(pieces, whole) << "blocks of " << size;
  }
  return whole;
}

template <class Damage>
Dense small_matrix_after(const Damage& damage) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", damage);
  return read_all(folder / "f.h5ad");
}

template <class Damage>
std::string problem_after(const Damage& damage) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", damage);
  return test::message_of<DataError>([&] { read_all(folder / "f.h5ad"); });
}

void make_csc(H5Builder& h5, const Storage& storage = {}) {
  h5.sparse<float, int32_t>("X", "csc_matrix", 4, 3, {1, 4, 3, 5, 2, 6}, {0, 3, 2, 3, 0, 3}, {0, 2, 4, 6},
                            storage);
}
void make_dense(H5Builder& h5, const Storage& storage = {}) {
  h5.numbers<float>("X", {1, 0, 2, 0, 0, 0, 0, 3, 0, 4, 5, 6}, {4, 3}, storage);
}

TEST(Matrix, TheThreeLayoutsGiveTheSameCellsHoweverStored) {
  for (const Storage& storage :
       {Storage{}, Storage{.chunk = {2}}, Storage{.chunk = {5}, .gzip = 4, .shuffle = true},
        Storage{.chunk = {100000}, .gzip = 1, .fletcher32 = true}}) {
    EXPECT_EQ(small_matrix_after([&](H5Builder& h5) { test::write_small_csr(h5, "X", storage); }),
              test::small_matrix());
    EXPECT_EQ(small_matrix_after([&](H5Builder& h5) { make_csc(h5, storage); }), test::small_matrix());
  }
  EXPECT_EQ(small_matrix_after([&](H5Builder& h5) { make_dense(h5); }), test::small_matrix());
  EXPECT_EQ(small_matrix_after([&](H5Builder& h5) {
              make_dense(h5, {.chunk = {3, 2}, .gzip = 4, .shuffle = true});
            }),
            test::small_matrix());
}

template <class T>
void expect_type_is_read(const std::string& name) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) { h5.numbers<T>("X/data", {1, 2, 3, 4, 5, 6}); });
  EXPECT_EQ(read_all(folder / "f.h5ad"), test::small_matrix()) << name;
  EXPECT_EQ(AnnDataFile(folder / "f.h5ad").open_matrix("X")->type_name(), name);
}

TEST(Matrix, EveryTypeOfNumberIsRead) {
  expect_type_is_read<int8_t>("int8");
  expect_type_is_read<uint8_t>("uint8");
  expect_type_is_read<int16_t>("int16");
  expect_type_is_read<uint16_t>("uint16");
  expect_type_is_read<int32_t>("int32");
  expect_type_is_read<uint32_t>("uint32");
  expect_type_is_read<int64_t>("int64");
  expect_type_is_read<uint64_t>("uint64");
  expect_type_is_read<float>("float32");
  expect_type_is_read<double>("float64");
}

TEST(Matrix, IndicesOfEveryWidthAreRead) {
  const auto with_indices = [](auto sample) {
    return small_matrix_after([&](H5Builder& h5) {
      h5.numbers<decltype(sample)>("X/indices", {0, 2, 1, 0, 1, 2});
      h5.numbers<decltype(sample)>("X/indptr", {0, 2, 2, 3, 6});
    });
  };
  EXPECT_EQ(with_indices(int8_t{}), test::small_matrix());
  EXPECT_EQ(with_indices(uint16_t{}), test::small_matrix());
  EXPECT_EQ(with_indices(uint32_t{}), test::small_matrix());
  EXPECT_EQ(with_indices(int64_t{}), test::small_matrix());
  EXPECT_EQ(with_indices(uint64_t{}), test::small_matrix());
}

TEST(Matrix, LargeIntegersAreRoundedToFloat32AndNeverWrapped) {
  const Dense rows = small_matrix_after([](H5Builder& h5) {
    h5.numbers<int64_t>("X/data", {16777217, -1, int64_t{1} << 40, std::numeric_limits<int64_t>::max(), 5,
                                   std::numeric_limits<int64_t>::min()});
  });
  EXPECT_EQ(rows[0][0], 16777216.0F);  // 2^24 + 1, to even
  EXPECT_EQ(rows[0][2], -1.0F);
  EXPECT_EQ(rows[2][1], 0x1p40F);
  EXPECT_EQ(rows[3][0], 0x1p63F);
  EXPECT_EQ(rows[3][2], -0x1p63F);
}

TEST(Matrix, ValuesThatAreNotFiniteComeThroughForTheVerdictToSee) {
  const Dense rows = small_matrix_after([](H5Builder& h5) {
    h5.numbers<double>("X/data", {1, std::numeric_limits<double>::infinity(), 1e300, -1e300, 5, 6});
  });
  EXPECT_EQ(rows[0][2], std::numeric_limits<float>::infinity());
  EXPECT_EQ(rows[2][1], std::numeric_limits<float>::infinity());
  EXPECT_EQ(rows[3][0], -std::numeric_limits<float>::infinity());
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    h5.numbers<float>("X/data", {kNan, 2, 3, 4, 5, 6});
  });
  EXPECT_TRUE(std::isnan(AnnDataFile(folder / "f.h5ad").open_matrix("X")->read(0, 1).values.at(0)));
}

TEST(Matrix, UnsortedRepeatedAndZeroEntriesAreCleaned) {
  const auto expected = Dense{{1, 0, 2}, {0, 0, 0}, {0, 3, 0}, {4, 5, 6}};
  EXPECT_EQ(small_matrix_after([](H5Builder& h5) {
              h5.sparse<float, int32_t>("X", "csr_matrix", 4, 3, {2, 1, 7, -7, 1, 0, 2, 6, 5, 4},
                                        {2, 0, 1, 1, 1, 0, 1, 2, 1, 0}, {0, 4, 4, 7, 10});
            }),
            expected);
  EXPECT_EQ(small_matrix_after([](H5Builder& h5) {
              h5.sparse<float, int32_t>("X", "csc_matrix", 4, 3, {4, 1, 5, 1, 2, 6, 0, 2},
                                        {3, 0, 3, 2, 2, 3, 1, 0}, {0, 2, 5, 8});
            }),
            expected);
}

TEST(Matrix, RepeatedEntriesAreCounted) {
  const auto repeated_in = [](const auto& write) {
    const test::TempDir folder;
    write_small_file(folder / "f.h5ad", write);
    return AnnDataFile(folder / "f.h5ad").open_matrix("X")->read(0, 4).num_repeated;
  };
  EXPECT_EQ(repeated_in([](H5Builder&) {}), 0);
  // cell 0: gene 1 three times (7 - 7 + 1); cell 3: gene 2 twice; entries out of order are no repeats
  EXPECT_EQ(repeated_in([](H5Builder& h5) {
              h5.sparse<float, int32_t>("X", "csr_matrix", 4, 3, {2, 7, -7, 1, 3, 4, 5, 3, 3},
                                        {2, 1, 1, 1, 1, 2, 0, 1, 2}, {0, 4, 4, 5, 9});
            }),
            3);
  EXPECT_EQ(repeated_in([](H5Builder& h5) {
              h5.sparse<float, int32_t>("X", "csc_matrix", 4, 3, {4, 1, 5, 1, 2, 6, 0, 2},
                                        {3, 0, 3, 2, 2, 3, 1, 0}, {0, 2, 5, 8});
            }),
            1);
}

TEST(Matrix, ASparseMatrixThatNamesNoLayoutIsKnownByItsIndptr) {
  EXPECT_EQ(small_matrix_after([](H5Builder& h5) { h5.remove_attribute("X", "encoding-type"); }),
            test::small_matrix());
  EXPECT_EQ(small_matrix_after([](H5Builder& h5) {
              h5.sparse<float, int32_t>("X", "csc_matrix", 4, 3, {1, 4, 3, 5, 2, 6}, {0, 3, 2, 3, 0, 3},
                                        {0, 2, 4, 6});
              h5.remove_attribute("X", "encoding-type");
            }),
            test::small_matrix());
}

TEST(Matrix, AShapeMayBeStoredAsRDoes) {
  EXPECT_EQ(small_matrix_after([](H5Builder& h5) {
              h5.remove_attribute("X", "shape");
              const hsize_t size = 2;
              const hid_t space = test::must(H5Screate_simple(1, &size, nullptr));
              const hid_t shape = test::must(H5Acreate_by_name(h5.file(), "X", "shape", H5T_NATIVE_DOUBLE,
                                                               space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
              const std::vector<double> sizes{4, 3};
              test::must(H5Awrite(shape, H5T_NATIVE_DOUBLE, sizes.data()));
              H5Aclose(shape);
              H5Sclose(space);
            }),
            test::small_matrix());
}

TEST(Matrix, AnEmptySparseMatrixHasCellsWithoutGenes) {
  for (const char* encoding : {"csr_matrix", "csc_matrix"}) {
    EXPECT_EQ(small_matrix_after([&](H5Builder& h5) {
                const std::vector<int64_t> indptr(encoding[2] == 'r' ? 5 : 4, 0);
                h5.sparse<float, int32_t>("X", encoding, 4, 3, {}, {}, indptr);
              }),
              (Dense(4, std::vector<float>(3, 0))));
  }
}

TEST(Matrix, AMatrixWithoutGenesCanBeRead) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    h5.texts("var/_index", {});
    h5.sparse<float, int32_t>("X", "csr_matrix", 4, 0, {}, {}, {0, 0, 0, 0, 0});
  });
  EXPECT_EQ(AnnDataFile(folder / "f.h5ad").open_matrix("X")->read(0, 4).genes.size(), 0U);
}

TEST(MatrixDamage, AnIndptrIsCheckedEntryByEntry) {
  const auto with_indptr = [](const std::vector<int64_t>& indptr) {
    return problem_after([&](H5Builder& h5) { h5.numbers<int64_t>("X/indptr", indptr); });
  };
  EXPECT_CONTAINS(with_indptr({0, 2, 2, 3}), "X/indptr: expected 5 entries");
  EXPECT_CONTAINS(with_indptr({}), "X/indptr: expected 5 entries");
  EXPECT_CONTAINS(with_indptr({1, 2, 2, 3, 6}), "must begin with 0, begins with 1");
  EXPECT_CONTAINS(with_indptr({0, 3, 2, 3, 6}), "must never fall, but entry 2 is 2 after 3");
  EXPECT_CONTAINS(with_indptr({0, -1, 2, 3, 6}), "must never fall, but entry 1 is -1 after 0");
  EXPECT_CONTAINS(with_indptr({0, 2, 2, 3, 5}), "ends with 5, but 6 entries are stored");
  EXPECT_CONTAINS(with_indptr({0, 2, 2, 3, 7}), "ends with 7, but 6 entries are stored");
  EXPECT_CONTAINS(with_indptr({0, 2, 2, std::numeric_limits<int64_t>::max(), 6}), "line 2 of the matrix has");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.numbers<uint64_t>("X/indptr", {0, 2, 2, 3, std::numeric_limits<uint64_t>::max()});
                  }),
                  "line 3 of the matrix has");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.numbers<double>("X/indptr", {0, 2, 2, 3, 6});
                  }),
                  "X/indptr: expected integers, got float64");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.numbers<int64_t>("X/indptr", {0, 2, 2, 3, 6}, {5, 1});
                  }),
                  "X/indptr: expected 5 entries");
}

TEST(MatrixDamage, IndicesOutsideTheMatrixAreRefused) {
  const auto with_indices = [](auto... values) {
    return problem_after([&](H5Builder& h5) { h5.numbers<int64_t>("X/indices", {int64_t{values}...}); });
  };
  EXPECT_CONTAINS(with_indices(0, 2, 3, 0, 1, 2), "X/indices: index 3 is outside 0..2 (there are 3 genes)");
  EXPECT_CONTAINS(with_indices(0, 2, -1, 0, 1, 2), "index -1 is outside 0..2");
  EXPECT_CONTAINS(with_indices(0, 2, int64_t{1} << 32, 0, 1, 2), "is outside 0..2");  // must not wrap to 0
  EXPECT_CONTAINS(with_indices(0, 2, 1), "X/data: has 6 entries, but indices has 3");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.numbers<float>("X/indices", {0, 2, 1, 0, 1, 2});
                  }),
                  "X/indices: expected integers, got float32");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    make_csc(h5);
                    h5.numbers<int32_t>("X/indices", {0, 4, 2, 3, 0, 3});
                  }),
                  "X/indices: index 4 is outside 0..3 (there are 4 cells)");
}

TEST(MatrixDamage, ACellWithFarMoreEntriesThanGenesIsRefused) {
  const std::string problem = problem_after([](H5Builder& h5) {
    h5.sparse<float, int32_t>("X", "csr_matrix", 4, 3, std::vector<float>(5000, 1),
                              std::vector<int32_t>(5000, 1), {0, 5000, 5000, 5000, 5000});
  });
  EXPECT_CONTAINS(problem, "X/indptr: line 0 of the matrix has 5000 entries, but there is room for 3");
}

TEST(MatrixDamage, TypesThatAreNotNumbersAreNamed) {
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.texts("X/data", {"1", "2", "3", "4", "5", "6"});
                  }),
                  "X/data: expected numbers, got text");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.remove("X");
                    h5.texts("X", {"a"});
                  }),
                  "expected a shape of two sizes");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    const hid_t opaque = H5Tcreate(H5T_OPAQUE, 4);
                    h5.remove("X/data");
                    H5Dclose(h5.declare("X/data", opaque, {6}));
                    H5Tclose(opaque);
                  }),
                  "X/data: expected numbers, got a type that is not supported");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    const hid_t complex = H5Tcreate(H5T_COMPOUND, 8);
                    H5Tinsert(complex, "r", 0, H5T_NATIVE_FLOAT);
                    H5Tinsert(complex, "i", 4, H5T_NATIVE_FLOAT);
                    h5.remove("X");
                    H5Dclose(h5.declare("X", complex, {4, 3}));
                    H5Tclose(complex);
                  }),
                  "X: expected numbers, got a compound type");
}

TEST(MatrixDamage, PartsThatAreMissingOrOfTheWrongKindAreNamed) {
  for (const std::string part : {"data", "indices", "indptr"}) {
    EXPECT_CONTAINS(problem_after([&](H5Builder& h5) { h5.remove("X/" + part); }),
                    "X/" + part + ": expected a data set, found nothing");
    EXPECT_CONTAINS(problem_after([&](H5Builder& h5) {
                      h5.remove("X/" + part);
                      h5.group("X/" + part);
                    }),
                    "X/" + part + ": expected a data set, found a group");
  }
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {  // as many cells as genes: its indptr does not tell
                    h5.texts("var/_index", {"G0", "G1", "G2", "G3"});
                    h5.attribute("X", "shape", std::vector<int64_t>{4, 4});
                    h5.remove_attribute("X", "encoding-type");
                  }),
                  "its encoding is missing");
  EXPECT_CONTAINS(
      problem_after([](H5Builder& h5) { h5.attribute("X", "encoding-type", std::string("coo_matrix")); }),
      "its encoding 'coo_matrix' is not one that can be read");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) { h5.remove_attribute("X", "shape"); }),
                  "expected a shape of two sizes, cells x genes, got none");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.attribute("X", "shape", std::vector<int64_t>{4, 3, 1});
                  }),
                  "got 3");
}

TEST(MatrixDamage, AShapeThatContradictsTheTablesIsRefused) {
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.texts("obs/_index", {"a", "b", "c"});
                  }),
                  "its shape is 4 x 3, but the file has 3 cells (obs) and 3 genes (var)");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.texts("var/_index", {"a", "b"});
                  }),
                  "and 2 genes (var)");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.attribute("X", "shape", std::vector<int64_t>{-4, 3});
                  }),
                  "its shape is -4 x 3");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.remove("X");
                    h5.numbers<float>("X", std::vector<float>(12), {3, 4});
                  }),
                  "its shape is 3 x 4");
  EXPECT_CONTAINS(problem_after([](H5Builder& h5) {
                    h5.remove("X");
                    h5.numbers<float>("X", std::vector<float>(12), {12});
                  }),
                  "expected a shape of two sizes");
}

TEST(MatrixDamage, ARangeOutsideTheMatrixIsOurOwnMistake) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad");
  const auto matrix = AnnDataFile(folder / "f.h5ad").open_matrix("X");
  EXPECT_THROW(static_cast<void>(matrix->read(-1, 1)), InternalError);
  EXPECT_THROW(static_cast<void>(matrix->read(3, 2)), InternalError);
  EXPECT_THROW(static_cast<void>(matrix->read(0, std::numeric_limits<int64_t>::max())), InternalError);
  EXPECT_EQ(matrix->read(4, 0).num_cells(), 0);
}

// More entries than one band holds, so that bands, their borders and their files all take part.
}  // namespace
}  // namespace scrna::data
