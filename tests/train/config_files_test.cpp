#include <algorithm>
#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/train/config_reference.h"
#include "lib/train/train_config.h"

namespace scrna::train {
namespace {

// Tests run in the root of the project. configs/stress holds tables of runs (tests/stress).
std::vector<std::filesystem::path> shipped_configs() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator("configs")) {
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST(ConfigFiles, EveryShippedFileIsReadAndItsDumpGivesTheSameSettings) {
  const auto files = shipped_configs();
  ASSERT_GE(files.size(), 6U);
  for (const auto& file : files) {
    const auto config = config::load<TrainConfig>(file, {});
    const std::string text = config::dump(config);
    EXPECT_EQ(config::dump(config::from_node<TrainConfig>(config::parse_text(text, "dump"))), text) << file;
  }
}

TEST(ConfigFiles, TheReferenceInConfigsReadmeIsTheOneOfTheDeclarations) {
  EXPECT_EQ(read_file("configs/README.md"), config_reference())
      << "write it again: scrna-train train --print-reference > configs/README.md";
}

TEST(ConfigFiles, TheReferenceNamesEveryKeyOnce) {
  const std::string text = config_reference();
  for (const config::Entry& entry : config::entries(TrainConfig{})) {
    const std::string needle = (entry.is_section ? "### `" : "| `") + entry.path + "`";
    const std::size_t at = text.find(needle);
    ASSERT_NE(at, std::string::npos) << entry.path;
    EXPECT_EQ(text.find(needle, at + 1), std::string::npos) << entry.path;
  }
}

TEST(ConfigFiles, The160MConfigurationIsTheOneOfThePaper) {
  const auto config = config::load<TrainConfig>("configs/160m.yaml", {});
  EXPECT_EQ(config.model.num_layers, 12);
  EXPECT_EQ(config.model.width, 768);
  EXPECT_EQ(config.model.num_heads, 12);
  EXPECT_EQ(config.model.feed_forward_width, 3072);
  EXPECT_EQ(config.model.dropout, 0.02);
  EXPECT_EQ(config.model.layer_norm_epsilon, 1e-5);
  EXPECT_EQ(config.model.initializer_range, 0.02);
  EXPECT_EQ(config.optim.learning_rate, 1e-4);
  EXPECT_EQ(config.optim.warmup_steps, 10000);
  EXPECT_EQ(config.optim.weight_decay, 0.1);
  EXPECT_EQ(config.optim.clip_norm, 1.0);
  EXPECT_EQ(config.masking.fraction, 0.15);
  EXPECT_EQ(config.train.global_batch_cells, 256);
  EXPECT_EQ(config.train.seed, 42U);
  EXPECT_EQ(config.train.steps, 515000);
}

TEST(ConfigFiles, SettingsThatContradictEachOtherAreRefused) {
  const auto load_text = [](const char* text) {
    return config::from_node<TrainConfig>(config::parse_text(text, "test.yaml"));
  };
  EXPECT_THROW((void)load_text("data: {heldout_fraction: 0}"), ConfigError);
  EXPECT_NO_THROW((void)load_text("{data: {heldout_fraction: 0}, heldout: {every_steps: 0}}"));
  EXPECT_THROW((void)load_text("{train: {steps: 10}, optim: {warmup_steps: 11}}"), ConfigError);
  EXPECT_THROW((void)load_text("model: {width: 100, num_heads: 3}"), ConfigError);
}

}  // namespace
}  // namespace scrna::train
