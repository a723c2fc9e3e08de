// Whole runs on a GPU, from an .h5ad file to the last checkpoint: they learn, go on after an interruption to
// the same bits, and say where their time went. Small: seconds. Skipped without a GPU.
#include <cmath>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/checkpoint.h"
#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/synthesize.h"
#include "lib/train/replay.h"
#include "lib/train/trainer.h"
#include "tests/support/temp_dir.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class TrainerOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "skipped: no CUDA device";
    data::synthesize(
        {.cells = 240, .genes = 300, .cell_types = 3, .programs = 6, .median_genes = 90, .num_workers = 1},
        folder_ / "cells.h5ad");
  }
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, true); }

  // Several micro-batches a step; evaluations and checkpoints in between, so that steps follow each other and
  // pauses.
  [[nodiscard]] TrainConfig small(const std::string& name) const {
    TrainConfig config;
    config.run.dir = (folder_ / name).string();
    config.data.files = {(folder_ / "cells.h5ad").string()};
    config.data.heldout_fraction = 0.2;
    config.data.tokens_per_micro_batch = 1024;
    config.tokenizer.max_tokens = 128;
    config.model = {.num_layers = 2, .width = 128, .num_heads = 2, .feed_forward_width = 256, .dropout = 0.1};
    config.optim.learning_rate = 2e-3;
    config.optim.warmup_steps = 2;
    config.optim.clip_norm = 1.0;
    config.train.steps = 16;
    config.train.global_batch_cells = 32;
    config.train.device = DeviceChoice::kCuda;
    config.heldout.every_steps = 5;
    config.checkpoint.every_steps = 7;
    return config;
  }

  // The lines of optimizer steps.
  static std::vector<Json> steps_of(const TrainConfig& config) {
    std::vector<Json> steps;
    std::istringstream stream(read_file(fs::path(config.run.dir) / "metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) {
      Json json = Json::parse(line);
      if (json.contains("loss")) steps.push_back(std::move(json));
    }
    return steps;
  }

  // `first` steps, then the rest from the checkpoint.
  static void train_in_two_parts(TrainConfig config, int64_t first) {
    const int64_t all = config.train.steps;
    config.train.steps = first;
    train(config, std::nullopt);
    config.train.steps = all;
    train(config, find_resume_point("latest", config.run.dir));
  }

  test::TempDir folder_;
};

TEST_F(TrainerOnGpu, WithDeterministicAttentionAResumedRunContinuesTheCurveBitForBit) {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  for (const model::Attention attention : {model::Attention::kSigmoid, model::Attention::kSoftmax}) {
    TrainConfig whole = small(attention == model::Attention::kSigmoid ? "whole-sigmoid" : "whole-softmax");
    whole.model.attention = attention;
    const TrainResult result = train(whole, std::nullopt);
    EXPECT_EQ(result.steps, 16);
    EXPECT_EQ(result.cells, 16 * 32);
    ASSERT_TRUE(result.last_heldout.has_value());
    EXPECT_LT(result.last_heldout->loss, result.first_heldout->loss);
    EXPECT_EQ(checkpoint::steps_in(fs::path(whole.run.dir) / "checkpoints"),
              (std::vector<int64_t>{7, 14, 16}));

    TrainConfig parts = whole;
    parts.run.dir += "-in-parts";
    train_in_two_parts(parts, 9);
    const std::vector<Json> expected = steps_of(whole), found = steps_of(parts);
    ASSERT_EQ(expected.size(), 16U);
    ASSERT_EQ(found.size(), 16U);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      for (const char* key :
           {"step", "epoch", "loss", "grad_norm", "grad_norm_per_layer", "max_score_per_layer", "tokens"})
        EXPECT_EQ(found[i][key], expected[i][key]) << key << " of step " << i + 1;
    }
  }
}

// Sums in another order change a gradient's last bits; after seven steps of 2e-3 the losses still agree to
// far less than they differ from step to step.
TEST_F(TrainerOnGpu, WithoutItTheResumedCurveStaysCloseAndBothFormsOfTheSigmoidLearn) {
  for (const model::AttentionPrecision precision :
       {model::AttentionPrecision::kExact, model::AttentionPrecision::kFast}) {
    TrainConfig whole = small(precision == model::AttentionPrecision::kExact ? "exact" : "fast");
    whole.model.attention_precision = precision;
    train(whole, std::nullopt);
    TrainConfig parts = whole;
    parts.run.dir += "-in-parts";
    train_in_two_parts(parts, 9);
    const std::vector<Json> expected = steps_of(whole), found = steps_of(parts);
    ASSERT_EQ(expected.size(), 16U);
    ASSERT_EQ(found.size(), 16U);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double loss = expected[i]["loss"];
      EXPECT_NEAR(found[i]["loss"].get<double>(), loss, 5e-3 * loss) << "step " << i + 1;
      EXPECT_EQ(found[i]["tokens"], expected[i]["tokens"]);
    }
    EXPECT_LT(expected.back()["loss"].get<double>(), 0.99 * expected.front()["loss"].get<double>());
  }
}

// A limit so tight that ordinary noise exceeds it soon: the step is dumped, and done again from the
// checkpoint before it.
TEST_F(TrainerOnGpu, AStepThatDivergedReplaysBitForBitWithDeterministicAttention) {
  for (const model::Attention attention : {model::Attention::kSigmoid, model::Attention::kSoftmax}) {
    for (const bool is_deterministic : {true, false}) {
      TrainConfig config =
          small(std::string(attention == model::Attention::kSigmoid ? "sigmoid" : "softmax") +
                (is_deterministic ? "-deterministic" : ""));
      config.model.attention = attention;
      config.model.attention_deterministic = is_deterministic;
      config.train.steps = 60;
      config.train.global_batch_cells = 6;
      config.train.on_divergence = OnDivergence::kStop;
      config.heldout.every_steps = 0;
      config.checkpoint.every_steps = 4;
      config.monitor.explosion_factor = 1.1;
      config.monitor.explosion_window_steps = 10;
      EXPECT_THROW(train(config, std::nullopt), NumericError);
      const std::vector<fs::path> dumps{fs::directory_iterator(fs::path(config.run.dir) / "divergence"), {}};
      ASSERT_EQ(dumps.size(), 1U);
      const ReplayReport report = replay(dumps[0], {});
      EXPECT_EQ(report.is_exact_expected, is_deterministic) << report.why_not_exact;
      if (is_deterministic) {
        EXPECT_TRUE(report.differences.empty()) << report.differences.front();
      }
      const double loss = report.dump.loss;
      EXPECT_NEAR(report.step.loss, loss, 1e-3 * loss);
    }
  }
}

TEST_F(TrainerOnGpu, TheTimesOfTheStepsAreTheDevicesAndAddUpToNoMoreThanTheRun) {
  const TrainConfig config = small("run");
  const double begin = now_seconds();
  const TrainResult result = train(config, std::nullopt);
  const double whole = now_seconds() - begin;
  constexpr double kTicks = 20e-6;  // a mark is good to half a microsecond; a step has up to ten
  double seconds = 0;
  for (const Json& step : steps_of(config)) {
    const double total = step["seconds"], idle = step["seconds_idle"];
    const double phases = step["seconds_forward"].get<double>() + step["seconds_backward"].get<double>() +
                          step["seconds_optimizer"].get<double>();
    EXPECT_GT(phases, 0.0);
    EXPECT_GE(idle, 0.0);
    EXPECT_NEAR(total, idle + phases, kTicks) << step["step"];
    EXPECT_LE(step["data_wait_share"].get<double>() * total, idle + kTicks);
    EXPECT_NEAR(step["cells_per_second"].get<double>() * total, 32, 1e-6);
    EXPECT_GT(step["mfu"].get<double>(), 0.0);
    EXPECT_LT(step["mfu"].get<double>(), 1.0);
    EXPECT_GT(step["peak_device_memory_bytes"].get<double>(), 0.0);
    seconds += total;
  }
  EXPECT_LT(seconds, whole);
  EXPECT_NEAR(result.seconds, seconds, 1e-9);
}

}  // namespace
}  // namespace scrna::train
