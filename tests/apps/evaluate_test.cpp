// scrna-train evaluate from outside: the table, the files, and errors in one sentence.
#include <cmath>
#include <filesystem>

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
    write(cells_, 1, "cell_type");
    write(other_, 2, "type");
  }
  /// A file whose labels stand in that column; a third of them is `first_type`.
  static void write(const std::string& path, uint64_t seed, const std::string& column,
                    const std::string& first_type = "type A") {
    const RandomStream random(seed, RandomPurpose::kSynthesize);
    std::vector<std::string> names, types, donors, genes;
    std::vector<float> counts, good, noise;
    std::vector<int32_t> columns;
    std::vector<int64_t> indptr{0};
    for (int64_t i = 0; i < kCells; ++i) {
      const int64_t type = i % 3;
      names.push_back(std::string("cell") + std::to_string(i));
      types.push_back(i == 0      ? "odd one"
                      : type == 0 ? first_type
                                  : std::string("type ") + static_cast<char>('A' + type));
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
    test::H5Builder file(path);
    file.attribute("/", "encoding-type", std::string("anndata"));
    file.table("obs", names, {column, "donor"});
    file.texts("obs/" + column, types);
    if (first_type == "nan") donors[1] = "<NA>";  // of type B
    file.texts("obs/donor", donors);
    file.table("var", genes);
    file.sparse("X", "csr_matrix", kCells, kGenes, counts, columns, indptr);
    file.group("obsm");
    file.numbers("obsm/X_good", good, {kCells, 4});
    file.numbers("obsm/X_noise", noise, {kCells, 4});
  }
  [[nodiscard]] test::ProcessResult evaluate(std::vector<std::string> words) const {
    words.push_back(cells_);
    return evaluate_files(words);
  }
  [[nodiscard]] static test::ProcessResult evaluate_files(std::vector<std::string> words) {
    words.insert(words.begin(), {"evaluate", "--bootstraps", "20"});
    return scrna_train(words);
  }
  /// A model of a few steps on the first file.
  [[nodiscard]] std::string train(const std::string& name, int seed) const {
    const std::string run = (folder_ / name).string(), config = (folder_ / (name + ".yaml")).string();
    write_file_atomically(config, test::small_model_config(cells_) + "run: {dir: " + run + "}\ntrain: {steps: 3, global_batch_cells: 8, "
                                      "device: cpu, seed: " + std::to_string(seed) + "}\noptim: {warmup_steps: 1}\nheldout: {every_steps: 0}\n");
    const auto result = scrna_train({"train", "--config", config});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return run;
  }

  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string();
  const std::string other_ = (folder_ / "other.h5ad").string();
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
  const auto json = nlohmann::json::parse(read_file(out + "/evaluation.json"))["data_sets"][0];
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

TEST_F(Evaluate, ASecondEvaluationLeavesNothingOfTheFirst) {
  const std::string out = (folder_ / "out").string();
  ASSERT_EQ(evaluate({"--label", "cell_type", "--batch", "donor", "--embedding", "X_good", "--out", out}).exit_code, 0);
  const auto figures = [&] {
    return std::distance(std::filesystem::directory_iterator(out + "/report-figures"), std::filesystem::directory_iterator());
  };
  const auto many = figures();
  const auto result = evaluate({"--label", "cell_type", "--no-umap", "--out", out});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_FALSE(std::filesystem::exists(out + "/umap.csv"));
  EXPECT_LT(figures(), many);
  EXPECT_FALSE(contains(read_file(out + "/evaluation.json"), "X_good"));
}

TEST_F(Evaluate, MistakesAreFoundBeforeAnythingIsMeasured) {
  const std::string file = (folder_ / "a file").string(), good = train("good", 1);
  write_file_atomically(file, "");
  const auto early = [](const test::ProcessResult& result, int code, const std::string& part) {
    expect_failure(result, code, {part});
    EXPECT_FALSE(contains(result.err, "metrics,") || contains(result.err, "embedding,")) << result.err;
  };
  early(evaluate({"--label", "cell_type", "--out", file}), 3, "cannot make the folder");
  early(evaluate({"--label", "cell_type", "--checkpoint", good, "--checkpoint", good + "-not"}), 2, "good-not");
  early(evaluate({"--label", "cell_type", "--embedding", "X_good", "--checkpoint", good, "--name", "X_good"}), 2,
        "both be called 'X_good'");
  test::H5Builder(other_, /*truncate=*/false).remove("obsm/X_noise");
  early(evaluate_files({"--label", "cell_type", "--label", "other.h5ad:type", "--embedding", "X_noise", cells_, other_}), 3,
        "has no obsm/X_noise");
}

TEST_F(Evaluate, TooFewCellsForTheNeighboursAreFoundBeforeAnythingIsMeasured) {
  const auto result = evaluate({"--label", "cell_type", "--max-cells", "17", "--min-label-cells", "5"});
  expect_failure(result, 3, {"cells.h5ad", "15 were asked for, but a cell has only 13 others"});
  EXPECT_FALSE(contains(result.err, "metrics,")) << result.err;
}

TEST_F(Evaluate, WordsForNoLabelAreLabelsButAreSaidAndMissingOnesAreNone) {
  write(other_, 2, "type", "Unknown");
  const auto unknown = evaluate_files({"--label", "type", other_});
  ASSERT_EQ(unknown.exit_code, 0) << unknown.err;
  EXPECT_TRUE(contains(unknown.err, "'Unknown' counts as a label of 'type'")) << unknown.err;
  EXPECT_TRUE(contains(unknown.err, "--exclude-label 'Unknown'")) << unknown.err;
  write(other_, 2, "type", "nan");
  const auto missing = evaluate_files({"--label", "type", other_});
  ASSERT_EQ(missing.exit_code, 0) << missing.err;
  EXPECT_TRUE(contains(missing.err, "39 of 120 cells have no 'type'")) << missing.err;
  EXPECT_FALSE(contains(missing.err, "counts as a label")) << missing.err;
  const auto batch = evaluate_files({"--label", "type", "--batch", "donor", other_});
  ASSERT_EQ(batch.exit_code, 0) << batch.err;
  EXPECT_TRUE(contains(batch.err, "1 cells have no 'donor'")) << batch.err;
}

TEST_F(Evaluate, ASampleIsSaid) {
  const auto result = evaluate({"--label", "cell_type", "--max-cells", "90", "--min-label-cells", "5"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "90 cells are a random sample of 120 (--max-cells)")) << result.err;
  EXPECT_TRUE(contains(result.err, "obsm of")) << "what could be named: " << result.err;
}

TEST_F(Evaluate, SeveralFilesHaveColumnsOfTheirOwnAndOneReport) {
  const std::string out = (folder_ / "out").string();
  const auto result = evaluate_files({"--label", "cell_type", "--label", "other.h5ad:type", "--batch", other_ + ":donor", "--embedding",
                                      "X_good", "--exclude-label", "other.h5ad:type C", "--exclude-label", "odd one", "--out", out,
                                      cells_, other_});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"cells.h5ad: 119 of 120 cells, 3 labels of 'cell_type'\n",
                           "other.h5ad: 79 of 120 cells, 2 labels of 'type', 2 batches of 'donor'"})
    EXPECT_TRUE(contains(result.out, part)) << "no '" << part << "' in " << result.out;
  const auto json = nlohmann::json::parse(read_file(out + "/evaluation.json"))["data_sets"];
  ASSERT_EQ(json.size(), 2U);
  EXPECT_EQ(json[0]["cells"]["left_out"]["excluded_labels"], 1);
  EXPECT_EQ(json[1]["cells"]["left_out"]["excluded_labels"], 41);
  EXPECT_TRUE(json[0]["cells"]["batch"].is_null());
  EXPECT_EQ(json[1]["embeddings"].size(), 2U);
  const std::string csv = read_file(out + "/metrics.csv");
  for (const char* line : {"cells,X_good,,knn_accuracy,1\n", "other,X_good,,knn_accuracy,1\n", "other,PCA of counts,,ilisi,"})
    EXPECT_TRUE(contains(csv, line)) << "no '" << line << "' in " << csv;
  const std::string page = read_file(out + "/report.html");
  for (const char* part : {"Embeddings of 2 data sets", "cells: UMAP", "other: separation of labels"})
    EXPECT_TRUE(contains(page, part)) << part;
  EXPECT_TRUE(std::filesystem::exists(out + "/report-figures/1-umap-0-batch.svg"));
}

TEST_F(Evaluate, SeedsOfAModelAreAGroupOnEveryDataSet) {
  const std::string first = train("first", 1), second = train("second", 2), out = (folder_ / "out").string();
  const auto result = evaluate_files({"--label", "cell_type", "--no-label", other_, "--group", "sig=" + first + "," + second,
                                      "--maskings", "2", "--out", out, cells_, other_});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"sig (n = 2)", "sig untrained (n = 2)", "sig 2 untrained", "by how common genes are", " +- ",
                           "other.h5ad: 120 of 120 cells, no label column", "was not measured"})
    EXPECT_TRUE(contains(result.out, part)) << "no '" << part << "' in " << result.out;
  EXPECT_TRUE(contains(result.err, "without labels (--no-label)")) << result.err;
  const auto json = nlohmann::json::parse(read_file(out + "/evaluation.json"));
  EXPECT_EQ(json["models"][1]["checkpoint"], second);
  for (const auto& set : json["data_sets"]) {
    ASSERT_EQ(set["embeddings"].size(), 5U);
    const auto loss = [&](int i) { return set["embeddings"][i]["masked_loss"]["mean"].get<double>(); };
    EXPECT_NE(loss(1), loss(3)) << "two seeds";
    const auto& group = set["groups"][0]["metrics"]["masked_loss"];
    EXPECT_NEAR(group["mean"].get<double>(), (loss(1) + loss(3)) / 2, 1e-12);
    EXPECT_NEAR(group["deviation"].get<double>(), std::abs(loss(1) - loss(3)) / std::sqrt(2.0), 1e-12);
  }
  EXPECT_TRUE(json["data_sets"][1]["groups"][0]["metrics"]["knn_accuracy"]["mean"].is_null());
  EXPECT_TRUE(contains(read_file(out + "/groups.csv"), "other,sig untrained,masked_loss,2,"));
  const auto named = evaluate({"--label", "cell_type", "--checkpoint", first, "--name", "mine", "--maskings", "0", "--no-umap",
                               "--set", "data.min_genes=2"});
  ASSERT_EQ(named.exit_code, 0) << named.err;
  EXPECT_TRUE(contains(named.out, "  mine  mine untrained")) << named.out;
}

TEST_F(Evaluate, MistakesAboutOneOfSeveralFilesNameIt) {
  expect_failure(evaluate_files({"--label", "cell_type", cells_, other_}), 3, {"other.h5ad", "has no column 'cell_type'", "type, donor"});
  expect_failure(evaluate_files({"--label", "cell_type", cells_, cells_}), 2, {"cells.h5ad is named twice"});
  expect_failure(evaluate_files({"--label", "cell_type", cells_, (folder_ / "." / "cells.h5ad").string()}), 2, {"is named twice"});
  expect_failure(evaluate_files({"--label", "cells.h5ad:cell_type", cells_, other_}), 2,
                 {"other.h5ad: no label column", "--label other.h5ad:COLUMN", "--no-label"});
  expect_failure(evaluate_files({"--label", "cell_type", "--label", "third.h5ad:type", cells_, other_}), 2,
                 {"third.h5ad is none of the data files", "other.h5ad"});
  expect_failure(evaluate_files({"--label", "cell_type", "--label", "donor", cells_}), 2, {"'cell_type' and 'donor'"});
  expect_failure(evaluate_files({"--label", "cell_type", "--no-label", "third.h5ad", cells_}), 2, {"third.h5ad"});
  expect_failure(evaluate_files({"--label", "cells.h5ad:cell_type", "--no-label", cells_, cells_}), 2, {"both --label"});
  expect_failure(evaluate_files({"--label", "cell_type", "--label", "other.h5ad:type", "--exclude-label", "tipe A", cells_, other_}), 3,
                 {"no value 'tipe A'", "did you mean 'type A'"});
  expect_failure(evaluate_files({"--label", "cell_type", "--label", "other.h5ad:type", "--embedding", other_ + ":obsm/X_good", cells_,
                                 other_}), 2, {"only KEY of their own obsm"});
  expect_failure(evaluate({"--label", "cell_type", "--group", "runs/a"}), 2, {"expected NAME=RUN,RUN"});
  expect_failure(evaluate({"--label", "cell_type", "--group", "a=x,,y"}), 2, {"between the commas"});
  expect_failure(evaluate({"--label", "cell_type", "--checkpoint", "a/x", "--checkpoint", "b/x"}), 2, {"both be called 'x'", "--name"});
  expect_failure(evaluate({"--label", "cell_type", "--checkpoint", "a/x", "--checkpoint", "b/x", "--name", "p"}), 2, {"--name stands 1"});
  expect_failure(evaluate({"--label", "cell_type", "--group", "a=x", "--checkpoint", "./x"}), 2, {"named twice"});
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
