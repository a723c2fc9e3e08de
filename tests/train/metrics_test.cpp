#include "lib/train/metrics.h"

#include <limits>
#include <nlohmann/json.hpp>

#include <gtest/gtest.h>

#include "lib/core/files.h"
#include "tests/support/temp_dir.h"

namespace scrna::train {
namespace {

using Json = nlohmann::json;

StepReport example() {
  return {.step = 7,
          .epoch = 1,
          .loss = 3.25,
          .learning_rate = 1e-3,
          .grad_norm = 5,
          .grad_norm_per_layer = {3, 4},
          .max_score_per_layer = {1.5},
          .tokens = 100,
          .masked_tokens = 15,
          .cells = 4,
          .micro_batches = 2,
          .seconds = {.data_wait = 0.125, .idle = 0.03125, .forward = 0.25, .backward = 0.5, .optimizer = 0.0625, .total = 2}};
}

MeterReading reading() {
  return {.cells_per_second = 2,
          .tokens_per_second = 50,
          .flop_per_second = 3e12,
          .mfu = 0.5,
          .data_wait_share = 0.0625,
          .padding_share = 0.25,
          .peak_device_memory_bytes = 1234};
}

TEST(Metrics, AStepLineHoldsWhatTheReportSays) {
  const std::string line = step_line(example(), {"embedding", "layer_00"}, reading());
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const Json json = Json::parse(line);
  EXPECT_EQ(json["step"], 7);
  EXPECT_EQ(json["epoch"], 1);
  EXPECT_EQ(json["loss"], 3.25);
  EXPECT_EQ(json["learning_rate"], 1e-3);
  EXPECT_EQ(json["grad_norm"], 5.0);
  EXPECT_EQ(json["grad_norm_per_layer"], (Json{{"embedding", 3.0}, {"layer_00", 4.0}}));
  EXPECT_EQ(json["max_score_per_layer"], (Json{{"layer_00", 1.5}}));
  EXPECT_EQ(json["tokens"], 100);
  EXPECT_EQ(json["masked_tokens"], 15);
  EXPECT_EQ(json["cells"], 4);
  EXPECT_EQ(json["micro_batches"], 2);
  EXPECT_EQ(json["seconds"], 2.0);
  EXPECT_EQ(json["seconds_data_wait"], 0.125);
  EXPECT_EQ(json["seconds_idle"], 0.03125);
  EXPECT_EQ(json["seconds_forward"], 0.25);
  EXPECT_EQ(json["seconds_backward"], 0.5);
  EXPECT_EQ(json["seconds_optimizer"], 0.0625);
  EXPECT_EQ(json["cells_per_second"], 2.0);
  EXPECT_EQ(json["tokens_per_second"], 50.0);
  EXPECT_EQ(json["model_tflops_per_second"], 3.0);
  EXPECT_EQ(json["mfu"], 0.5);
  EXPECT_EQ(json["data_wait_share"], 0.0625);
  EXPECT_EQ(json["padding_share"], 0.25);
  EXPECT_EQ(json["peak_device_memory_bytes"], 1234);
  EXPECT_EQ(json["applied"], true);
  EXPECT_EQ(json["skipped_steps"], 0);
  EXPECT_FALSE(json.contains("weight_norm_per_layer"));
}

TEST(Metrics, AMonitoredStepHoldsEveryStatisticByLayer) {
  StepReport report = example();
  MonitorReading& monitor = report.monitor.emplace();
  monitor.weight_norm = {10, 20};
  monitor.update_ratio = {0.125, 0.25};
  monitor.blocks.resize(1);
  for (std::size_t i = 0; i < monitor.blocks[0].size(); ++i) monitor.blocks[0][i] = static_cast<double>(i);
  Json json = Json::parse(step_line(report, {"embedding", "layer_00"}, reading()));
  EXPECT_EQ(json["weight_norm_per_layer"], (Json{{"embedding", 10.0}, {"layer_00", 20.0}}));
  EXPECT_EQ(json["update_ratio_per_layer"], (Json{{"embedding", 0.125}, {"layer_00", 0.25}}));
  for (const auto& [statistic, key] : kLayerStatisticKeys) {
    EXPECT_EQ(json[std::string(key)], (Json{{"layer_00", static_cast<double>(statistic)}})) << key;
  }
  monitor.blocks[0].back() = std::numeric_limits<double>::quiet_NaN();  // the exact score: not measured
  json = Json::parse(step_line(report, {"embedding", "layer_00"}, reading()));
  EXPECT_FALSE(json.contains("exact_max_score_per_layer"));
}

TEST(Metrics, WhatTheCpuDoesNotMeasureIsNull) {
  MeterReading unmeasured = reading();
  unmeasured.mfu.reset();
  unmeasured.peak_device_memory_bytes.reset();
  const Json json = Json::parse(step_line(example(), {"embedding", "layer_00"}, unmeasured));
  EXPECT_TRUE(json.at("mfu").is_null());
  EXPECT_TRUE(json.at("peak_device_memory_bytes").is_null());
}

TEST(Metrics, NumbersThatAreNotFiniteAreNull) {
  StepReport report = example();
  report.loss = std::numeric_limits<double>::quiet_NaN();
  report.grad_norm = std::numeric_limits<double>::infinity();
  report.max_score_per_layer = {std::numeric_limits<double>::infinity()};
  const Json json = Json::parse(step_line(report, {"embedding", "layer_00"}, reading()));
  EXPECT_TRUE(json["loss"].is_null());
  EXPECT_TRUE(json["grad_norm"].is_null());
  EXPECT_TRUE(json["max_score_per_layer"]["layer_00"].is_null());
}

TEST(Metrics, AHeldoutLineHoldsTheLossAndBothBaselines) {
  const Json json = Json::parse(heldout_line(
      20, {.loss = 2, .uniform_loss = 5, .gene_frequency_loss = 4, .cells = 10, .masked_tokens = 99}, 0.5));
  EXPECT_EQ(json["step"], 20);
  EXPECT_EQ(json["heldout_loss"], 2.0);
  EXPECT_EQ(json["heldout_uniform_loss"], 5.0);
  EXPECT_EQ(json["heldout_gene_frequency_loss"], 4.0);
  EXPECT_EQ(json["heldout_cells"], 10);
  EXPECT_EQ(json["heldout_masked_tokens"], 99);
}

TEST(Metrics, RewindingMovesLaterAndCutOffLinesAndKeepsTheRest) {
  const test::TempDir folder;
  const auto path = folder / "metrics.jsonl";
  write_file_atomically(path, "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"heldout_loss\":1}\n{\"step\":3}\n{\"ste");
  EXPECT_EQ(rewind_metrics(path, 2), 2);
  EXPECT_EQ(read_file(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"heldout_loss\":1}\n");
  EXPECT_EQ(read_file(folder / "metrics.superseded.jsonl"), "{\"step\":3}\n{\"ste\n");
  EXPECT_EQ(rewind_metrics(path, 1), 2);
  EXPECT_EQ(read_file(path), "{\"step\":1}\n");
  EXPECT_EQ(read_file(folder / "metrics.superseded.jsonl"),
            "{\"step\":3}\n{\"ste\n{\"step\":2}\n{\"step\":2,\"heldout_loss\":1}\n");
}

TEST(Metrics, RewindingTouchesNothingWhenThereIsNothingLater) {
  const test::TempDir folder;
  EXPECT_EQ(rewind_metrics(folder / "metrics.jsonl", 5), 0);
  write_file_atomically(folder / "metrics.jsonl", "{\"step\":5}\n");
  EXPECT_EQ(rewind_metrics(folder / "metrics.jsonl", 5), 0);
  EXPECT_FALSE(std::filesystem::exists(folder / "metrics.superseded.jsonl"));
}

}  // namespace
}  // namespace scrna::train
