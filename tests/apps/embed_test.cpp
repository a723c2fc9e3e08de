// scrna-train embed from outside: what it writes, that an interrupted command goes on, and what it refuses.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "lib/core/files.h"
#include "lib/data/anndata.h"
#include "lib/data/embedding_file.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using test::contains;
using test::expect_failure;
using test::scrna_train;
namespace fs = std::filesystem;

// One small model for all tests of this file.
class Embed : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new test::TempDir;
    test::synthesize_small(cells());
    test::train_small(cells(), run());
  }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }
  static std::string cells() { return (*shared_ / "cells.h5ad").string(); }
  static std::string run() { return (*shared_ / "run").string(); }

  [[nodiscard]] std::string path(const std::string& name) const { return (folder_ / name).string(); }
  [[nodiscard]] static test::ProcessResult embed(std::vector<std::string> words,
                                                 const test::ProcessOptions& options = {}) {
    words.insert(words.begin(), {"embed", "--checkpoint", run(), "--device", "cpu"});
    return scrna_train(words, options);
  }
  static test::TempDir* shared_;
  test::TempDir folder_;
};
test::TempDir* Embed::shared_ = nullptr;

TEST_F(Embed, WritesACopyWithEmbeddingsOfAllCells) {
  const auto result = embed({"--out", path("out.h5ad"), cells()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, "60 cells x 16 in obsm['X_scrna']")) << result.out;
  const data::AnnDataFile before(cells()), after(path("out.h5ad"));
  EXPECT_EQ(after.obs_index(), before.obs_index());
  EXPECT_EQ(after.open_matrix("X")->read(0, 60).values, before.open_matrix("X")->read(0, 60).values);
  EXPECT_TRUE(data::read_settings(path("out.h5ad"), "X_scrna"));
  EXPECT_FALSE(fs::exists(path("out.h5ad.partial")));
}

TEST_F(Embed, TheSameCommandAgainDoesNothingAndAnotherIsRefused) {
  ASSERT_EQ(embed({"--out", path("out.h5ad"), cells()}).exit_code, 0);
  const std::string hash = sha256_of_file(path("out.h5ad"));
  const auto again = embed({"--out", path("out.h5ad"), cells()});
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_TRUE(contains(again.out, "was finished before")) << again.out;
  expect_failure(embed({"--out", path("out.h5ad"), "--pooling", "max", cells()}), 2,
                 {"exists already", "--force"});
  EXPECT_EQ(sha256_of_file(path("out.h5ad")), hash);
  EXPECT_EQ(embed({"--out", path("out.h5ad"), "--pooling", "max", "--force", cells()}).exit_code, 0);
  EXPECT_NE(sha256_of_file(path("out.h5ad")), hash);
}

TEST_F(Embed, FastIsThreeSettingsThatSetMayTakeBack) {
  const auto result = embed({"--fast", "--out", path("out.h5ad"), cells()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_failure(embed({"--out", path("out.h5ad"), cells()}), 2, {"exists already"});
  const auto same = embed({"--set", "model.attention_precision=fast", "--set", "model.gelu_precision=fast", "--set",
                           "model.residual_precision=bf16", "--out", path("out.h5ad"), cells()});
  EXPECT_TRUE(contains(same.out, "was finished before")) << same.out << same.err;
  ASSERT_EQ(embed({"--out", path("exact.h5ad"), cells()}).exit_code, 0);
  const auto none = embed({"--fast", "--set", "model.attention_precision=exact", "--set", "model.gelu_precision=exact", "--set",
                           "model.residual_precision=fp32", "--out", path("exact.h5ad"), cells()});
  EXPECT_TRUE(contains(none.out, "was finished before")) << none.out << none.err;
}

TEST_F(Embed, ManyFilesGoIntoAFolderAndFinishedOnesAreKept) {
  fs::copy_file(cells(), path("other.h5ad"));
  const auto result = embed({"--out-dir", path("out"), "--beside", cells(), path("other.h5ad")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  fs::remove(path("out/other.h5ad"));
  const auto again = embed({"--out-dir", path("out"), "--beside", cells(), path("other.h5ad")});
  EXPECT_TRUE(contains(again.out, "out/cells.h5ad: was finished before")) << again.out;
  EXPECT_TRUE(contains(again.out, "out/other.h5ad: 60 cells")) << again.out;
  expect_failure(embed({"--out", path("x.h5ad"), cells(), path("other.h5ad")}), 2, {"--out-dir"});
  fs::create_directory(path("twin"));
  fs::copy_file(cells(), path("twin/other.h5ad"));
  expect_failure(embed({"--out-dir", path("out"), path("other.h5ad"), path("twin/other.h5ad")}), 2,
                 {"two inputs would be written to"});
}

// A signal at any moment: the command given again ends with the bytes of one that was never stopped.
TEST_F(Embed, AnInterruptedCommandGoesOnAndEndsWithTheSameBytes) {
  const auto made = scrna_train({"synthesize", "--out", path("many.h5ad"), "--cells", "3000", "--genes", "50",
                                 "--median-genes", "20", "--programs", "4"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const std::vector<std::string> command = {"--out", path("out.h5ad"), "--tokens-per-pack", "64",
                                            path("many.h5ad")};
  bool was_interrupted = false;
  // The child sends itself the signal once the first window is on disk.
  for (int attempt = 0; attempt < 3 && !was_interrupted; ++attempt) {
    test::ProcessOptions options;
    options.before_exec = [partial = path("out.h5ad.partial")] {
      const pid_t program = ::getpid();
      if (::fork() != 0) return;  // the program goes on; the child watches it
      for (int i = 0; i < 3000; ++i) {
        std::error_code ignored;
        if (fs::exists(partial, ignored) && fs::file_size(partial, ignored) > 512 * 16 * 4) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
      ::kill(program, SIGTERM);
      ::_exit(0);
    };
    const auto stopped = embed(command, options);
    was_interrupted = stopped.exit_code == 143;
    if (was_interrupted)
      EXPECT_TRUE(contains(stopped.out, "goes on there")) << stopped.out;
    else
      fs::remove(path("out.h5ad"));
  }
  ASSERT_TRUE(was_interrupted) << "the command was always faster than the signal";
  EXPECT_FALSE(fs::exists(path("out.h5ad")));
  const auto resumed = embed(command);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_TRUE(contains(resumed.out, "were done before")) << resumed.out;
  const std::string hash = sha256_of_file(path("out.h5ad"));
  auto whole = command;
  whole.push_back("--force");
  ASSERT_EQ(embed(whole).exit_code, 0);
  EXPECT_EQ(sha256_of_file(path("out.h5ad")), hash);
}

TEST_F(Embed, CellsWithFewGenesAreCounted) {
  const auto result = embed({"--out", path("out.h5ad"), "--set", "data.min_genes=18", cells()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, "express fewer than 18 genes of the vocabulary: their rows are NaN"))
      << result.out;
}

TEST_F(Embed, RefusesWhatItCannotUse) {
  const std::string out = path("out.h5ad");
  expect_failure(embed({"--out", out}), 2, {"no input"});
  expect_failure(embed({cells()}), 2, {"--out FILE.h5ad", "--out-dir"});
  expect_failure(embed({"--out", cells(), "--force", cells()}), 2, {"is the input itself"});
  expect_failure(embed({"--out", path("no/such/out.h5ad"), cells()}), 3, {"there is no folder"});
  expect_failure(embed({"--out", out, "--layer", "2", cells()}), 2, {"--layer", "1 (the last)"});
  expect_failure(embed({"--out", out, "--pooling", "median", cells()}), 2, {"--pooling", "mean"});
  expect_failure(embed({"--out", out, "--key", "a/b", cells()}), 2, {"--key"});
  expect_failure(embed({"--out", out, "--set", "tokenizer.max_tokens=8", cells()}), 2,
                 {"tokenizer.max_tokens", "trained model"});
  expect_failure(embed({"--out", out, path("missing.h5ad")}), 3, {"missing.h5ad"});
  std::ofstream(path("text.h5ad")) << "no HDF5";
  expect_failure(embed({"--out", out, path("text.h5ad")}), 3, {"text.h5ad"});
  expect_failure(scrna_train({"embed", "--checkpoint", path("none"), "--out", out, cells()}), 2,
                 {"--checkpoint", "there is nothing"});
  expect_failure(scrna_train({"embed", "--checkpoint", path("text.h5ad"), "--out", out, cells()}), 3,
                 {"text.h5ad"});
  expect_failure(scrna_train({"embed", "--checkpoint", run() + "/checkpoints/latest/model.safetensors",
                              "--out", out, cells()}),
                 3, {"name the checkpoint's folder"});
  const auto made =
      scrna_train({"synthesize", "--out", path("symbols.h5ad"), "--cells", "20", "--genes", "50",
                   "--median-genes", "20", "--programs", "4", "--gene-ids", "symbol", "--seed", "9"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_FALSE(fs::exists(out));
  EXPECT_FALSE(fs::exists(out + ".partial"));
}

TEST_F(Embed, AnEmbeddedFileIsNotEmbeddedAgainUnderTheSameName) {
  ASSERT_EQ(embed({"--out", path("a.h5ad"), cells()}).exit_code, 0);
  expect_failure(embed({"--out", path("b.h5ad"), path("a.h5ad")}), 2, {"has obsm/X_scrna already", "--key"});
  ASSERT_EQ(
      embed({"--out", path("b.h5ad"), "--key", "X_first", "--pooling", "first", path("a.h5ad")}).exit_code,
      0);
  EXPECT_TRUE(data::read_settings(path("b.h5ad"), "X_scrna"));
  EXPECT_TRUE(data::read_settings(path("b.h5ad"), "X_first"));
}

TEST_F(Embed, AFullDiskLeavesNoOutput) {
  test::ProcessOptions options;
  options.before_exec = [] {
    const rlimit limit{.rlim_cur = 20000, .rlim_max = 20000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
  expect_failure(embed({"--out", path("out.h5ad"), cells()}, options), 3, {"out.h5ad"});
  EXPECT_FALSE(fs::exists(path("out.h5ad")));
}

TEST_F(Embed, AVocabularyOfAnotherRunIsNoticed) {
  const fs::path copy = folder_ / "run";
  fs::copy(run(), copy, fs::copy_options::recursive);
  std::string text = read_file(copy / "vocabulary.tsv");
  const std::size_t last_line = text.rfind('\n', text.size() - 2);
  text.resize(last_line + 1);
  std::ofstream(copy / "vocabulary.tsv") << text;
  expect_failure(scrna_train({"embed", "--checkpoint", copy.string(), "--out", path("out.h5ad"), cells()}), 3,
                 {"another vocabulary"});
}

TEST_F(Embed, AnExportedModelGivesTheSameEmbeddings) {
  const std::string file = path("model.safetensors");
  const auto exported = scrna_train({"export", "--checkpoint", run(), "--out", file});
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_TRUE(contains(exported.out, "weights SHA-256")) << exported.out;
  ASSERT_EQ(embed({"--out", path("a.h5ad"), cells()}).exit_code, 0);
  const auto result =
      scrna_train({"embed", "--checkpoint", file, "--device", "cpu", "--out", path("b.h5ad"), cells()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  // Weights, vocabulary and settings are the same, wherever the model came from.
  EXPECT_EQ(data::read_settings(path("a.h5ad"), "X_scrna"), data::read_settings(path("b.h5ad"), "X_scrna"));
  expect_failure(scrna_train({"export", "--checkpoint", run(), "--out", file}), 2,
                 {"exists already", "--force"});
  ASSERT_EQ(scrna_train({"export", "--checkpoint", file, "--out", path("again.safetensors")}).exit_code, 0);
  EXPECT_EQ(sha256_of_file(file), sha256_of_file(path("again.safetensors")));
}

// Every text is replaced by one of its length, so that the rest of the file stays as it is.
TEST_F(Embed, ADamagedExportedFileIsRefusedWithItsName) {
  const std::string file = path("model.safetensors");
  ASSERT_EQ(scrna_train({"export", "--checkpoint", run(), "--out", file}).exit_code, 0);
  const std::string whole = read_file(file);
  const auto refused = [&](const std::string& contents, const std::string& part) {
    std::ofstream(path("damaged.safetensors"), std::ios::binary) << contents;
    expect_failure(scrna_train({"embed", "--checkpoint", path("damaged.safetensors"), "--device", "cpu",
                                "--out", path("out.h5ad"), cells()}),
                   3, {"damaged.safetensors", part});
  };
  const auto replaced = [&](const std::string& before, const std::string& after) {
    EXPECT_EQ(before.size(), after.size());
    const std::size_t at = whole.find(before);
    EXPECT_NE(at, std::string::npos) << before;
    return whole.substr(0, at) + after + whole.substr(at + before.size());
  };
  refused(whole.substr(0, whole.size() - 1), "truncated");
  refused(whole.substr(0, 100), "not a safetensors file");
  refused(replaced("\"format_version\":\"1\"", "\"format_version\":\"2\""), "version 2 of the format");
  refused(replaced("\"scrna-train model\"", "\"scrna-train novel\""), "its format is 'scrna-train novel'");
  refused(replaced("\"step\":\"2\"", "\"step\":\"x\""), "'step' in its metadata is 'x'");
  refused(replaced("\"vocabulary\":", "\"vocobulary\":"), "has no 'vocabulary'");
  refused(replaced("\\tENSG", "\\tENSX"), "another vocabulary");
  refused(replaced("  width: 16", "  width: 32"), "has no tensor 'embedding.gene.weight' of shape");
  refused(replaced("  max_tokens: 16", "  max_tokens: 99"), "has no tensor 'embedding.rank.weight' of shape");
  refused(replaced("  num_layers: 1", "  num_layers: 9"), "has no tensor 'layer_01");
  refused(replaced("  width: 16", "  widht: 16"), "its configuration cannot be used");
  refused(replaced("layer_00.attention.qkv.bias", "layer_00.attention.qkv.bios"),
          "has no tensor 'layer_00.attention.qkv.bias'");
}

TEST_F(Embed, ARunBeginsWithTheWeightsOfAnExportedModel) {
  const std::string file = path("model.safetensors"), config = run() + ".yaml";
  ASSERT_EQ(scrna_train({"export", "--checkpoint", run(), "--out", file}).exit_code, 0);
  const auto train = [&](const std::string& name, std::vector<std::string> settings) {
    std::vector<std::string> words{"train",
                                   "--config",
                                   config,
                                   "--set",
                                   "train.initial_weights=" + file,
                                   "--set",
                                   "train.steps=1",
                                   "--set",
                                   "run.dir=" + path(name)};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return scrna_train(words);
  };
  // With a step that moves nothing: the weights of the new run are those of the file.
  const auto result = train("second", {"optim.learning_rate=1e-30"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto hash_of = [&](const std::string& checkpoint) {
    const std::string out = path("hash.safetensors");
    const auto exported = scrna_train({"export", "--checkpoint", checkpoint, "--out", out, "--force"});
    const std::size_t begin = exported.out.find("SHA-256 ");
    return begin == std::string::npos ? exported.err : exported.out.substr(begin, 72);
  };
  EXPECT_EQ(hash_of(path("second")), hash_of(run()));
  ASSERT_EQ(train("third", {"optim.learning_rate=1e-2"}).exit_code, 0);
  EXPECT_NE(hash_of(path("third")), hash_of(run()));

  expect_failure(train("no", {"model.width=32"}), 3, {"check the `model` settings"});
  expect_failure(train("no", {"tokenizer.max_tokens=32"}), 3, {"tokenizer.max_tokens"});
  std::string text = read_file(fs::path(run()) / "vocabulary.tsv");
  text.resize(text.rfind('\n', text.size() - 2) + 1);
  std::ofstream(path("v.tsv")) << text;
  expect_failure(train("no", {"data.vocabulary=" + path("v.tsv")}), 2,
                 {"train.initial_weights", "data.vocabulary"});
  EXPECT_FALSE(fs::exists(path("no")));
}

}  // namespace
}  // namespace scrna
