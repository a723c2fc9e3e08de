// All metrics of an embedding together, what of a file is evaluated, and the files that come of it.
#include <cmath>
#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/eval/evaluation.h"
#include "lib/eval/evaluation_data.h"
#include "lib/eval/evaluation_files.h"
#include "lib/eval/log_normalised.h"
#include "lib/eval/seed_groups.h"
#include "tests/eval/blobs.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/memory_matrix.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tolerance.h"

namespace scrna::eval {
namespace {

using test::H5Builder;
using test::make_blobs;

/// Six cells with counts, a cell type (one missing), a batch, and obsm.
class EvaluatedFile : public testing::Test {
 protected:
  void SetUp() override {
    test::TempDir& folder = folder_;
    H5Builder file(folder / "cells.h5ad");
    file.attribute("/", "encoding-type", std::string("anndata"));
    file.table("obs", {"a", "b", "c", "d", "e", "f"}, {"cell_type", "batch", "score"});
    file.texts("obs/cell_type", {"B", "T", "T", "B", "rare", "junk"});
    file.texts("obs/batch", {"x", "y", "x", "y", "x", "y"});
    file.numbers<float>("obs/score", {1, 2, 3, 4, 5, 6});
    file.table("var", {"G0", "G1", "G2"});
    file.sparse<float, int32_t>("X", "csr_matrix", 6, 3, {1, 2, 3, 4, 5, 6, 1, 9, 2}, {0, 1, 1, 2, 0, 2, 1, 0, 2},
                                {0, 2, 3, 4, 6, 7, 9});
    file.group("obsm");
    file.numbers<float>("obsm/X_two", {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {6, 2});
    const float none = std::nanf("");
    file.numbers<float>("obsm/X_wrong", {0, 1, none, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {6, 2});
    file.numbers<float>("obsm/X_part", {0, 1, none, none, 4, 5, 6, 7, 8, 9, 10, 11}, {6, 2});
    file.table("obsm/table", {"a", "b", "c", "d", "e", "f"});
  }
  [[nodiscard]] data::AnnDataFile open() const { return data::AnnDataFile(folder_ / "cells.h5ad"); }

  test::TempDir folder_;
};

TEST_F(EvaluatedFile, CellsWithoutAChosenLabelAreLeftOutAndCounted) {
  const LabelledCells chosen = choose_cells(
      open(), {.label = "cell_type", .batch = "batch", .excluded_labels = {"junk"}, .min_label_cells = 2});
  EXPECT_EQ(chosen.cells, (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(chosen.labels.names, (std::vector<std::string>{"B", "T"}));
  EXPECT_EQ(chosen.labels.codes, (std::vector<int32_t>{0, 1, 1, 0}));
  EXPECT_EQ(chosen.batches->codes, (std::vector<int32_t>{0, 1, 0, 1}));
  EXPECT_EQ(chosen.excluded, 1);
  EXPECT_EQ(chosen.rare_labels, std::vector<std::string>{"rare (1)"});
  EXPECT_EQ(chosen.file_cells, 6);
}

TEST_F(EvaluatedFile, ASampleHasItsSizeAndIsAFunctionOfTheSeed) {
  const CellChoice choice{.label = "cell_type", .min_label_cells = 1, .max_cells = 4, .seed = 3};
  const LabelledCells chosen = choose_cells(open(), choice);
  EXPECT_EQ(chosen.cells.size(), 4U);
  EXPECT_EQ(chosen.not_sampled, 2);
  EXPECT_EQ(chosen.cells, choose_cells(open(), choice).cells);
}

TEST_F(EvaluatedFile, WrongColumnsAndLabelsAreNamed) {
  const auto message = [&](const CellChoice& choice) { return test::message_of<DataError>([&] { choose_cells(open(), choice); }); };
  EXPECT_CONTAINS(message({.label = "celltype"}), "did you mean 'cell_type'");
  EXPECT_CONTAINS(message({.label = "celltype"}), "columns: cell_type, batch, score");
  EXPECT_CONTAINS(message({.label = "score"}), "expected a column of categories");
  EXPECT_CONTAINS(message({.label = "cell_type", .excluded_labels = {"jink"}}), "did you mean 'junk'");
  EXPECT_CONTAINS(message({.label = "cell_type", .min_label_cells = 5}), "too rare: B (2), T (2), rare (1), junk (1)");
}

TEST_F(EvaluatedFile, EmbeddingsAreThoseOfTheChosenCells) {
  const CellMatrix rows = read_embedding(open(), parse_embedding_place("X_two"), {1, 5});
  EXPECT_EQ(rows.values, (std::vector<double>{2, 3, 10, 11}));
  const auto message = [&](const std::string& place) {
    return test::message_of<DataError>([&] { read_embedding(open(), parse_embedding_place(place), {0}); });
  };
  EXPECT_CONTAINS(message("X_tow"), "did you mean 'X_two'");
  EXPECT_CONTAINS(message("X_tow"), "obsm holds X_part, X_two, X_wrong, table");
  EXPECT_CONTAINS(message("obsm/X_wrong"), "1 of 6 rows have some values that are not finite (first: row 1)");
  EXPECT_CONTAINS(message("table"), "is a dataframe");
}

TEST_F(EvaluatedFile, CellsWithoutAnEmbeddingAreLeftOutOfAllOfThem) {
  const CellChoice choice{.label = "cell_type", .excluded_labels = {"junk"}, .min_label_cells = 1};
  LabelledCells chosen = choose_cells(open(), choice);
  std::vector<NamedEmbedding> embeddings;
  for (const char* key : {"X_part", "X_two"})
    embeddings.push_back({key, read_embedding(open(), parse_embedding_place(key), chosen.cells)});
  leave_out_missing(chosen, embeddings, choice);
  EXPECT_EQ(chosen.cells, (std::vector<int64_t>{0, 2, 3, 4}));
  EXPECT_EQ(chosen.without_embedding, 1);
  EXPECT_EQ(chosen.labels.codes, (std::vector<int32_t>{0, 1, 0, 2}));
  EXPECT_EQ(embeddings[1].values.values, (std::vector<double>{0, 1, 4, 5, 6, 7, 8, 9}));
}

TEST_F(EvaluatedFile, WithoutALabelColumnAllCellsAreTaken) {
  const CellChoice choice{.batch = "batch", .min_label_cells = 100};
  LabelledCells chosen = choose_cells(open(), choice);
  EXPECT_EQ(chosen.cells.size(), 6U);
  EXPECT_EQ(chosen.labels.names, std::vector<std::string>{"all cells"});
  EXPECT_EQ(chosen.batches->codes, (std::vector<int32_t>{0, 1, 0, 1, 0, 1}));
  std::vector<NamedEmbedding> embeddings = {{"X_part", read_embedding(open(), parse_embedding_place("X_part"), chosen.cells)}};
  leave_out_missing(chosen, embeddings, choice);
  EXPECT_EQ(chosen.cells, (std::vector<int64_t>{0, 2, 3, 4, 5})) << "nothing is too rare";
  embeddings[0].values.values.assign(embeddings[0].values.values.size(), std::nan(""));
  EXPECT_CONTAINS(test::message_of<DataError>([&] { leave_out_missing(chosen, embeddings, choice); }), "nothing is left to compare");
}

TEST_F(EvaluatedFile, ALabelThatBecomesTooRareWithoutThemIsLeftOutToo) {
  const CellChoice choice{.label = "cell_type", .excluded_labels = {"junk"}, .min_label_cells = 2};
  LabelledCells chosen = choose_cells(open(), choice);
  std::vector<NamedEmbedding> embeddings = {{"X_part", read_embedding(open(), parse_embedding_place("X_part"), chosen.cells)}};
  EXPECT_CONTAINS(test::message_of<DataError>([&] { leave_out_missing(chosen, embeddings, choice); }), "T (1)");
}

TEST_F(EvaluatedFile, EmbeddingsOfAnotherFileAreFoundByTheNamesOfCells) {
  const std::string other = (folder_ / "other.h5ad").string();
  const auto write = [&](const std::vector<std::string>& names) {
    H5Builder file(other);
    file.attribute("/", "encoding-type", std::string("anndata"));
    file.table("obs", names);
    file.table("var", {"G0"});
    file.sparse<float, int32_t>("X", "csr_matrix", 6, 1, {1}, {0}, {0, 1, 1, 1, 1, 1, 1});
    file.group("obsm");
    file.numbers<float>("obsm/X", {10, 11, 12, 13, 14, 15}, {6, 1});
  };
  const EmbeddingPlace place = parse_embedding_place(other + ":obsm/X");
  write({"f", "e", "d", "c", "b", "a"});
  EXPECT_EQ(read_embedding(open(), place, {0, 1, 5}).values, (std::vector<double>{15, 14, 10}));
  write({"f", "e", "d", "c", "b", "other"});
  EXPECT_CONTAINS(test::message_of<DataError>([&] { read_embedding(open(), place, {0, 1}); }), "no embedding of 1 of the 2 cells");
  write({"f", "e", "d", "c", "f", "a"});
  EXPECT_CONTAINS(test::message_of<DataError>([&] { read_embedding(open(), place, {0}); }), "'f' occurs twice");
}

TEST(EmbeddingPlace, IsAKeyOrAFileAndAKey) {
  EXPECT_EQ(parse_embedding_place("obsm/X_pca").key, "X_pca");
  EXPECT_EQ(parse_embedding_place("a/b.h5ad:obsm/X").file, "a/b.h5ad");
  EXPECT_EQ(parse_embedding_place("a/b.h5ad:/obsm/X").key, "X");
  for (const char* wrong : {"b.h5ad", ":X", "b.h5ad:", ""})
    EXPECT_CONTAINS(test::message_of<ConfigError>([&] { parse_embedding_place(wrong); }), "expected KEY");
}

TEST_F(EvaluatedFile, TheBaselineHasARowForEachChosenCell) {
  const Baseline baseline = make_baseline(open(), "auto", {0, 2, 3, 5});
  ASSERT_TRUE(baseline.scores.has_value()) << baseline.problem;
  EXPECT_EQ(baseline.scores->cells, 4);
  EXPECT_EQ(baseline.matrix, "X");
  EXPECT_FALSE(baseline.was_normalised);
}

TEST(LogNormalised, ComponentsAreThoseOfLogarithmsOfSharesOfCounts) {
  // Two genes vary; shares 1/4 and 3/4 of 4 counts -> logs of 1 + 1, 1 + 3.
  const test::MemoryMatrix matrix(2, {{{0, 1}, {1, 3}}, {{0, 30}, {1, 10}}, {{0, 2}, {1, 6}}});
  const CellMatrix scores = log_normalised_components(matrix, std::vector<int64_t>{0, 1, 2}, {.counts_per_cell = 4});
  const double step = std::log(2.0) * std::sqrt(2.0);  // log 4 - log 2 along both genes
  EXPECT_NEAR(std::abs(scores.row(0)[0] - scores.row(1)[0]), step, test::kFloat64Metric);
  EXPECT_NEAR(scores.row(0)[0], scores.row(2)[0], test::kFloat64Metric) << "depth does not matter";
}

TEST(LogNormalised, VariableGenesStandOutAmongGenesOfTheirMean) {
  std::vector<double> means, variances;
  for (int g = 0; g < 200; ++g) {
    means.push_back(g == 0 ? 0 : 5 + 0.02 * g);
    variances.push_back(means.back() * (g % 50 == 7 ? 9 : 1 + 0.01 * (g % 3)));
  }
  EXPECT_EQ(variable_genes(means, variances, 4), (std::vector<int32_t>{7, 57, 107, 157}));
  EXPECT_EQ(variable_genes(means, variances, 500).size(), 199U) << "a gene without counts is none";
}

class EvaluatedBlobs : public testing::Test {
 protected:
  EvaluatedBlobs() {
    options_.separation.num_resamples = 20;
    options_.resolutions = {0.2, 1};
  }
  [[nodiscard]] Evaluation evaluate(const test::Blobs& blobs) const {
    return evaluate_embedding("blobs, \"quoted\"", blobs.matrix, blobs.labels, &blobs.batches, options_);
  }
  EvaluationOptions options_;
};

TEST_F(EvaluatedBlobs, ThatAreApartHaveTheBestScoresAndNoiseHasNot) {
  const Evaluation apart = evaluate(make_blobs(4, 40, 12)), noise = evaluate(make_blobs(4, 40, 0));
  EXPECT_NEAR(apart.best.nmi, 1, test::kFloat64Metric);
  EXPECT_NEAR(apart.best.ari, 1, test::kFloat64Metric);
  EXPECT_EQ(apart.neighbours.accuracy, 1);
  EXPECT_EQ(apart.probe.macro_f1, 1);
  EXPECT_GT(apart.silhouette_scaled, 0.8);
  EXPECT_GT(apart.batch->silhouette, 0.9);
  EXPECT_EQ(apart.separation.size(), 6U);
  EXPECT_EQ(apart.umap.cells, 160);
  for (const MetricRow& row : metric_rows()) {
    EXPECT_TRUE(std::isfinite(row.value(apart))) << row.name;
    if (row.name == "batch_silhouette" || row.name == "ilisi") continue;  // they do not know the labels
    EXPECT_GT(row.value(apart), row.value(noise)) << row.name;
  }
}

/// A data set of these blobs with nothing measured yet.
DataSetReport data_set_of(const test::Blobs& blobs, const std::string& name) {
  DataSetReport set;
  set.name = name;
  set.file = name + ".h5ad";
  set.choice = {.label = "cell_type", .batch = "donor"};
  set.cells.labels = blobs.labels;
  set.cells.batches = blobs.batches;
  set.cells.file_cells = 70;
  for (int64_t i = 0; i < blobs.matrix.cells; ++i) {
    set.cells.cells.push_back(i);
    set.cell_names.push_back(fmt::format("cell{}", i));
  }
  return set;
}

TEST_F(EvaluatedBlobs, BecomeATableJsonAndCsv) {
  const test::Blobs blobs = make_blobs(3, 20, 8);
  EvaluationReport report;
  report.options = options_;
  report.data_sets.push_back(data_set_of(blobs, "cells"));
  report.data_sets[0].evaluations.push_back(evaluate(blobs));
  const std::string table = evaluation_table(report);
  for (const char* part : {"60 of 70 cells, 3 labels of 'cell_type', 2 batches of 'donor'", "Leiden NMI", "iLISI", "1.0000"})
    EXPECT_CONTAINS(table, part);
  const auto json = nlohmann::json::parse(evaluation_json(report))["data_sets"][0];
  EXPECT_EQ(json["embeddings"][0]["metrics"]["leiden_nmi"], report.data_sets[0].evaluations[0].best.nmi);
  EXPECT_EQ(json["embeddings"][0]["mmd"].size(), 3U);
  EXPECT_EQ(json["cells"]["labels"]["type 1"], 20);
  EXPECT_CONTAINS(metrics_csv(report), "cells,\"blobs, \"\"quoted\"\"\",,leiden_nmi,1\n");
  EXPECT_CONTAINS(mmd_csv(report), "type 0,type 1,20,20,");
  test::TempDir folder;
  write_evaluation(folder / "out", report);
  EXPECT_CONTAINS(read_file(folder / "out/umap.csv"), "\ncells,cell7,type 1,first,");
  EXPECT_EQ(read_file(folder / "out/evaluation.json"), evaluation_json(report));
  EXPECT_FALSE(std::filesystem::exists(folder / "out/groups.csv")) << "no groups, no file";
}

TEST_F(EvaluatedBlobs, OfSeveralDataSetsStandInOneReportAndGroupsAsMeanAndDeviation) {
  const test::Blobs blobs = make_blobs(3, 20, 1);
  EvaluationReport report;
  report.options = options_;
  for (const char* name : {"first", "second"}) {
    DataSetReport set = data_set_of(blobs, name);
    for (const double loss : {2.0, 5.0}) {
      set.evaluations.push_back(evaluate(blobs));
      set.evaluations.back().name = fmt::format("{} run {}", name, loss);
      set.evaluations.back().group = "run";
      set.evaluations.back().loss = MaskedLoss{.mean = loss, .half_width = 0.1, .uniform = 7, .gene_frequency = 6, .maskings = 15};
    }
    set.evaluations.push_back(evaluate(blobs));
    report.data_sets.push_back(std::move(set));
  }
  const auto json = nlohmann::json::parse(evaluation_json(report));
  ASSERT_EQ(json["data_sets"].size(), 2U);
  const auto& group = json["data_sets"][1]["groups"][0];
  EXPECT_EQ(group["group"], "run");
  EXPECT_EQ(group["members"], nlohmann::json::parse(R"(["second run 2", "second run 5"])"));
  EXPECT_EQ(group["metrics"]["masked_loss"]["mean"], 3.5);
  EXPECT_NEAR(group["metrics"]["masked_loss"]["deviation"].get<double>(), std::sqrt(4.5), test::kFloat64Metric);
  EXPECT_EQ(group["metrics"]["leiden_nmi"]["deviation"], 0) << "the same embedding twice";
  EXPECT_CONTAINS(groups_csv(report), "second,run,masked_loss,2,3.5,2.12132034\n");
  EXPECT_CONTAINS(metrics_csv(report), "first,first run 2,run,masked_loss_gene_frequency,6\n");
  EXPECT_CONTAINS(evaluation_table(report), "run (n = 2)");
  EXPECT_CONTAINS(evaluation_table(report), "3.5000 +- 2.1213");
  const std::string places = umap_csv(report);
  EXPECT_CONTAINS(places, "data_set,cell,label,batch,first run 2 x");
  EXPECT_CONTAINS(places, "\nsecond,cell0,type 0,first,,,,,") << "the second has no embeddings of the first's names";
}

TEST_F(EvaluatedBlobs, WithoutLabelsHaveClustersAndMixingAndNothingThatNeedsLabels) {
  const test::Blobs blobs = make_blobs(3, 40, 12);
  const Evaluation out = evaluate_unlabelled("blobs", blobs.matrix, &blobs.batches, options_);
  EXPECT_EQ(out.leiden[0].clusters, 3) << "blobs that are apart";
  EXPECT_EQ(out.umap.cells, 120);
  EXPECT_EQ(out.batch->ilisi, evaluate(blobs).batch->ilisi);
  for (const MetricRow& row : metric_rows()) EXPECT_EQ(std::isfinite(row.value(out)), row.name == "ilisi") << row.name;
  EvaluationReport report;
  report.options = options_;
  report.data_sets.push_back(data_set_of(blobs, "cells"));
  report.data_sets[0].choice.label.clear();
  report.data_sets[0].evaluations.push_back(out);
  EXPECT_CONTAINS(evaluation_table(report), "no label column");
  EXPECT_CONTAINS(evaluation_table(report), "accuracies, MMD, graph connectivity) was not measured");
  const auto json = nlohmann::json::parse(evaluation_json(report))["data_sets"][0];
  EXPECT_TRUE(json["cells"]["label"].is_null());
  EXPECT_TRUE(json["embeddings"][0]["metrics"]["knn_accuracy"].is_null());
  EXPECT_EQ(json["embeddings"][0]["leiden"][0]["clusters"], 3);
}

TEST(MeanDeviation, IsOfTheNumbersThatExist) {
  const double none = std::nan("");
  const MeanDeviation three = mean_deviation({1, none, 2, 6});
  EXPECT_EQ(three.runs, 3);
  EXPECT_EQ(three.mean, 3);
  EXPECT_NEAR(three.deviation, std::sqrt(7.0), test::kFloat64Metric);
  EXPECT_EQ(mean_deviation({4}).mean, 4);
  EXPECT_TRUE(std::isnan(mean_deviation({4}).deviation)) << "one run has none";
  EXPECT_TRUE(std::isnan(mean_deviation({none}).mean));
}

TEST_F(EvaluatedBlobs, AreTheSameTwice) {
  const test::Blobs blobs = make_blobs(3, 30, 2);
  const Evaluation first = evaluate(blobs), second = evaluate(blobs);
  for (const MetricRow& row : metric_rows()) EXPECT_EQ(row.value(first), row.value(second)) << row.name;
  EXPECT_EQ(first.umap.values, second.umap.values);
}

}  // namespace
}  // namespace scrna::eval
