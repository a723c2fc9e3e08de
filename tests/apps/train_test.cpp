// scrna-train train from the outside: what a user types, what comes back, and that bad input leaves nothing behind.
#include <sys/mount.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sched.h>
#include <sstream>

#include "lib/core/files.h"
#include "lib/data/h5ad_writer.h"
#include "lib/data/vocabulary.h"
#include "tests/apps/damage.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::expect_failure;
using test::OpenFile;
using test::scrna_train;

class Train : public testing::Test {
 protected:
  void SetUp() override {
    test::synthesize_small(cells_);
    std::ofstream(config_) << "data: {files: " << cells_ << ", heldout_fraction: 0.2, min_genes: 5}\n"
                           << "run: {dir: " << run_ << "}\n"
                           << "tokenizer: {max_tokens: 16}\n"
                           << "model: {num_layers: 1, width: 16, num_heads: 2, feed_forward_width: 32}\n"
                           << "optim: {learning_rate: 0.01, warmup_steps: 1}\n"
                           << "train: {steps: 4, global_batch_cells: 8, device: cpu, num_threads: 1}\n"
                           << "heldout: {every_steps: 2}\n"
                           << "checkpoint: {every_steps: 2}\n";
  }
  [[nodiscard]] test::ProcessResult run(const std::vector<std::string>& settings = {},
                                        const std::vector<std::string>& flags = {}) const {
    std::vector<std::string> words = {"train", "--config", config_};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    words.insert(words.end(), flags.begin(), flags.end());
    return scrna_train(words);
  }
  // Exit code, message, and no run directory.
  void expect_refused(const test::ProcessResult& result, int exit_code, const std::vector<std::string>& parts) const {
    expect_failure(result, exit_code, parts);
    EXPECT_FALSE(fs::exists(run_)) << "a run directory was left behind";
  }

  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string();
  const std::string config_ = (folder_ / "config.yaml").string();
  const std::string run_ = (folder_ / "run").string();
};

TEST_F(Train, MakesARunDirectoryAndSaysWhatCameOfIt) {
  const auto result = run();
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"4 steps", "cells/s", "TFLOP/s of the model", "waiting for data", "held-out loss", "gene frequency", "metrics.jsonl", "step-00000004"}) {
    EXPECT_TRUE(contains(result.out, part)) << part << " is not in " << result.out;
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(run_)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"checkpoints", "config.yaml", "log.txt", "metrics.jsonl", "run.json", "tensorboard", "vocabulary.tsv"}));
  std::istringstream lines(read_file(fs::path(run_) / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    const std::vector<const char*> keys =
        json.contains("loss") ? std::vector<const char*>{"step", "loss", "learning_rate", "grad_norm", "grad_norm_per_layer",
                                                         "max_score_per_layer", "tokens", "cells", "seconds", "seconds_idle",
                                                         "model_tflops_per_second", "mfu", "data_wait_share",
                                                         "padding_share", "peak_device_memory_bytes"}
                              : std::vector<const char*>{"step", "heldout_loss", "heldout_uniform_loss",
                                                         "heldout_gene_frequency_loss"};
    for (const char* key : keys) EXPECT_TRUE(json.contains(key)) << key << " is missing in " << line;
  }
  // What was found out about the data before there was a folder stands in the log too.
  EXPECT_TRUE(contains(read_file(fs::path(run_) / "log.txt"), "cells to train on"));
}

TEST_F(Train, TheConfigurationOfARunTrainsTheSameRunAgain) {
  ASSERT_EQ(run().exit_code, 0);
  const std::string again = (folder_ / "again").string();
  ASSERT_EQ(scrna_train({"train", "--config", run_ + "/config.yaml", "--set", "run.dir=" + again}).exit_code, 0);
  // AdamW's means have every gradient of the run in them; the file of the weights also names run.dir.
  EXPECT_EQ(sha256_of_file(run_ + "/checkpoints/latest/optimizer.safetensors"),
            sha256_of_file(again + "/checkpoints/latest/optimizer.safetensors"));
}

TEST_F(Train, CheckingAndPrintingWriteNothing) {
  const auto check = run({}, {"--check"});
  EXPECT_EQ(check.exit_code, 0) << check.err;
  EXPECT_TRUE(contains(check.out, "check passed"));
  for (const char* part : {"on a GPU, a forward pass of ", "weights", "activations", "together", "most at: "})
    EXPECT_TRUE(contains(check.out, part)) << check.out;
  const auto print = run({"train.steps=9"}, {"--print-config"});
  EXPECT_EQ(print.exit_code, 0);
  EXPECT_TRUE(contains(print.out, "  steps: 9  # "));
  EXPECT_FALSE(fs::exists(run_));
}

TEST_F(Train, ResumesFromTheRunDirectoryAlone) {
  ASSERT_EQ(run({"train.steps=2"}).exit_code, 0);
  const auto result = scrna_train({"train", "--resume", run_, "--set", "train.steps=4"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(run_ + "/checkpoints/step-00000004"));
  const auto latest = run({"train.steps=6"}, {"--resume", "latest"});
  EXPECT_EQ(latest.exit_code, 0) << latest.err;
  EXPECT_TRUE(fs::exists(run_ + "/checkpoints/step-00000006"));
}

TEST_F(Train, ARunThatWasMovedGoesOnWhereItIsNow) {
  ASSERT_EQ(run({"train.steps=2"}).exit_code, 0);
  const std::string moved = (folder_ / "moved").string();
  fs::rename(run_, moved);
  const auto result = scrna_train({"train", "--resume", moved, "--set", "train.steps=4"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(moved + "/checkpoints/step-00000004"));
  EXPECT_FALSE(fs::exists(run_)) << "it went on in the old place";
}

TEST_F(Train, SigtermSavesAndEndsWith143) {
  const auto result = test::run_process(
      {"/bin/sh", "-c",
       "'" SCRNA_TRAIN_PROGRAM "' train --config '" + config_ + "' --set train.steps=1000000 & until grep -q '\"step\":2,' '" +
           run_ + "/metrics.jsonl' 2>/dev/null; do sleep 0.05; done; kill -TERM $!; wait $!"});
  EXPECT_EQ(result.exit_code, 143) << result.err;
  EXPECT_TRUE(contains(result.out, "train --resume " + run_)) << result.out;
  EXPECT_TRUE(fs::exists(run_ + "/checkpoints/latest/manifest.json"));
}

TEST_F(Train, AFilterOverObsChoosesTheCellsAndStaysWithTheRun) {
  const std::string filter = "data.filter=donor in ['donor-1', 'donor-2'] and not donor == 'donor-2'";
  const auto donors = nlohmann::json::parse(scrna_train({"inspect", "--json", cells_, "--filter", filter.substr(12)}).out);
  const int64_t chosen = donors.at("chosen_cells");
  ASSERT_GT(chosen, 0);
  ASSERT_LT(chosen, 60);
  const auto first = run({filter, "train.steps=2"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_TRUE(contains(first.err, "data.filter chooses " + std::to_string(chosen) + " of 60 cells")) << first.err;
  EXPECT_TRUE(contains(read_file(fs::path(run_) / "config.yaml"), "not donor == ")) << "part of the resolved configuration";
  expect_failure(scrna_train({"train", "--resume", run_, "--set", "data.filter=", "--set", "train.steps=4"}), 2,
                 {"data.filter", "cannot change within a run"});
}

TEST_F(Train, AFilterThatIsWrongIsRefusedBeforeAnythingIsRead) {
  expect_refused(run({"data.filter=donor == donor-1"}), 2, {"data.filter: at character 10", "'donor-1'"});
  expect_refused(run({"data.filter=doner == 'donor-1'"}), 3, {"did you mean 'donor'?"});
  expect_refused(run({"data.filter=donor == 'nobody'"}), 3, {"data.filter chooses no cell"});
}

TEST_F(Train, WrongSettingsAreRefusedWithTheirLineAndTheNearestKey) {
  std::ofstream(config_, std::ios::app) << "trian: {steps: 3}\n";
  expect_refused(run(), 2, {"config.yaml", "trian", "train"});
}

TEST_F(Train, ValuesOutOfRangeAndMisspeltOverridesAreRefused) {
  expect_refused(run({"train.steps=0"}), 2, {"train.steps", "0"});
  expect_refused(run({"train.stpes=5"}), 2, {"train.stpes", "did you mean 'steps'"});
  expect_refused(run({"model.attention=sigmod"}), 2, {"model.attention", "sigmod", "sigmoid"});
  expect_refused(run({"optim.learning_rate=fast"}), 2, {"optim.learning_rate", "fast"});
}

TEST_F(Train, WithoutAConfigurationItSaysWhatToType) {
  expect_refused(scrna_train({"train"}), 2, {"--config"});
  expect_refused(scrna_train({"train", "--config", (folder_ / "no.yaml").string()}), 2, {"no.yaml"});
}

TEST_F(Train, AMissingFileAndAnotherFormatAreDataErrors) {
  expect_refused(run({"data.files=" + (folder_ / "no.h5ad").string()}), 3, {"no.h5ad"});
  expect_refused(run({"data.files=" + (folder_ / "*.missing").string()}), 3, {"*.missing"});
  expect_refused(run({"data.files=" + config_}), 3, {"config.yaml", "not an HDF5 file"});
}

TEST_F(Train, DamagedFilesAreDataErrors) {
  const auto damage = [&](auto change, const std::vector<std::string>& parts) {
    fs::copy_file(cells_, folder_ / "damaged.h5ad", fs::copy_options::overwrite_existing);
    change((folder_ / "damaged.h5ad").string());
    expect_refused(run({"data.files=" + (folder_ / "damaged.h5ad").string()}), 3, parts);
  };
  damage([](const std::string& path) { fs::resize_file(path, fs::file_size(path) / 2); }, {"damaged.h5ad", "damaged"});
  damage([](const std::string& path) { OpenFile(path).remove("X"); }, {"damaged.h5ad", "no matrix"});
  damage([](const std::string& path) { OpenFile(path).set("X/indptr", 5, 1); }, {"/X/indptr"});
  damage([](const std::string& path) { OpenFile(path).set("X/indices", 11, 50); }, {"/X/indices", "50"});
  damage([](const std::string& path) { OpenFile(path).make_opaque("X/data"); }, {"/X/data"});
}

// A file of `cells` cells x 3 genes, each with the values `value(cell, gene)`.
void write_cells(const fs::path& path, const std::vector<std::string>& genes, int32_t cells, auto value) {
  data::H5adWriter writer(path, {});
  writer.write_var({}, {.index = genes, .columns = {}});
  data::CellBlock block;
  data::TableRows obs;
  for (int32_t cell = 0; cell < cells; ++cell) {
    for (int32_t gene = 0; gene < std::ssize(genes); ++gene) {
      block.genes.push_back(gene);
      block.values.push_back(value(cell, gene));
    }
    block.indptr.push_back(std::ssize(block.genes));
    obs.index.push_back("cell" + std::to_string(cell));
  }
  if (cells > 0) writer.append(block, obs);
  writer.commit();
}

TEST_F(Train, FilesWithoutCellsKnownGenesOrCountsAreDataErrors) {
  const fs::path other = folder_ / "other.h5ad";
  const std::string files = "data.files=" + other.string();
  const std::vector<std::string> genes = {"TP53", "GAPDH", "ACTB", "CD3E", "CD8A", "MS4A1"};

  write_cells(other, genes, 0, [](int32_t, int32_t) { return 1.0F; });
  expect_refused(run({files}), 3, {"other.h5ad", "zero cells"});

  write_cells(other, genes, 30, [](int32_t cell, int32_t gene) { return std::log1p(static_cast<float>(1 + (cell + gene) % 7)); });
  expect_refused(run({files}), 3, {"other.h5ad", "data.allow_normalized"});

  write_cells(other, genes, 30, [](int32_t cell, int32_t gene) { return static_cast<float>(1 + (cell + gene) % 7); });
  data::Vocabulary({{.id = "BRCA1", .median = 1, .cells = 1, .counts = 1}, {.id = "BRCA2", .median = 1, .cells = 1, .counts = 1}})
      .save(folder_ / "vocabulary.tsv");
  expect_refused(run({files, "data.vocabulary=" + (folder_ / "vocabulary.tsv").string()}), 3,
                 {"other.h5ad", "no gene of the vocabulary", "TP53", "BRCA1"});
}

TEST_F(Train, AnExistingRunDirectoryIsLeftAsItIs) {
  fs::create_directory(run_);
  std::ofstream(run_ + "/mine.txt") << "mine";
  expect_failure(run(), 2, {"run.dir", run_, "exists already", "--resume"});
  EXPECT_EQ(std::distance(fs::directory_iterator(run_), fs::directory_iterator()), 1);
}

TEST_F(Train, ACorruptCheckpointAndOneOfAnotherVocabularyAreRefused) {
  ASSERT_EQ(run().exit_code, 0);
  const std::string metrics = read_file(run_ + "/metrics.jsonl");

  std::vector<data::Gene> genes = data::Vocabulary::load(run_ + "/vocabulary.tsv").genes();
  genes.pop_back();
  data::Vocabulary(genes).save(folder_ / "fewer.tsv");
  expect_failure(run({"train.steps=6", "data.vocabulary=" + (folder_ / "fewer.tsv").string()}, {"--resume", "latest"}), 3,
                 {"another vocabulary", "fewer.tsv"});

  const std::string weights = run_ + "/checkpoints/step-00000004/model.safetensors";
  std::string bytes = read_file(weights);
  bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 64);
  std::ofstream(weights, std::ios::binary) << bytes;
  expect_failure(run({"train.steps=6"}, {"--resume", run_ + "/checkpoints/step-00000004"}), 3, {weights, "damaged"});
  EXPECT_EQ(read_file(run_ + "/metrics.jsonl"), metrics);
}

TEST_F(Train, ARunGoesOnOnlyWithTheGeneMapItBeganWith) {
  const std::string map = (folder_ / "map.tsv").string();
  std::ofstream(map) << "alias\tid\nOLD1\tNEW1\n";
  ASSERT_EQ(run({"data.gene_map=" + map}).exit_code, 0);
  std::ofstream(map) << "alias\tid\nOLD1\tNEW2\n";
  expect_failure(run({"train.steps=6", "data.gene_map=" + map}, {"--resume", "latest"}), 3,
                 {"data.gene_map", "is not the mapping the run was trained with"});
  std::ofstream(map) << "alias\tid\nOLD1\tNEW1\n";
  EXPECT_EQ(run({"train.steps=6", "data.gene_map=" + map}, {"--resume", "latest"}).exit_code, 0);
}

TEST_F(Train, ARunKeepsTheGroupsItDrawsFrom) {
  ASSERT_EQ(run({"data.sampling_files=true", "data.sampling_temperature=2"}).exit_code, 0);
  const std::string table = read_file(run_ + "/sampling.tsv");
  EXPECT_EQ(table.rfind("group\tcells\tweight\tepoch_cells\ttimes_per_epoch\n", 0), 0U) << table;
  expect_failure(run({"train.steps=6", "data.sampling_files=true", "data.sampling_temperature=3"}, {"--resume", "latest"}), 2,
                 {"data.sampling_temperature"});
}

TEST_F(Train, AFullDiskEndsInOneErrorAndTheCheckpointBeforeStaysGood) {
  const fs::path disk = folder_ / "disk";
  fs::create_directory(disk);
  constexpr int kNotPermitted = 77;
  const auto mount_disk = [&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tiny", disk.c_str(), "tmpfs", 0, "size=400k") != 0) {
      ::_exit(kNotPermitted);
    }
  };
  // Every checkpoint takes about 80 KB and all are kept, so the fifth or so does not fit. The disk lives as long as its
  // process, so the same shell looks at it afterwards and goes on from it.
  const std::string program = "'" SCRNA_TRAIN_PROGRAM "' train --config '" + config_ + "' --set run.dir='" + disk.string() +
                              "/run' --set checkpoint.keep_last=100 --set checkpoint.every_steps=1";
  const auto result = test::run_process(
      {"/bin/sh", "-c",
       program + " --set train.steps=50; code=$?; rm -r '" + disk.string() + "'/run/checkpoints/step-00000001; " + program +
           " --resume latest --check --set train.steps=50 2>/dev/null | grep -c 'check passed'; ls '" + disk.string() +
           "/run/checkpoints' | grep -c partial; exit $code"},
      {.before_exec = mount_disk});
  if (result.exit_code == kNotPermitted) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  EXPECT_EQ(result.exit_code, 3) << result.err;
  EXPECT_TRUE(contains(result.err, "No space left")) << result.err;
  EXPECT_EQ(result.out, "1\n0\n") << "the newest whole checkpoint could not be used, or a partial one was left";
}

}  // namespace
}  // namespace scrna
