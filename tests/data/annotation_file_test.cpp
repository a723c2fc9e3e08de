// Classes of cells in a copy of a file; compare_finetune.py reads the same with anndata and scanpy.
#include "lib/data/annotation_file.h"

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/anndata.h"
#include "lib/data/h5ad_writer.h"
#include "lib/data/hdf5.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

constexpr int64_t kCells = 5000, kClasses = 3;  // more rows than are written at once
const std::vector<std::string> kNames = {"B", "T é", "none, \"x\""};

/// Row i: class i mod 3 has 0.5, the others 0.25; every seventh row is missing.
void rows_of(int64_t first, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t c = 0; c < kClasses; ++c)
      out[i * kClasses + c] = (first + i) % 7 == 6        ? std::numeric_limits<float>::quiet_NaN()
                              : (first + i) % kClasses == c ? 0.5F
                                                            : 0.25F;
}

class AnnotationFile : public testing::Test {
 protected:
  void SetUp() override {
    H5adWriter writer(input_, {{.name = "total", .kind = ColumnType::kInteger, .categories = {}}});
    CellBlock block;
    TableRows obs;
    std::vector<int64_t> totals;
    for (int64_t cell = 0; cell < kCells; ++cell) {
      block.genes.push_back(static_cast<int32_t>(cell % 2));
      block.values.push_back(1);
      block.indptr.push_back(cell + 1);
      obs.index.push_back("cell-" + std::to_string(cell));
      totals.push_back(cell);
    }
    obs.columns = {totals};
    writer.append(block, obs);
    writer.write_var({}, {.index = {"g0", "g1"}, .columns = {}});
    writer.commit();
  }
  [[nodiscard]] AnnotationTarget target(const std::string& key = "scrna_type") const {
    return {.input = input_, .output = output_, .key = key};
  }
  static AnnotationCounts write(const AnnotationTarget& to) {
    return write_annotations(to, kCells, kNames, rows_of, {{"settings_sha256", std::string("abc")}, {"step", int64_t{7}}});
  }

  test::TempDir folder_;
  const std::filesystem::path input_ = folder_ / "in.h5ad", output_ = folder_ / "out.h5ad";
};

TEST_F(AnnotationFile, ACopyHasClassesProbabilitiesAndTheRecord) {
  const std::string hash = sha256_of_file(input_);
  const AnnotationCounts counts = write(target());
  EXPECT_EQ(sha256_of_file(input_), hash);
  const AnnDataFile file(output_);
  EXPECT_EQ(file.obs_columns(), (std::vector<std::string>{"total", "scrna_type", "scrna_type_probability"}));
  const CategoryColumn column = file.obs_categories("scrna_type");
  EXPECT_EQ(column.categories, kNames);
  const std::vector<double> probabilities = file.obs_numbers("scrna_type_probability");
  std::vector<int64_t> sizes(kClasses);
  int64_t missing = 0;
  for (int64_t i = 0; i < kCells; ++i) {
    const auto row = static_cast<std::size_t>(i);
    const bool is_missing = i % 7 == 6;
    ASSERT_EQ(column.codes[row], is_missing ? -1 : i % kClasses);
    if (is_missing) {
      ASSERT_TRUE(std::isnan(probabilities[row]));
      ++missing;
    } else {
      ASSERT_EQ(probabilities[row], 0.5);
      ++sizes[static_cast<std::size_t>(i % kClasses)];
    }
  }
  EXPECT_EQ(counts.cells_of_class, sizes);
  EXPECT_EQ(counts.missing, missing);
  EXPECT_DOUBLE_EQ(counts.mean_probability, 0.5);
  const h5::Group root = h5::open_file(output_);
  std::vector<float> rows(kCells * kClasses), expected(kCells * kClasses);
  root.dataset("obsm/scrna_type_probabilities").read_rows(0, kCells, rows.data());
  rows_of(0, kCells, expected.data());
  for (std::size_t i = 0; i < rows.size(); ++i)
    ASSERT_TRUE(rows[i] == expected[i] || (std::isnan(rows[i]) && std::isnan(expected[i])));
  EXPECT_EQ(root.dataset("uns/scrna_type/classes").read_text(), kNames);
  EXPECT_EQ(root.dataset("uns/scrna_type/step").read_integers(), std::vector<int64_t>{7});
  EXPECT_EQ(read_annotation_settings(output_, "scrna_type"), "abc");
  EXPECT_EQ(read_annotation_settings(output_, "other"), std::nullopt);
  EXPECT_EQ(read_annotation_settings(input_, "scrna_type"), std::nullopt);
  EXPECT_EQ(file.obs_index(), AnnDataFile(input_).obs_index());
  EXPECT_EQ(file.obs_numbers("total"), AnnDataFile(input_).obs_numbers("total"));
}

TEST_F(AnnotationFile, TargetsThatCannotBeAreRefusedBeforeTheWork) {
  const auto message = [&](const AnnotationTarget& to) {
    return test::message_of<Error>([&] { check_annotation_target(to); });
  };
  EXPECT_EQ(message(target()), "nothing was thrown");
  EXPECT_CONTAINS(message({.input = input_, .output = input_, .key = "k"}), "is the input itself");
  EXPECT_CONTAINS(message({.input = input_, .output = folder_ / "no/out.h5ad", .key = "k"}), "there is no folder");
  for (const char* key : {"", "a/b", ".", "_index"}) EXPECT_CONTAINS(message(target(key)), "--key");
  write(target());
  EXPECT_CONTAINS(message({.input = output_, .output = folder_ / "b.h5ad", .key = "scrna_type"}), "has obs/scrna_type already");
  EXPECT_EQ(message({.input = output_, .output = folder_ / "b.h5ad", .key = "b"}), "nothing was thrown");
  const std::filesystem::path old = folder_ / "old.h5ad";
  {
    test::H5Builder file(old);
    file.numbers("obs", std::vector<int32_t>{1});
    file.numbers("var", std::vector<int32_t>{1});
  }
  EXPECT_CONTAINS(message({.input = old, .output = output_, .key = "k"}), "AnnData before 0.7");
}

TEST_F(AnnotationFile, AFullDiskOrAChangedInputLeavesNothing) {
  EXPECT_CONTAINS(test::message_of<DataError>([&] {
                    write_annotations(target(), kCells - 1, kNames, rows_of, {});
                  }), "has 5000 cells now");
  for (const rlim_t bytes : {rlim_t{1000}, rlim_t{60000}}) {
    rlimit before{};
    ::getrlimit(RLIMIT_FSIZE, &before);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message = test::message_of<DataError>([&] { write(target()); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_CONTAINS(message, "out.h5ad");
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1) << message;
  }
}

}  // namespace
}  // namespace scrna::data
