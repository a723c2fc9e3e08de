// scrna-train finetune and annotate from outside: what they write, that it fits together, and what they
// refuse.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "lib/data/anndata.h"
#include "lib/data/annotation_file.h"
#include "lib/data/obsm.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using test::contains;
using test::expect_failure;
using test::scrna_train;
namespace fs = std::filesystem;

/// One small pretrained model, and one fine-tuned from it, for all tests of this file.
class Finetune : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new test::TempDir;
    const auto made = scrna_train({"synthesize", "--out", cells(), "--cells", "300", "--genes", "60",
                                   "--median-genes", "25", "--programs", "4"});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    test::train_small(cells(), run());
    const auto tuned = finetune({"--frozen", "--out", types(), cells()});
    ASSERT_EQ(tuned.exit_code, 0) << tuned.err;
    summary_ = tuned.out;
  }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }
  static std::string cells() { return (*shared_ / "cells.h5ad").string(); }
  static std::string run() { return (*shared_ / "run").string(); }
  static std::string types() { return (*shared_ / "types").string(); }
  static test::ProcessResult finetune(std::vector<std::string> words,
                                      const test::ProcessOptions& options = {}) {
    words.insert(words.begin(),
                 {"finetune", "--checkpoint", run(), "--device", "cpu", "--label", "cell_type"});
    return scrna_train(words, options);
  }
  static test::ProcessResult annotate(std::vector<std::string> words,
                                      const test::ProcessOptions& options = {}) {
    words.insert(words.begin(), {"annotate", "--checkpoint", types(), "--device", "cpu"});
    return scrna_train(words, options);
  }
  static nlohmann::json result_of(const std::string& folder) {
    return nlohmann::json::parse(read_file(fs::path(folder) / "finetune.json"));
  }
  [[nodiscard]] std::string path(const std::string& name) const { return (folder_ / name).string(); }

  static test::TempDir* shared_;
  static std::string summary_;
  test::TempDir folder_;
};
test::TempDir* Finetune::shared_ = nullptr;
std::string Finetune::summary_;

TEST_F(Finetune, LeavesAFolderWithModelScoresAndPage) {
  for (const char* name :
       {"config.yaml", "vocabulary.tsv", "classifier.safetensors", "finetune.yaml", "finetune.json",
        "metrics.jsonl", "per_class.csv", "confusion.csv", "heldout_predictions.csv", "report.html",
        "log.txt", "checkpoints/latest/model.safetensors"})
    EXPECT_TRUE(fs::exists(fs::path(types()) / name)) << name;
  const nlohmann::json json = result_of(types());
  EXPECT_EQ(json["label"], "cell_type");
  EXPECT_EQ(json["cells"]["training"].get<int64_t>() + json["cells"]["heldout"].get<int64_t>() +
                json["cells"]["left_out"]["without_genes"].get<int64_t>(),
            300);
  EXPECT_EQ(json["base"]["weights_sha256"], json["encoder_sha256"]);  // frozen
  EXPECT_GT(json["heldout"]["accuracy"].get<double>(), json["heldout"]["majority_accuracy"].get<double>());
  EXPECT_TRUE(
      contains(summary_, fmt::format("held-out accuracy  {:.4f}", json["heldout"]["accuracy"].get<double>())))
      << summary_;
  EXPECT_TRUE(contains(summary_, "next: scrna-train annotate --checkpoint")) << summary_;
  // The best epoch of metrics.jsonl is the one that was kept.
  std::ifstream lines(fs::path(types()) / "metrics.jsonl");
  double best = -1;
  int64_t best_epoch = 0, epochs = 0;
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json epoch = nlohmann::json::parse(line);
    ++epochs;
    EXPECT_EQ(epoch["epoch"], epochs);
    if (epoch["is_best"].get<bool>()) {
      EXPECT_GE(epoch["heldout_macro_f1"].get<double>(), best);
      best = epoch["heldout_macro_f1"];
      best_epoch = epoch["epoch"];
    }
    EXPECT_LE(epoch["heldout_macro_f1"].get<double>(), best);
  }
  EXPECT_EQ(json["epochs"], epochs);
  EXPECT_EQ(json["best_epoch"], best_epoch);
  EXPECT_EQ(json["heldout"]["macro_f1"].get<double>(), best);
}

TEST_F(Finetune, OtherCommandsTakeTheFolderAsAnyRun) {
  const auto out = path("model.safetensors");
  ASSERT_EQ(scrna_train({"export", "--checkpoint", types(), "--out", out}).exit_code, 0);
  ASSERT_EQ(
      scrna_train({"embed", "--checkpoint", types(), "--device", "cpu", "--out", path("e.h5ad"), cells()})
          .exit_code,
      0);
  expect_failure(scrna_train({"train", "--resume", types()}), 3,
                 {"cannot be resumed", "train.initial_weights"});
  // Fine-tuned again, from what was fine-tuned and from an exported file.
  for (const std::string& from : {types(), out}) {
    const auto again =
        scrna_train({"finetune", "--checkpoint", from, "--device", "cpu", "--label", "cell_type", "--frozen",
                     "--epochs", "1", "--out", path("again" + std::to_string(from.size())), cells()});
    EXPECT_EQ(again.exit_code, 0) << again.err;
  }
  expect_failure(scrna_train({"annotate", "--checkpoint", out, "--out", path("a.h5ad"), cells()}), 3,
                 {"is a file, and has no classification head", "scrna-train finetune"});
}

TEST_F(Finetune, AnnotatesAsItPredictedHeldOutCells) {
  const auto result = annotate({"--out", path("out.h5ad"), cells()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, "300 cells in obs['scrna_cell_type']")) << result.out;
  EXPECT_FALSE(fs::exists(path("out.h5ad.partial")));
  const data::AnnDataFile before(cells()), after(path("out.h5ad"));
  EXPECT_EQ(after.obs_index(), before.obs_index());
  EXPECT_EQ(after.open_matrix("X")->read(0, 300).values, before.open_matrix("X")->read(0, 300).values);
  std::vector<std::string> columns = before.obs_columns();
  columns.insert(columns.end(), {"scrna_cell_type", "scrna_cell_type_probability"});
  EXPECT_EQ(after.obs_columns(), columns);

  const data::CategoryColumn predicted = after.obs_categories("scrna_cell_type");
  const std::vector<double> probability = after.obs_numbers("scrna_cell_type_probability");
  const data::ObsmMatrix all = data::read_obsm(path("out.h5ad"), "scrna_cell_type_probabilities");
  ASSERT_EQ(all.width, std::ssize(predicted.categories));
  for (int64_t cell = 0; cell < 300; ++cell) {
    const float* row = all.values.data() + cell * all.width;
    if (std::isnan(row[0])) continue;
    double sum = 0;
    for (int64_t c = 0; c < all.width; ++c) sum += row[c];
    EXPECT_NEAR(sum, 1, 1e-5);
    EXPECT_EQ(row[predicted.codes[static_cast<std::size_t>(cell)]],
              static_cast<float>(probability[static_cast<std::size_t>(cell)]));
  }
  // The held-out cells of the fine-tuning, found again by their names.
  const std::vector<std::string> names = after.obs_index();
  std::ifstream lines(fs::path(types()) / "heldout_predictions.csv");
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "file,row,cell,label,predicted,probability,probability_of_label");
  int64_t found = 0;
  while (std::getline(lines, line)) {
    std::vector<std::string> fields{""};
    for (const char c : line) c == ',' ? void(fields.emplace_back()) : void(fields.back() += c);
    ASSERT_EQ(fields.size(), 7) << line;
    const auto cell = static_cast<std::size_t>(std::ranges::find(names, fields[2]) - names.begin());
    ASSERT_LT(cell, names.size());
    EXPECT_EQ(std::to_string(cell), fields[1]);
    EXPECT_EQ(predicted.categories[static_cast<std::size_t>(predicted.codes[cell])], fields[4]);
    EXPECT_NEAR(probability[cell], std::stod(fields[5]), 1e-4);
    ++found;
  }
  EXPECT_EQ(found, result_of(types())["cells"]["heldout"].get<int64_t>());
}

TEST_F(Finetune, NeighboursInThePackDoNotShowInProbabilities) {
  ASSERT_EQ(annotate({"--out", path("a.h5ad"), cells()}).exit_code, 0);
  ASSERT_EQ(annotate({"--out", path("b.h5ad"), "--tokens-per-pack", "1", cells()}).exit_code, 0);
  const auto a = data::read_obsm(path("a.h5ad"), "scrna_cell_type_probabilities").values;
  const auto b = data::read_obsm(path("b.h5ad"), "scrna_cell_type_probabilities").values;
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_TRUE(std::abs(a[i] - b[i]) <= 1e-4 || (std::isnan(a[i]) && std::isnan(b[i])))
        << i << ": " << a[i] << " " << b[i];
}

TEST_F(Finetune, TheSameAnnotationAgainDoesNothingAndAnotherIsRefused) {
  ASSERT_EQ(annotate({"--out", path("out.h5ad"), cells()}).exit_code, 0);
  const std::string hash = sha256_of_file(path("out.h5ad"));
  EXPECT_TRUE(contains(annotate({"--out", path("out.h5ad"), cells()}).out, "was finished before"));
  expect_failure(annotate({"--out", path("out.h5ad"), "--tokens-per-pack", "64", cells()}), 2,
                 {"exists already", "--force"});
  EXPECT_EQ(sha256_of_file(path("out.h5ad")), hash);
  expect_failure(annotate({"--out", path("b.h5ad"), path("out.h5ad")}), 2,
                 {"has obs/scrna_cell_type already", "--key"});
  ASSERT_EQ(annotate({"--out", path("b.h5ad"), "--key", "second", path("out.h5ad")}).exit_code, 0);
  EXPECT_TRUE(data::read_annotation_settings(path("b.h5ad"), "second"));
  EXPECT_TRUE(data::read_annotation_settings(path("b.h5ad"), "scrna_cell_type"));
  ASSERT_EQ(annotate({"--out-dir", path("many"), cells(), path("b.h5ad"), "--key", "third"}).exit_code, 0);
  EXPECT_TRUE(fs::exists(path("many/cells.h5ad")) && fs::exists(path("many/b.h5ad")));
}

TEST_F(Finetune, FullTrainingChangesTheEncoderAndTheSameSeedGivesTheSameScores) {
  for (const char* name : {"a", "b"}) {
    const auto result =
        finetune({"--out", path(name), "--epochs", "2", "--head-learning-rate", "0.01", cells()});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_TRUE(contains(result.err, "[finetune] epoch 2: loss ")) << result.err;
  }
  const nlohmann::json a = result_of(path("a")), b = result_of(path("b"));
  EXPECT_NE(a["base"]["weights_sha256"], a["encoder_sha256"]);
  EXPECT_EQ(a["encoder_sha256"], b["encoder_sha256"]);
  EXPECT_EQ(a["heldout"], b["heldout"]);
  EXPECT_EQ(read_file(path("a/heldout_predictions.csv")), read_file(path("b/heldout_predictions.csv")));
  EXPECT_EQ(scrna_train(
                {"annotate", "--checkpoint", path("a"), "--device", "cpu", "--out", path("a.h5ad"), cells()})
                .exit_code,
            0);
}

TEST_F(Finetune, DonorsAreHeldOutWhole) {
  const auto result = finetune({"--frozen", "--split-by", "donor", "--drop-rare-classes", "--epochs", "1",
                                "--out", path("d"), cells()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json json = result_of(path("d"));
  ASSERT_GE(json["held_groups"].size(), 1);
  EXPECT_TRUE(contains(result.err, "donor " + json["held_groups"][0].get<std::string>())) << result.err;
}

TEST_F(Finetune, AClassThatSoundsLikeNoneIsSaid) {
  const std::string renamed = path("renamed.h5ad");
  fs::copy_file(cells(), renamed);
  std::vector<std::string> types = data::AnnDataFile(renamed).obs_categories("cell_type").categories;
  types.at(0) = "unlabelled";
  {
    test::H5Builder builder(renamed, /*truncate=*/false);
    builder.remove("obs/cell_type/categories");
    builder.texts("obs/cell_type/categories", types);
  }
  const auto result = finetune({"--frozen", "--epochs", "1", "--out", path("r"), renamed});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "'unlabelled' is a class of 'cell_type' like any other; --ignore-label 'unlabelled'"))
      << result.err;
}

TEST_F(Finetune, ASplitByOneGroupNamesTheOptionsOfFinetune) {
  const std::string one = path("one.h5ad");
  const auto made = scrna_train({"synthesize", "--out", one, "--cells", "60", "--genes", "60", "--median-genes", "25",
                                 "--programs", "4", "--donors", "1"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const auto result = finetune({"--frozen", "--split-by", "donor", "--out", path("o"), one});
  expect_failure(result, 3, {"--split-by donor", "leave out --split-by"});
  EXPECT_FALSE(contains(result.err, "data.heldout")) << result.err;
}

TEST_F(Finetune, RefusesWhatItCannotUseAndLeavesNothing) {
  const std::string out = path("out");
  const auto other_label = [&](const std::string& label) {
    return scrna_train(
        {"finetune", "--checkpoint", run(), "--device", "cpu", "--label", label, "--out", out, cells()});
  };
  expect_failure(other_label("cell_typ"), 3,
                 {"has no column 'cell_typ'", "did you mean 'cell_type'?", "donor"});
  expect_failure(finetune({"--out", out}), 2, {"no input"});
  expect_failure(finetune({"--out", types(), cells()}), 2, {"exists already"});
  expect_failure(finetune({"--out", out, path("missing.h5ad")}), 3, {"missing.h5ad"});
  expect_failure(finetune({"--out", out, "--ignore-label", "nothing like it", cells()}), 3,
                 {"--ignore-label"});
  expect_failure(finetune({"--out", out, "--split-by", "donr", cells()}), 3, {"did you mean 'donor'?"});
  expect_failure(finetune({"--out", out, "--heldout-fraction", "1", cells()}), 2, {"--heldout-fraction"});
  expect_failure(finetune({"--out", out, "--class-weights", "some", cells()}), 2,
                 {"--class-weights", "balanced"});
  expect_failure(finetune({"--out", out, "--set", "model.width=32", cells()}), 2,
                 {"model.width", "trained model"});
  expect_failure(scrna_train({"finetune", "--checkpoint", run(), "--label", "cell_type", "--device", "gpu",
                              "--out", out, cells()}),
                 2, {"train.device"});
  expect_failure(
      scrna_train({"finetune", "--checkpoint", path("none"), "--label", "cell_type", "--out", out, cells()}),
      2, {"there is nothing"});
  expect_failure(
      scrna_train({"finetune", "--checkpoint", cells(), "--label", "cell_type", "--out", out, cells()}), 3,
      {"cells.h5ad"});
  std::ofstream(path("text.h5ad")) << "no HDF5";
  expect_failure(finetune({"--out", out, path("text.h5ad")}), 3, {"text.h5ad"});
  expect_failure(scrna_train({"annotate", "--checkpoint", run(), "--out", path("a.h5ad"), cells()}), 3,
                 {"has no classification head", "scrna-train finetune --checkpoint"});
  expect_failure(annotate({"--out", cells(), "--force", cells()}), 2, {"is the input itself"});
  expect_failure(annotate({"--out", path("a.h5ad"), "--key", "a/b", cells()}), 2, {"--key"});
  expect_failure(annotate({cells()}), 2, {"--out FILE.h5ad"});
  EXPECT_FALSE(fs::exists(out));
  EXPECT_FALSE(fs::exists(path("a.h5ad")));
}

// A signal during training: the best epoch so far is a whole model.
TEST_F(Finetune, AStoppedRunLeavesItsBestEpoch) {
  test::ProcessOptions options;
  options.before_exec = [file = path("out/finetune.json")] {
    const pid_t program = ::getpid();
    if (::fork() != 0) return;  // the program goes on; the child watches it
    for (int i = 0; i < 20000; ++i) {
      if (std::error_code ignored; fs::exists(file, ignored)) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ::kill(program, SIGTERM);
    ::_exit(0);
  };
  const auto stopped =
      finetune({"--out", path("out"), "--epochs", "100000", "--patience", "100000", cells()}, options);
  ASSERT_EQ(stopped.exit_code, 143) << stopped.err;
  EXPECT_TRUE(contains(stopped.out, "the best epoch so far is saved")) << stopped.out;
  EXPECT_EQ(result_of(path("out"))["ending"], "stopped by a signal");
  const auto result = scrna_train(
      {"annotate", "--checkpoint", path("out"), "--device", "cpu", "--out", path("a.h5ad"), cells()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

}  // namespace
}  // namespace scrna
