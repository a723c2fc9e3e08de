// scrna-train inspect on good and damaged files. The numbers themselves are compared with the anndata package
// by compare_inspect.py; here: that they are there, in the right place, with the right exit code.
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/data/h5ad_writer.h"
#include "lib/data/vocabulary.h"
#include "tests/apps/damage.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using nlohmann::json;
using test::contains;
using test::expect_failure;
using test::OpenFile;
using test::scrna_train;

class Inspect : public ::testing::Test {
 protected:
  void SetUp() override { test::synthesize_small(path_); }
  const test::TempDir folder_;
  const std::string path_ = (folder_ / "cells.h5ad").string();
};

TEST_F(Inspect, JsonHasTheDocumentedKeysAndNothingElseIsOnStandardOutput) {
  const auto result = scrna_train({"inspect", "--json", path_});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report.at("cells"), 60);
  EXPECT_EQ(report.at("genes"), 50);
  EXPECT_EQ(report.at("matrix"), "X");
  EXPECT_EQ(report.at("is_counts"), true);
  EXPECT_EQ(report.at("gene_id_type"), "ensembl");
  EXPECT_GT(report.at("stored_values"), 0);
  EXPECT_GE(report.at("total_counts"), report.at("stored_values"));
  for (const char* key : {"min", "median", "mean", "max"})
    EXPECT_TRUE(report.at("expressed_genes").at(key).is_number()) << key;
  EXPECT_EQ(report.at("obs_columns").size(), 4U);
}

TEST_F(Inspect, SeveralFilesAreAnArrayAndAnUnreadableOneAmongThemIsNamed) {
  const std::string missing = (folder_ / "missing.h5ad").string();
  const auto result = scrna_train({"inspect", "--json", path_, missing, path_});
  EXPECT_EQ(result.exit_code, 3);
  const json reports = json::parse(result.out);
  ASSERT_EQ(reports.size(), 3U);
  EXPECT_EQ(reports[0].at("cells"), 60);
  EXPECT_EQ(reports[1].at("path"), missing);
  EXPECT_TRUE(reports[1].contains("error"));
  EXPECT_EQ(reports[2].at("cells"), 60) << "what follows an unreadable file is still reported";
  EXPECT_TRUE(contains(result.err, missing)) << result.err;
}

TEST_F(Inspect, TheTextNamesTheNextCommand) {
  const auto result = scrna_train({"inspect", path_, "--max-tokens", "16"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"60 cells x 50 genes", "cell_type", "expressed genes", "16 tokens cut",
                           "For training:", "Next: scrna-train train --config"}) {
    EXPECT_TRUE(contains(result.out, part)) << part << "\n" << result.out;
  }
}

TEST_F(Inspect, AVocabularyAndAMapShowWhatAModelWouldKnow) {
  // All counts of the file lie in genes of the map; the vocabulary knows one of them.
  const json plain = json::parse(scrna_train({"inspect", "--json", path_}).out);
  const std::string known = plain.at("gene_id_examples")[0], other = plain.at("gene_id_examples")[1];
  const std::string vocabulary = (folder_ / "vocabulary.tsv").string(), map = (folder_ / "map.tsv").string();
  data::Vocabulary({{.id = "MINE", .median = 1}}).save(vocabulary);
  std::ofstream(map) << "alias\tid\n" << known << "\tMINE\n";
  const auto result =
      scrna_train({"inspect", "--json", path_, "--vocabulary", vocabulary, "--gene-map", map});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report.at("translated_genes"), 1);
  const json& found = report.at("in_vocabulary");
  EXPECT_EQ(found.at("known_genes"), 1);
  EXPECT_EQ(found.at("vocabulary_genes"), 1);
  ASSERT_EQ(found.at("largest_misses").size(), 10U);
  double missed = 0, last = 1e300;
  for (const json& miss : found.at("largest_misses")) {
    EXPECT_NE(miss.at("id"), known);
    EXPECT_LE(miss.at("counts"), last);
    last = miss.at("counts");
    missed += last;
  }
  EXPECT_GT(found.at("count_hit_rate"), 0.0);
  EXPECT_LE(found.at("count_hit_rate").get<double>(),
            1 - missed / report.at("total_counts").get<double>() + 1e-12);
  EXPECT_EQ(report.at("suitability"), "not suitable as it is") << "far below data.min_gene_hit_rate";
  const auto text = scrna_train({"inspect", path_, "--vocabulary", vocabulary, "--gene-map", map});
  EXPECT_TRUE(contains(text.out, "1 of 50 are among the 1 genes of")) << text.out;
  EXPECT_TRUE(contains(text.out, "the largest that are not: ")) << text.out;
  expect_failure(scrna_train({"inspect", path_, "--gene-map", vocabulary}), 3,
                 {"expected the column names 'alias' and 'id'"});
}

TEST_F(Inspect, AFilterIsCounted) {
  const auto result =
      scrna_train({"inspect", "--json", path_, "--filter", "donor == 'nobody' or donor != 'nobody'"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out).at("chosen_cells"), 60);
  EXPECT_TRUE(contains(json::parse(result.out).at("next_command"), "data.filter="));
  const auto none = scrna_train({"inspect", "--json", path_, "--filter", "donor == 'nobody'"});
  EXPECT_EQ(json::parse(none.out).at("chosen_cells"), 0);
  EXPECT_EQ(json::parse(none.out).at("suitability"), "not suitable as it is");
  expect_failure(scrna_train({"inspect", path_, "--filter", "donor = 'x'"}), 2,
                 {"--filter: at character 7", "did you mean '=='?"});
  expect_failure(scrna_train({"inspect", path_, "--filter", "doner == 'x'"}), 3, {"did you mean 'donor'?"});
}

TEST_F(Inspect, TheNextCommandItGivesWorks) {
  const auto report = nlohmann::json::parse(scrna_train({"inspect", "--json", path_}).out);
  std::string command = report.at("next_command");
  ASSERT_EQ(command.rfind("scrna-train ", 0), 0U) << command;
  command.replace(0, std::string("scrna-train").size(), "'" SCRNA_TRAIN_PROGRAM "'");
  // Tests run in the root of the project, where the README's commands do.
  const auto result = test::run_process({"/bin/sh", "-c", command + " --set train.num_threads=1 --check"});
  EXPECT_EQ(result.exit_code, 0) << command << "\n" << result.err;
}

TEST_F(Inspect, WithoutCountsItReportsAndEndsWithZero) {
  OpenFile(path_).set("X/data", 7, -3);
  const auto result = scrna_train({"inspect", "--json", path_});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report.at("is_counts"), false);
  EXPECT_EQ(report.at("matrix"), "X");
  EXPECT_EQ(report.at("suitability"), "not suitable as it is");
  EXPECT_EQ(report.at("next_command"), "");
}

TEST_F(Inspect, AWrongMatrixOrColumnIsAnsweredWithWhatThereIs) {
  expect_failure(scrna_train({"inspect", path_, "--matrix", "layers/counts"}), 3,
                 {path_, "layers/counts", "X"});
  expect_failure(scrna_train({"inspect", path_, "--gene-column", "gene_symbl"}), 3,
                 {"gene_symbl", "did you mean 'gene_symbol'?"});
}

TEST_F(Inspect, AMissingFileAFolderAndAnotherFormatAreToldApart) {
  expect_failure(scrna_train({"inspect", (folder_ / "missing.h5ad").string()}), 3,
                 {"missing.h5ad", "no such file"});
  expect_failure(scrna_train({"inspect", folder_.path().string()}), 3, {folder_.path().string(), "folder"});
  std::ofstream(folder_ / "text.h5ad") << "gene,cell\nA,1\n";
  expect_failure(scrna_train({"inspect", (folder_ / "text.h5ad").string()}), 3,
                 {"text.h5ad", "not an HDF5 file"});
}

TEST_F(Inspect, ATruncatedFileIsRefused) {
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) / 2);
  expect_failure(scrna_train({"inspect", path_}), 3, {path_, "damaged or incomplete"});
}

TEST_F(Inspect, AFileWithoutAMatrixIsRefused) {
  OpenFile(path_).remove("X");
  expect_failure(scrna_train({"inspect", path_}), 3, {path_, "no matrix"});
}

TEST_F(Inspect, AnIndptrThatFallsIsRefused) {
  OpenFile(path_).set("X/indptr", 5, 1);
  expect_failure(scrna_train({"inspect", path_}), 3, {"/X/indptr", "never fall", "entry 5 is 1"});
}

TEST_F(Inspect, AnIndexOutOfRangeIsRefused) {
  OpenFile(path_).set("X/indices", 11, 50);
  expect_failure(scrna_train({"inspect", path_}), 3, {"/X/indices", "index 50 is outside 0..49"});
}

TEST_F(Inspect, AnUnknownTypeOfValuesIsRefused) {
  OpenFile(path_).make_opaque("X/data");
  expect_failure(scrna_train({"inspect", path_}), 3, {"/X/data", "expected numbers"});
}

TEST_F(Inspect, AFileOfZeroCellsIsRefused) {
  const std::string empty = (folder_ / "empty.h5ad").string();
  data::H5adWriter writer(empty, {});
  writer.write_var({}, {.index = {"GENE1", "GENE2"}, .columns = {}});
  writer.commit();
  expect_failure(scrna_train({"inspect", "--json", empty}), 3, {empty, "zero cells"});
}

TEST_F(Inspect, AFullDiskBehindStandardOutputIsAnErrorAndAReaderThatLeavesIsNone) {
  const auto full = scrna_train(
      {"inspect", path_}, {.before_exec = [] { ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO); }});
  expect_failure(full, 3, {"standard output", "No space left"});
  const auto left = scrna_train({"inspect", path_}, {.before_exec = {}, .close_stdout = true});
  EXPECT_EQ(left.exit_code, 0) << left.err;
  EXPECT_EQ(left.err, "");
}

}  // namespace
}  // namespace scrna
