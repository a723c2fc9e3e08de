// Embeddings in a copy of a file, or beside it; compare_embed.py reads the same with anndata and compares
// bytes.
#include "lib/data/embedding_file.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/anndata.h"
#include "lib/data/h5ad_writer.h"
#include "lib/data/hdf5.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

constexpr int64_t kCells = 5000, kWidth = 3;  // more rows than are written at once

class EmbeddingFile : public testing::Test {
 protected:
  void SetUp() override {
    H5adWriter writer(input_, {});
    CellBlock block;
    TableRows obs;
    for (int64_t cell = 0; cell < kCells; ++cell) {
      block.genes.push_back(static_cast<int32_t>(cell % 2));
      block.values.push_back(1);
      block.indptr.push_back(cell + 1);
      obs.index.push_back("cell-" + std::to_string(cell));
    }
    writer.append(block, obs);
    writer.write_var({}, {.index = {"g0", "g1"}, .columns = {}});
    writer.commit();
  }
  void write(const EmbeddingTarget& target) const {
    write_embeddings(target, kCells, kWidth,
                     [](int64_t first, int64_t count, float* out) {
                       for (int64_t i = 0; i < count * kWidth; ++i)
                         out[i] = static_cast<float>(first * kWidth + i);
                     },
                     {{"settings_sha256", std::string("abc")}, {"step", int64_t{7}}, {"rate", 0.5}});
  }
  [[nodiscard]] std::vector<float> rows_in(const std::filesystem::path& file, const std::string& key) const {
    const h5::Group root = h5::open_file(file);
    const h5::Dataset data = root.dataset("obsm/" + key);
    EXPECT_EQ(data.shape(), (std::vector<uint64_t>{kCells, kWidth}));
    std::vector<float> rows(kCells * kWidth);
    data.read_rows(0, kCells, rows.data());
    return rows;
  }
  static void expect_counting(const std::vector<float>& rows) {
    for (std::size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i], static_cast<float>(i));
  }

  test::TempDir folder_;
  const std::filesystem::path input_ = folder_ / "in.h5ad", output_ = folder_ / "out.h5ad";
};

TEST_F(EmbeddingFile, ACopyHasAllRowsInOrderAndTheRecord) {
  const std::string hash = sha256_of_file(input_);
  std::filesystem::permissions(input_,
                               std::filesystem::perms::owner_read);  // the copy is written all the same
  write({.input = input_, .output = output_});
  EXPECT_EQ(sha256_of_file(input_), hash);
  expect_counting(rows_in(output_, "X_scrna"));
  EXPECT_EQ(AnnDataFile(output_).num_cells(), kCells);
  EXPECT_EQ(read_settings(output_, "X_scrna"), "abc");
  EXPECT_EQ(read_settings(input_, "X_scrna"), std::nullopt);
  const h5::Group root = h5::open_file(output_);
  EXPECT_EQ(root.dataset("uns/scrna/step").read_integers(), std::vector<int64_t>{7});
  EXPECT_EQ(root.dataset("uns/scrna/rate").read_doubles(), std::vector<double>{0.5});
}

TEST_F(EmbeddingFile, BesideHasTheNamesAndNothingElse) {
  write({.input = input_, .output = output_, .key = "X_other", .beside = true});
  expect_counting(rows_in(output_, "X_other"));
  EXPECT_EQ(AnnDataFile(output_).obs_index(), AnnDataFile(input_).obs_index());
  EXPECT_FALSE(h5::open_file(output_).has("X"));
  EXPECT_EQ(read_settings(output_, "X_other"), "abc");
}

TEST_F(EmbeddingFile, TargetsThatCannotBeAreRefusedBeforeTheWork) {
  const auto message = [&](const EmbeddingTarget& target) {
    return test::message_of<Error>([&] { check_embedding_target(target); });
  };
  EXPECT_EQ(message({.input = input_, .output = output_}), "nothing was thrown");
  EXPECT_CONTAINS(message({.input = input_, .output = input_}), "is the input itself");
  EXPECT_CONTAINS(message({.input = input_, .output = folder_ / "no/out.h5ad"}), "there is no folder");
  for (const char* key : {"", "X_", "a/b", "."})
    EXPECT_CONTAINS(message({.input = input_, .output = output_, .key = key}), "--key");
  write({.input = input_, .output = output_});
  EXPECT_CONTAINS(message({.input = output_, .output = folder_ / "b.h5ad"}), "has obsm/X_scrna already");
  EXPECT_EQ(message({.input = output_, .output = folder_ / "b.h5ad", .key = "X_b"}), "nothing was thrown");
  EXPECT_EQ(message({.input = output_, .output = folder_ / "b.h5ad", .beside = true}), "nothing was thrown");
  std::ofstream(folder_ / "text.h5ad") << "no HDF5";
  EXPECT_CONTAINS(message({.input = folder_ / "text.h5ad", .output = output_}), "text.h5ad");
}

TEST_F(EmbeddingFile, AFullDiskLeavesNothing) {
  for (const rlim_t bytes : {rlim_t{1000}, rlim_t{40000}}) {
    rlimit before{};
    ::getrlimit(RLIMIT_FSIZE, &before);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message =
        test::message_of<DataError>([&] { write({.input = input_, .output = output_}); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_CONTAINS(message, "out.h5ad");
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1) << message;
  }
}

TEST_F(EmbeddingFile, WhatIsNoFileOfOursHasNoSettings) {
  std::ofstream(folder_ / "text.h5ad") << "no HDF5";
  EXPECT_EQ(read_settings(folder_ / "text.h5ad", "X_scrna"), std::nullopt);
  EXPECT_EQ(read_settings(folder_ / "none.h5ad", "X_scrna"), std::nullopt);
}

}  // namespace
}  // namespace scrna::data
