// Runs that diverge, on purpose and at known places: a limit so tight that ordinary noise exceeds it now and
// then.
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/checkpoint/checkpoint.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/train/replay.h"
#include "lib/train/trainer.h"
#include "tests/train/small_run.h"

namespace scrna::train {
namespace {

class Recovery : public SmallRun {
 protected:
  [[nodiscard]] TrainConfig small(const std::string& name, OnDivergence on_divergence) const {
    TrainConfig config = SmallRun::small(name);
    config.data.heldout_fraction = 0;
    config.train.steps = 40;
    config.train.global_batch_cells = 6;
    config.train.on_divergence = on_divergence;
    config.heldout.every_steps = 0;
    config.checkpoint.every_steps = 4;
    config.checkpoint.keep_last = 100;
    config.monitor.every_steps = 1;
    config.monitor.explosion_factor = 1.15;
    config.monitor.explosion_window_steps = 10;
    return config;
  }

  static std::string curve_of(const fs::path& run) {
    std::string text;
    for (const Json& line : lines_of(run)) {
      text += Json{line["step"],    line["loss"],          line["grad_norm"],
                   line["applied"], line["skipped_steps"], line["weight_norm_per_layer"]}
                  .dump() +
              "\n";
    }
    return text;
  }
  static std::vector<fs::path> dumps_of(const fs::path& run) {
    return {fs::directory_iterator(run / "divergence"), {}};
  }
  // The message of the NumericError that ends the run.
  static std::string failure_of(const TrainConfig& config) {
    try {
      train(config, std::nullopt);
    } catch (const NumericError& error) {
      return error.what();
    }
    return "no failure";
  }
  static void expect_same_bits(const fs::path& dump) {
    const ReplayReport report = replay(dump, {});
    EXPECT_TRUE(report.is_exact_expected) << report.why_not_exact;
    EXPECT_TRUE(report.differences.empty()) << dump << ": " << report.differences.front();
  }
};

TEST_F(Recovery, StoppingLeavesADumpThatReplaysBitForBit) {
  TrainConfig config = small("run", OnDivergence::kStop);
  const std::string message = failure_of(config);
  EXPECT_NE(message.find("the gradient norm exploded"), std::string::npos) << message;
  const std::vector<fs::path> dumps = dumps_of(config.run.dir);
  ASSERT_EQ(dumps.size(), 1U);
  EXPECT_NE(message.find(dumps[0].filename().string()), std::string::npos) << message;
  const StepDump dump = read_dump(dumps[0]);
  EXPECT_GT(dump.grad_norm, dump.grad_norm_limit);
  EXPECT_EQ(dump.cells.size(), 6U);
  EXPECT_FALSE(dump.is_applied);
  int64_t tokens = 0;
  for (const DumpedCell& cell : dump.cells) tokens += cell.tokens;
  EXPECT_EQ(tokens, dump.tokens);
  EXPECT_EQ(lines_of(config.run.dir).back()["applied"], false);
  expect_same_bits(dumps[0]);
  // From the beginning it is the same step, too.
  fs::remove_all(fs::path(config.run.dir) / "checkpoints");
  const ReplayReport report = replay(dumps[0], {});
  EXPECT_EQ(report.first_step, 0);
  EXPECT_TRUE(report.differences.empty()) << report.differences.front();
  ASSERT_TRUE(report.step.monitor.has_value());
}

TEST_F(Recovery, AReplayWithOtherSettingsOrDamagedNumbersIsToldApart) {
  TrainConfig config = small("run", OnDivergence::kStop);
  failure_of(config);
  const fs::path dump = dumps_of(config.run.dir).at(0);
  EXPECT_FALSE(replay(dump, {"model.dropout=0.2"}).differences.empty());
  StepDump changed = read_dump(dump);
  changed.loss = std::nextafter(changed.loss, 0);
  changed.cells[1].id ^= 1;
  write_dump(dump, changed);
  EXPECT_EQ(replay(dump, {}).differences.size(), 2U);
}

TEST_F(Recovery, WhatIsNotFiniteIsDumpedAndReplaysToo) {
  TrainConfig config = small("run", OnDivergence::kStop);
  config.optim.learning_rate = 1e30;
  config.monitor.explosion_factor = 0;
  EXPECT_NE(failure_of(config).find("not finite"), std::string::npos);
  const fs::path dump = dumps_of(config.run.dir).at(0);
  EXPECT_FALSE(std::isfinite(read_dump(dump).loss) && std::isfinite(read_dump(dump).grad_norm));
  expect_same_bits(dump);
}

TEST_F(Recovery, ALossThatStaysAboveItsStartEndsTheRun) {
  TrainConfig config = small("run", OnDivergence::kStop);
  config.optim.learning_rate = 3;
  config.monitor.explosion_factor = 0;
  config.monitor.loss_above_start_steps = 5;
  config.optim.warmup_steps = 20;
  const std::string message = failure_of(config);
  EXPECT_NE(message.find("stays above its start"), std::string::npos) << message;
  expect_same_bits(dumps_of(config.run.dir).at(0));
}

TEST_F(Recovery, SkippedStepsChangeNothingAreCountedAndReplay) {
  const TrainConfig config = small("run", OnDivergence::kSkip);
  const TrainResult result = train(config, std::nullopt);
  EXPECT_EQ(result.steps, 40);
  int64_t skipped = 0;
  Json before;
  for (const Json& line : lines_of(config.run.dir)) {
    if (line["applied"] == false) {
      ++skipped;
      for (const auto& [layer, ratio] : line["update_ratio_per_layer"].items())
        EXPECT_EQ(ratio, 0.0) << layer;
      EXPECT_EQ(line["weight_norm_per_layer"], before["weight_norm_per_layer"]);
    } else {
      EXPECT_GT(line["update_ratio_per_layer"]["layer_00"].get<double>(), 0.0);
    }
    EXPECT_EQ(line["skipped_steps"], skipped);
    before = line;
  }
  EXPECT_GT(skipped, 0);
  EXPECT_LT(skipped, 30);
  const std::vector<fs::path> dumps = dumps_of(config.run.dir);
  EXPECT_EQ(std::ssize(dumps), skipped);
  for (const fs::path& dump : dumps) expect_same_bits(dump);
}

TEST_F(Recovery, ARunThatSkipsResumesToTheSameBits) {
  const TrainConfig whole = small("whole", OnDivergence::kSkip);
  train(whole, std::nullopt);
  TrainConfig parts = small("parts", OnDivergence::kSkip);
  for (const int64_t steps : {13, 26, 40}) {
    parts.train.steps = steps;
    train(parts, steps == 13 ? std::nullopt : std::optional(find_resume_point("latest", parts.run.dir)));
  }
  EXPECT_EQ(curve_of(parts.run.dir), curve_of(whole.run.dir));
}

TEST_F(Recovery, SkippingEveryStepEndsTheRun) {
  TrainConfig config = small("run", OnDivergence::kSkip);
  config.monitor.explosion_factor = 1e-3;
  config.train.max_recoveries = 3;
  EXPECT_NE(failure_of(config).find("diverged"), std::string::npos);
  EXPECT_EQ(lines_of(config.run.dir).back()["skipped_steps"], 3);
}

TEST_F(Recovery, ARollbackGoesOnFromTheCheckpointWithCellsNotSeen) {
  TrainConfig config = small("run", OnDivergence::kRollback);
  config.monitor.explosion_factor = 1.2;
  config.train.max_recoveries = 30;
  const TrainResult result = train(config, std::nullopt);
  EXPECT_EQ(result.steps, 40);
  const fs::path run = config.run.dir;
  int64_t rollbacks = 0, expected_step = 1, offset = 0;
  for (const Json& line : lines_of(run)) {
    if (line.contains("rollback_from_step")) {
      ++rollbacks;
      EXPECT_EQ(line["step"], expected_step - 1);
      // The cells up to those of the step that failed are left out.
      EXPECT_EQ(line["data_offset"],
                offset + line["rollback_from_step"].get<int64_t>() - line["step"].get<int64_t>());
      offset = line["data_offset"];
      continue;
    }
    EXPECT_EQ(line["step"], expected_step++);
    EXPECT_EQ(line["applied"], true);
  }
  ASSERT_GT(rollbacks, 0);
  EXPECT_TRUE(fs::exists(run / "metrics.superseded.jsonl"));
  // Every dump replays from the checkpoint that the run had gone back to before it.
  for (const fs::path& file : dumps_of(run)) {
    const StepDump dump = read_dump(file);
    EXPECT_EQ(dump.data_step, dump.step - 1 + dump.data_offset);
    expect_same_bits(file);
  }
  const Json state = Json::parse(read_file(run / "checkpoints/latest/state.json"));
  EXPECT_EQ(state["data_offset"], offset);
}

TEST_F(Recovery, ARunThatWentBackResumesToTheSameBits) {
  TrainConfig whole = small("whole", OnDivergence::kRollback),
              parts = small("parts", OnDivergence::kRollback);
  whole.monitor.explosion_factor = parts.monitor.explosion_factor = 1.2;
  whole.train.max_recoveries = parts.train.max_recoveries = 30;
  train(whole, std::nullopt);
  parts.train.steps = 32;
  train(parts, std::nullopt);
  parts.train.steps = 40;
  train(parts, find_resume_point("latest", parts.run.dir));
  const std::vector<Json> one = lines_of(whole.run.dir), two = lines_of(parts.run.dir);
  EXPECT_GE(dumps_of(parts.run.dir).size(), 1U);
  EXPECT_EQ(one.back()["loss"], two.back()["loss"]);
  EXPECT_EQ(one.back()["weight_norm_per_layer"], two.back()["weight_norm_per_layer"]);
}

TEST_F(Recovery, WithoutACheckpointThereIsNoWayBack) {
  TrainConfig config = small("run", OnDivergence::kRollback);
  config.checkpoint.every_steps = 0;
  EXPECT_NE(failure_of(config).find("there is no checkpoint"), std::string::npos);
}

}  // namespace
}  // namespace scrna::train
