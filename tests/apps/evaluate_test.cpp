// scrna-train evaluate from outside: the table, the files, and errors in one sentence.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "lib/core/random.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using test::contains;
using test::expect_failure;
using test::scrna_train;

constexpr int64_t kCells = 120, kGenes = 12;

/// Three cell types with counts of their own genes, an embedding that knows them, one that does not, two donors.
class Evaluate : public testing::Test {
 protected:
  void SetUp() override {
    const RandomStream random(1, RandomPurpose::kSynthesize);
    std::vector<std::string> names, types, donors, genes;
    std::vector<float> counts, good, noise;
    std::vector<int32_t> columns;
    std::vector<int64_t> indptr{0};
    for (int64_t i = 0; i < kCells; ++i) {
      const int64_t type = i % 3;
      names.push_back(std::string("cell") + std::to_string(i));
      types.push_back(i == 0 ? "odd one" : std::string("type ") + static_cast<char>('A' + type));
      donors.push_back(i / 3 % 2 == 0 ? "d0" : "d1");
      for (int64_t g = 0; g < kGenes; ++g) {
        counts.push_back(static_cast<float>(1 + random.below(g % 3 == type ? 30 : 3, i * kGenes + g)));
        columns.push_back(static_cast<int32_t>(g));
      }
      indptr.push_back(static_cast<int64_t>(columns.size()));
      for (int64_t j = 0; j < 4; ++j) {
        const auto uniform = static_cast<float>(random.uniform(1'000'000 + i * 4 + j));
        good.push_back(uniform + (j == type ? 9.0F : 0.0F));
        noise.push_back(uniform);
      }
    }
    for (int64_t g = 0; g < kGenes; ++g) genes.push_back(std::string("G") + std::to_string(g));
    test::H5Builder file(cells_);
    file.attribute("/", "encoding-type", std::string("anndata"));
    file.table("obs", names, {"cell_type", "donor"});
    file.texts("obs/cell_type", types);
    file.texts("obs/donor", donors);
    file.table("var", genes);
    file.sparse("X", "csr_matrix", kCells, kGenes, counts, columns, indptr);
    file.group("obsm");
    file.numbers("obsm/X_good", good, {kCells, 4});
    file.numbers("obsm/X_noise", noise, {kCells, 4});
  }
  [[nodiscard]] test::ProcessResult evaluate(std::vector<std::string> words) const {
    words.insert(words.begin(), {"evaluate", "--bootstraps", "20"});
    words.push_back(cells_);
    return scrna_train(words);
  }

  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string();
};

TEST_F(Evaluate, EmbeddingsStandBesideTheBaselineInTableAndFiles) {
  const std::string out = (folder_ / "out").string();
  const auto result = evaluate({"--label", "cell_type", "--batch", "donor", "--embedding", "X_good", "--embedding",
                                cells_ + ":obsm/X_noise", "--out", out});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"119 of 120 cells, 3 labels of 'cell_type', 2 batches of 'donor'", "PCA of counts", "X_good",
                           "cells:X_noise", "Leiden NMI", "iLISI", "log-normalised counts of X"})
    EXPECT_TRUE(contains(result.out, part)) << "no '" << part << "' in " << result.out;
  EXPECT_TRUE(contains(result.err, "odd one (1)")) << result.err;
  const auto json = nlohmann::json::parse(read_file(out + "/evaluation.json"));
  ASSERT_EQ(json["embeddings"].size(), 3U);
  const auto metric = [&](int embedding, const char* name) { return json["embeddings"][embedding]["metrics"][name].get<double>(); };
  EXPECT_EQ(metric(0, "probe_accuracy"), 1) << "counts tell the types apart";
  EXPECT_EQ(metric(1, "knn_accuracy"), 1);
  EXPECT_EQ(metric(1, "leiden_nmi"), 1);
  EXPECT_LT(metric(2, "knn_accuracy"), 0.7);
  EXPECT_EQ(json["cells"]["left_out"]["rare_labels"], 1);
  for (const char* file : {"metrics.csv", "leiden.csv", "mmd.csv", "umap.csv", "report.html"})
    EXPECT_TRUE(contains(read_file(out + "/" + file), ",")) << file;
  const auto again = evaluate({"--label", "cell_type", "--batch", "donor", "--embedding", "X_good", "--embedding",
                               cells_ + ":obsm/X_noise"});
  EXPECT_EQ(again.out, result.out) << "the same numbers twice";
}

TEST_F(Evaluate, ASampleIsSaid) {
  const auto result = evaluate({"--label", "cell_type", "--max-cells", "90", "--min-label-cells", "5"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "90 cells are a random sample of 120 (--max-cells)")) << result.err;
  EXPECT_TRUE(contains(result.err, "obsm of")) << "what could be named: " << result.err;
}

TEST_F(Evaluate, MistakesAreOneSentence) {
  expect_failure(evaluate({"--label", "celltype"}), 3, {"has no column 'celltype'", "cell_type, donor"});
  expect_failure(evaluate({"--label", "cell_type", "--embedding", "X_goood"}), 3, {"did you mean 'X_good'"});
  expect_failure(evaluate({"--label", "cell_type", "--embedding", "other.h5ad"}), 2, {"FILE.h5ad:obsm/KEY"});
  expect_failure(evaluate({"--label", "cell_type", "--embedding", "none.h5ad:X"}), 3, {"none.h5ad"});
  expect_failure(evaluate({"--label", "cell_type", "--min-label-cells", "2"}), 2, {"--min-label-cells", "from 5"});
  expect_failure(evaluate({"--label", "cell_type", "--min-label-cells", "50"}), 3, {"0 labels with at least 50 cells"});
  expect_failure(evaluate({}), 2, {"--label"});
}

}  // namespace
}  // namespace scrna
