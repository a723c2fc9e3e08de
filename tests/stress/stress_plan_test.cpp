#include "lib/stress/stress_plan.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/temp_dir.h"

namespace scrna::stress {
namespace {

class StressPlanTest : public testing::Test {
 protected:
  StressPlan plan(const std::string& text, const StressOverrides& overrides = {}) const {
    std::ofstream(folder_ / "table.yaml") << text;
    return read_plan(folder_ / "table.yaml", overrides);
  }
  std::string refusal(const std::string& text, const StressOverrides& overrides = {}) const {
    try {
      (void)plan(text, overrides);
    } catch (const ConfigError& problem) {
      return problem.what();
    }
    return "accepted";
  }
  static std::vector<std::string> names(const StressPlan& plan) {
    std::vector<std::string> names;
    for (const Arm& arm : plan.arms) names.push_back(arm.name);
    return names;
  }
  const test::TempDir folder_;
};

TEST_F(StressPlanTest, EveryCombinationIsAnArmInEachVariant) {
  const StressPlan two = plan(
      "title: t\nsettings: {train: {steps: 7}, optim.warmup_steps: 1}\n"
      "variants: {plain: {}, clipped: {optim.clip_norm: 1}}\n"
      "axes: {model.attention: [sigmoid, softmax], train.seed: [1, 2]}\n");
  EXPECT_EQ(names(two),
            (std::vector<std::string>{"plain-sigmoid-seed1", "plain-sigmoid-seed2", "plain-softmax-seed1",
                                      "plain-softmax-seed2", "clipped-sigmoid-seed1", "clipped-sigmoid-seed2",
                                      "clipped-softmax-seed1", "clipped-softmax-seed2"}));
  EXPECT_EQ(two.arms[0].config.optim.clip_norm, 0);
  EXPECT_EQ(two.arms[7].config.optim.clip_norm, 1);
  EXPECT_EQ(two.arms[7].config.train.seed, 2U);
  EXPECT_EQ(two.arms[7].config.model.attention, model::Attention::kSoftmax);
  EXPECT_EQ(two.arms[3].config.train.steps, 7);
  EXPECT_EQ(two.arms[3].config.monitor.loss_above_start_steps, 100);
}

TEST_F(StressPlanTest, ASettingOfEveryArmIsNoneThatTellsArmsApart) {
  const std::string text =
      "variants: {plain: {}, clipped: {optim.clip_norm: 1}}\naxes: {optim.learning_rate: [1e-4, 1e-3]}\n";
  const auto refused = [&](const std::string& setting) { return refusal(text, {.settings = {setting}}); };
  EXPECT_NE(refused("optim.learning_rate=1").find("choose its values with --axis 'optim.learning_rate=[...]'"), std::string::npos);
  EXPECT_NE(refused("optim.clip_norm=2").find("variant clipped of the table sets optim.clip_norm"), std::string::npos);
  EXPECT_NE(refused("optim={clip_norm: 2}").find("--set optim:"), std::string::npos);
  EXPECT_EQ(refused("optim.beta2=0.9"), "accepted");
}

TEST_F(StressPlanTest, TheBaseStandsBesideTheFileAndOverridesComeLast) {
  std::ofstream(folder_ / "base.yaml")
      << "model: {width: 64, num_heads: 2}\noptim: {warmup_steps: 30}\ntrain: {steps: 100}\n";
  const std::string text =
      "base: base.yaml\nsettings: {model: {width: 32}}\naxes: {optim.learning_rate: [1e-4, 1e-3]}\n";
  EXPECT_EQ(plan(text).arms[0].config.model.width, 32);
  EXPECT_EQ(plan(text).arms[0].config.model.num_heads, 2);
  const StressPlan changed = plan(text, {.settings = {"model.width=128"},
                                         .axes = {"optim.learning_rate=[1e-2]", "train.seed=3"},
                                         .variants = {},
                                         .steps = 50});
  EXPECT_EQ(names(changed), (std::vector<std::string>{"lr1e-2-seed3"}));
  EXPECT_EQ(changed.arms[0].config.model.width, 128);
  EXPECT_EQ(changed.arms[0].config.train.steps, 50);
  EXPECT_EQ(changed.arms[0].config.optim.warmup_steps, 5);
  EXPECT_EQ(changed.arms[0].config.train.seed, 3U);
}

TEST_F(StressPlanTest, WhatIsWrongIsNamed) {
  EXPECT_NE(refusal("axis: {}\n").find("axes"), std::string::npos);
  EXPECT_NE(refusal("axes: {train.seed: 1}\n").find("expected a list"), std::string::npos);
  EXPECT_NE(refusal("axes: {train.seed: []}\n").find("expected a list"), std::string::npos);
  EXPECT_NE(refusal("axes: {train.seed: [1, 1]}\n").find("twice"), std::string::npos);
  EXPECT_NE(refusal("axes: {train.sede: [1, 2]}\n").find("train.sede"), std::string::npos);
  EXPECT_NE(refusal("axes: {train.seed: [1, 2.5]}\n").find("arm seed2.5"), std::string::npos);
  EXPECT_NE(refusal("settings: {train.on_divergence: skip}\n").find("must be stop"), std::string::npos);
  EXPECT_NE(refusal("axes: {train.seed: [1]}\n", {.settings = {}, .axes = {"train.seed"}, .variants = {}})
                .find("KEY=[a, b]"),
            std::string::npos);
  EXPECT_NE(refusal("variants: {a: {}}\n", {.settings = {}, .axes = {}, .variants = {"b"}}).find("it has a"),
            std::string::npos);
  EXPECT_NE(refusal("base: missing.yaml\n").find("missing.yaml"), std::string::npos);
}

TEST_F(StressPlanTest, TheShippedTablesAreWhatTheySay) {
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator("configs/stress")) {
    if (entry.path().extension() != ".yaml") continue;
    files.insert(entry.path().stem().string());
    const StressPlan table = read_plan(entry.path(), {});
    EXPECT_FALSE(table.title.empty()) << entry.path();
    for (const Arm& arm : table.arms) EXPECT_EQ(arm.config.train.on_divergence, train::OnDivergence::kStop);
  }
  EXPECT_EQ(files,
            (std::set<std::string>{"controls", "demo_cpu", "ladder_160m_8k", "paper_160m_8k", "proxy"}));
  const StressPlan paper = read_plan("configs/stress/paper_160m_8k.yaml", {});
  ASSERT_EQ(paper.arms.size(), 2U);
  for (const Arm& arm : paper.arms) {
    EXPECT_EQ(arm.config.train.steps, 80000);
    EXPECT_EQ(arm.config.train.global_batch_cells, 256);
    EXPECT_EQ(arm.config.train.seed, 42U);
    EXPECT_EQ(arm.config.optim.learning_rate, 1e-4);
    EXPECT_EQ(arm.config.optim.warmup_steps, 10000);
    EXPECT_EQ(arm.config.optim.clip_norm, 0);
    EXPECT_EQ(arm.config.tokenizer.max_tokens, 8192);
    EXPECT_EQ(arm.config.model.qk_norm, model::QkNorm::kNone);
  }
  EXPECT_EQ(read_plan("configs/stress/proxy.yaml", {}).arms.size(), 3U * 2 * 2 * 6 * 2);
  EXPECT_EQ(read_plan("configs/stress/controls.yaml", {}).arms.size(), 6U * 2 * 2 * 2);
}

TEST(ArmCost, IsTheFlopOfFullCells) {
  train::TrainConfig config;  // 160M
  config.tokenizer.max_tokens = 8192;
  config.train.steps = 80000;
  const ArmCost cost = cost_of(config, 43804, 469);
  // 3 (2 x 84.9M x T + 4 x 768 x 12 x 256 x 8192^2 + 2 x 768 x 43804 x 0.15 T), T = 256 x 8192.
  const double tokens = 256.0 * 8192;
  const double expected =
      3 * (2 * 84934656.0 * tokens + 4.0 * 768 * 12 * 256 * 8192 * 8192 + 2.0 * 768 * 43804 * 0.15 * tokens);
  EXPECT_NEAR(cost.flop_per_step, expected, 1e-6 * expected);
  EXPECT_NEAR(cost.gpu_hours, expected * 80000 / 469e12 / 3600, 1e-3);
}

}  // namespace
}  // namespace scrna::stress
