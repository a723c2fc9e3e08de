// scrna-train cache, and a run that reads from it: the same weights as one that reads the files.
#include <fstream>

#include <gtest/gtest.h>

#include "lib/core/files.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using test::contains;
using test::expect_failure;
using test::scrna_train;

class Cache : public testing::Test {
 protected:
  void SetUp() override {
    test::synthesize_small(cells_);
    std::ofstream(config_) << test::small_model_config(cells_)
                           << "optim: {warmup_steps: 1}\n"
                           << "train: {steps: 4, global_batch_cells: 8, device: cpu, num_threads: 1}\n"
                           << "heldout: {every_steps: 2}\n";
  }
  [[nodiscard]] test::ProcessResult make(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"cache", "--config", config_, "--out", cache_};
    words.insert(words.end(), more.begin(), more.end());
    return scrna_train(words);
  }
  [[nodiscard]] test::ProcessResult train(const std::string& run,
                                          const std::vector<std::string>& settings) const {
    std::vector<std::string> words = {"train", "--config", config_, "--set",
                                      "run.dir=" + (folder_ / run).string()};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return scrna_train(words);
  }
  [[nodiscard]] std::vector<std::string> from_cache() const {
    return {"data.cache=" + cache_, "data.vocabulary=" + cache_ + "/vocabulary.tsv"};
  }

  test::TempDir folder_;
  const std::string cells_ = (folder_ / "cells.h5ad").string();
  const std::string config_ = (folder_ / "config.yaml").string();
  const std::string cache_ = (folder_ / "cache").string();
};

TEST_F(Cache, ARunFromItTrainsTheSameWeights) {
  const auto made = make();
  ASSERT_EQ(made.exit_code, 0) << made.err;
  for (const char* part : {"60 cells", "tokens", "of the files'", "next: scrna-train train"})
    EXPECT_TRUE(contains(made.out, part)) << "no '" << part << "' in " << made.out;
  ASSERT_EQ(train("plain", {}).exit_code, 0);
  const auto cached = train("cached", from_cache());
  ASSERT_EQ(cached.exit_code, 0) << cached.err;
  EXPECT_EQ(sha256_of_file(folder_ / "plain/checkpoints/latest/optimizer.safetensors"),
            sha256_of_file(folder_ / "cached/checkpoints/latest/optimizer.safetensors"));
  const auto again = make({"--set", "data.vocabulary=" + cache_ + "/vocabulary.tsv"});
  EXPECT_TRUE(contains(again.out, "1 files of tokens were there already")) << again.out << again.err;
}

TEST_F(Cache, OtherSettingsAreRefusedInOneSentence) {
  ASSERT_EQ(make().exit_code, 0);
  auto settings = from_cache();
  expect_failure(train("run", {settings[0]}), 2, {"data.cache", "needs data.vocabulary", "vocabulary.tsv"});
  settings.push_back("tokenizer.max_tokens=12");
  expect_failure(train("run", settings), 3, {cache_, "another tokenizer.max_tokens: '16', now it is '12'"});
  expect_failure(make({"--set", "data.min_genes=6"}), 3, {"another data.min_genes: '5', now it is '6'"});
  settings = {"data.cache=" + (folder_ / "none").string(), settings[1]};
  expect_failure(train("run", settings), 3, {"holds no finished cache", "scrna-train cache"});
  expect_failure(scrna_train({"cache", "--out", cache_}), 2, {"data.files"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
}

}  // namespace
}  // namespace scrna
