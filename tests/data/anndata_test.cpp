// The file as a whole: which matrices it has, what is refused at once, and that a file object outlives its
// moves.
#include "lib/data/anndata.h"

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
using test::write_small_file;
using Texts = std::vector<std::string>;

template <class Damage>
std::string problem_opening(const Damage& damage) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", damage);
  return test::message_of<DataError>([&] { return AnnDataFile(folder / "f.h5ad"); });
}

TEST(AnnDataFile, MatricesAreListedInAFixedOrder) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    test::write_small_csr(h5, "layers/spliced");
    test::write_small_csr(h5, "layers/counts");
    h5.table("raw/var", {"G0", "G1", "G2"});
    test::write_small_csr(h5, "raw/X");
  });
  EXPECT_EQ(AnnDataFile(folder / "f.h5ad").matrix_names(),
            (Texts{"X", "raw/X", "layers/counts", "layers/spliced"}));
}

TEST(AnnDataFile, RawHasGenesOfItsOwn) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    h5.table("raw/var", {"R0", "R1", "R2", "R3"});
    h5.sparse<float, int32_t>("raw/X", "csr_matrix", 4, 4, {9}, {3}, {0, 1, 1, 1, 1});
  });
  const AnnDataFile file(folder / "f.h5ad");
  EXPECT_EQ(file.var_index("raw/X"), (Texts{"R0", "R1", "R2", "R3"}));
  EXPECT_EQ(file.var_index("X"), (Texts{"G0", "G1", "G2"}));
  EXPECT_EQ(file.open_matrix("raw/X")->num_genes(), 4);
}

TEST(AnnDataFile, RawOfTheTimeBefore07IsFound) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    h5.table("raw.var", {"R0", "R1", "R2"});
    test::write_small_csr(h5, "raw.X");
    h5.remove_attribute("raw.X", "encoding-type");
    h5.remove_attribute("raw.X", "shape");
    h5.attribute("raw.X", "h5sparse_format", std::string("csr"));
    h5.attribute("raw.X", "h5sparse_shape", std::vector<int64_t>{4, 3});
  });
  const AnnDataFile file(folder / "f.h5ad");
  EXPECT_EQ(file.matrix_names(), (Texts{"X", "raw/X"}));
  EXPECT_EQ(file.open_matrix("raw/X")->read(3, 1).values, (std::vector<float>{4, 5, 6}));
}

TEST(AnnDataFile, AFileWithNothingToTrainOnIsRefused) {
  EXPECT_CONTAINS(problem_opening([](H5Builder& h5) { h5.remove("X"); }),
                  "has no matrix: neither X, nor raw/X, nor layers");
  EXPECT_CONTAINS(problem_opening([](H5Builder& h5) {
                    h5.remove("X");
                    h5.numbers<int8_t>("X", {0});
                    h5.attribute("X", "encoding-type", std::string("null"));
                  }),
                  "has no matrix");
  EXPECT_CONTAINS(problem_opening([](H5Builder& h5) {
                    h5.texts("obs/_index", {});
                    h5.sparse<float, int32_t>("X", "csr_matrix", 0, 3, {}, {}, {0});
                  }),
                  "has zero cells");
}

TEST(AnnDataFile, FormatsThatPeopleMistakeForAnnDataAreToldApart) {
  EXPECT_CONTAINS(problem_opening([](H5Builder& h5) { h5.group("mod"); }),
                  "is a MuData .h5mu file; write one modality");
  EXPECT_CONTAINS(problem_opening([](H5Builder& h5) {
                    h5.group("row_attrs");
                    h5.group("col_attrs");
                  }),
                  "is a loom file");
  const auto problem_with = [](const Texts& groups) {
    return problem_opening([&](H5Builder& h5) {
      for (const char* name : {"obs", "var", "X"}) h5.remove(name);
      for (const std::string& name : groups) h5.group(name);
    });
  };
  EXPECT_CONTAINS(problem_with({"barcode_idx", "umi"}), "is a 10x molecule_info.h5 file");
  EXPECT_CONTAINS(problem_with({"assays", "cell.names"}), "is an .h5Seurat file; convert it once, in R");
  EXPECT_CONTAINS(problem_opening([](H5Builder& h5) {
                    for (const char* name : {"obs", "var", "X"}) h5.remove(name);
                    h5.group("table");
                    h5.attribute("table", "pandas_type", std::string("frame"));
                  }),
                  "is a pandas HDFStore");
  EXPECT_CONTAINS(problem_with({"model_weights", "optimizer_weights"}),
                  "is an HDF5 file, but not AnnData: it lacks the tables 'obs' and 'var'; its root holds "
                  "model_weights, optimizer_weights. Expected an .h5ad file or a 10x .h5 file");
  EXPECT_CONTAINS(problem_opening([](H5Builder& h5) { h5.remove("var"); }),
                  "it lacks the table 'var'; its root holds X, obs. Expected");
}

TEST(AnnDataFile, AMatrixThatIsNotThereIsNamedWithTheNearestOne) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) { test::write_small_csr(h5, "layers/counts"); });
  const AnnDataFile file(folder / "f.h5ad");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return file.open_matrix("layers/count"); }),
                  "has no matrix 'layers/count'; did you mean 'layers/counts'? it has: X, layers/counts");
}

TEST(AnnDataFile, AMatrixOutlivesTheFileThatOpenedIt) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad");
  std::shared_ptr<const CountMatrix> matrix;
  {
    AnnDataFile file(folder / "f.h5ad");
    AnnDataFile moved = std::move(file);
    matrix = moved.open_matrix("X");
  }
  EXPECT_EQ(matrix->read(3, 1).values, (std::vector<float>{4, 5, 6}));
}

TEST(AnnDataFile, ALayerThatIsALinkElsewhereDoesNotSpoilTheOthers) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", [](H5Builder& h5) {
    h5.group("layers");
    h5.external_link("/etc/passwd", "/X", "layers/evil");
  });
  const AnnDataFile file(folder / "f.h5ad");
  EXPECT_EQ(file.open_matrix("X")->read(0, 1).values.size(), 2U);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return file.open_matrix("layers/evil"); }),
                  "is a link to another file, which is refused");
}

}  // namespace
}  // namespace scrna::data
