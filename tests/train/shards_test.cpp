// A sharded optimizer (dist.shard_optimizer) in whole runs: the curve and the checkpoints of a whole one.
#include "tests/train/ranks_fixture.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/train/gradient_reducer.h"
#include "lib/train/prepared_run.h"
#include "lib/train/step_dump.h"
#include "tests/support/tolerance.h"

namespace scrna::train {
namespace {

class ShardsTest : public RanksTest {};

// Moments and weights of a checkpoint, by name.
std::map<std::string, at::Tensor> tensors_of(const fs::path& checkpoint) {
  const checkpoint::Contents contents = checkpoint::load(checkpoint);
  std::map<std::string, at::Tensor> tensors;
  for (const auto* file : {&contents.model, &contents.optimizer})
    for (const auto& [name, tensor] : file->tensors) tensors.emplace(name, tensor);
  return tensors;
}

// Losses, norms and held-out losses; norms by layer as well; and what the last checkpoints hold.
TEST_F(ShardsTest, AShardedOptimizerGivesTheCurveAndTheCheckpointOfAWholeOne) {
  for (const int64_t ranks : {1, 2, 3, 4}) {
    const TrainConfig whole = small("whole-" + std::to_string(ranks));
    const TrainResult expected = train_with(ranks, whole);
    TrainConfig config = small("sharded-" + std::to_string(ranks));
    config.dist.shard_optimizer = true;
    const TrainResult result = train_with(ranks, config);
    expect_same_curve(config.run.dir, whole.run.dir, ranks == 1 ? 1e-12 : test::kShardedRelative);
    const std::vector<Json> lines = lines_of(config.run.dir), wanted = lines_of(whole.run.dir);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      if (!wanted[i].contains("grad_norm_per_layer")) continue;
      for (const auto& [layer, norm] : wanted[i]["grad_norm_per_layer"].items()) {
        EXPECT_NEAR(lines[i]["grad_norm_per_layer"][layer].get<double>(), norm.get<double>(),
                    test::kShardedRelative * norm.get<double>())
            << layer;
      }
    }
    const auto tensors = tensors_of(result.checkpoint), same = tensors_of(expected.checkpoint);
    ASSERT_EQ(tensors.size(), same.size());
    for (const auto& [name, tensor] : same) {
      const double scale = tensor.abs().max().item<double>();
      EXPECT_LT(tensors.at(name).sub(tensor).abs().max().item<double>(), test::kRanksRelative * scale) << name;
    }
  }
}

TEST_F(ShardsTest, AShardedOptimizerKeepsOnlyItsPart) {
  TrainConfig config = small("run");
  config.dist.shard_optimizer = true;
  for (const int64_t ranks : {2, 4}) {
    test::run_good_ranks(ranks, [&](dist::Communicator& communicator) {
      const PreparedRun run = prepare(config, "", at::kCPU, communicator);
      const int64_t all = run.encoder->parameters().values().numel();
      EXPECT_EQ(run.optimizer->mean().numel(), run.shards->num_own());
      const auto buckets = gradient_buckets_of(*run.encoder, config.dist).buckets;
      EXPECT_LT(run.optimizer->mean().numel(),
                all / ranks + std::ssize(buckets) * ranks * ops::kParameterAlignment);
      // What the other tests train: buckets that are cut, and rows that do not divide.
      const auto rows = [](const ElementRange& bucket) { return bucket.size() / ops::kParameterAlignment; };
      EXPECT_TRUE(std::ranges::any_of(buckets, [&](const auto& bucket) { return rows(bucket) >= ranks; }));
      EXPECT_TRUE(std::ranges::any_of(buckets, [&](const auto& bucket) { return rows(bucket) % ranks != 0; }));
    });
  }
  dist::Communicator alone;
  EXPECT_EQ(prepare(config, "", at::kCPU, alone).shards, nullptr) << "alone there is nothing to share";
}

TEST_F(ShardsTest, ARunGoesOnWithShardsAndWithoutOnAnyNumberOfRanks) {
  TrainConfig whole = small("whole");
  whole.heldout.every_steps = 0;
  train(whole, std::nullopt);
  TrainConfig parts = small("parts");
  parts.heldout.every_steps = 0;
  const auto go_on_with = [&](int64_t ranks, bool is_sharded, int64_t steps) {
    parts.train.steps = steps;
    parts.dist.shard_optimizer = is_sharded;
    const bool is_new = !fs::exists(parts.run.dir);
    train_with(ranks, parts,
               is_new ? std::nullopt : std::optional(find_resume_point("latest", parts.run.dir)));
  };
  go_on_with(2, true, 3);
  go_on_with(1, false, 5);
  go_on_with(4, true, 8);
  go_on_with(3, false, 9);
  go_on_with(3, true, 12);
  expect_same_curve(parts.run.dir, whole.run.dir, test::kRanksRelative);
}

TEST_F(ShardsTest, ShardsSummedInBf16AndSmallBucketsGiveNearlyTheSameCurve) {
  const TrainConfig one = small("one");
  train(one, std::nullopt);
  TrainConfig config = small("bf16");
  config.dist.gradient_type = dist::GradientType::kBf16;
  config.dist.shard_optimizer = true;
  config.dist.bucket_megabytes = 1;
  train_with(3, config);
  expect_same_curve(config.run.dir, one.run.dir, test::kBf16GradientsRelative);
}

// A limit that ordinary noise exceeds. The sharded run must find the same steps bad, and go back to weights and moments
// that are divided over the ranks, or its curve would leave the whole one's.
TEST_F(ShardsTest, AShardedRunSkipsAndGoesBackAtTheStepsAndOverTheCellsOfAWholeOne) {
  for (const OnDivergence on_divergence : {OnDivergence::kSkip, OnDivergence::kRollback}) {
    const std::string policy(config::name_of(on_divergence));
    TrainConfig whole = small("whole-" + policy);
    whole.train.on_divergence = on_divergence;
    whole.train.steps = 24;
    whole.train.max_recoveries = 50;
    whole.train.global_batch_cells = 6;
    whole.checkpoint.every_steps = 3;
    whole.checkpoint.keep_last = 100;
    whole.monitor.explosion_factor = 1.15;
    whole.monitor.explosion_window_steps = 10;
    TrainConfig config = whole;
    config.run.dir = small("sharded-" + policy).run.dir;
    config.dist.shard_optimizer = true;
    const TrainResult expected = train_with(2, whole), result = train_with(2, config);
    EXPECT_EQ(result.steps, 24);

    const std::vector<Json> wanted = lines_of(whole.run.dir), lines = lines_of(config.run.dir);
    const char* mark = on_divergence == OnDivergence::kSkip ? "skipped_steps" : "rollback_from_step";
    ASSERT_TRUE(std::ranges::any_of(wanted, [&](const Json& line) { return line.value(mark, 0) > 0; }))
        << policy << ": nothing diverged, so nothing is compared";
    ASSERT_EQ(lines.size(), wanted.size());
    for (std::size_t i = 0; i < lines.size(); ++i) {
      for (const char* key : {"step", "applied", "skipped_steps", "data_offset", "rollback_from_step"})
        EXPECT_EQ(lines[i].value(key, Json()), wanted[i].value(key, Json())) << key << " in " << lines[i];
      for (const char* key : {"loss", "grad_norm", "heldout_loss"}) {
        if (!wanted[i].contains(key)) continue;
        const auto value = wanted[i][key].get<double>();
        EXPECT_NEAR(lines[i].value(key, 0.0), value, test::kShardedRelative * value) << key << " in " << lines[i];
      }
    }

    std::size_t num_dumps = 0;
    for (const auto& entry : fs::directory_iterator(fs::path(whole.run.dir) / "divergence")) {
      const StepDump dump = read_dump(entry.path());
      const StepDump same = read_dump(fs::path(config.run.dir) / "divergence" / entry.path().filename());
      EXPECT_EQ(same.cells, dump.cells) << entry.path();
      EXPECT_EQ(same.data_step, dump.data_step);
      EXPECT_EQ(same.reason, dump.reason);
      ++num_dumps;
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(config.run.dir) / "divergence"), fs::directory_iterator()),
              static_cast<std::ptrdiff_t>(num_dumps));
    const auto tensors = tensors_of(result.checkpoint), same = tensors_of(expected.checkpoint);
    for (const auto& [name, tensor] : same) {
      const double scale = tensor.abs().max().item<double>();
      EXPECT_LE(tensors.at(name).sub(tensor).abs().max().item<double>(), test::kRanksRelative * scale) << name;
    }
  }
}

TEST_F(ShardsTest, AShardedRunThatDivergesIsRefusedByEveryRankAlike) {
  TrainConfig config = small("run");
  config.optim.learning_rate = 1e30;
  config.optim.clip_norm = 0;
  config.dist.shard_optimizer = true;
  for (const std::exception_ptr& problem : test::run_ranks(2, [&](dist::Communicator& communicator) {
         train(config, std::nullopt, at::kCPU, communicator);
       })) {
    ASSERT_TRUE(problem);
    EXPECT_THROW(std::rethrow_exception(problem), NumericError);
  }
}

}  // namespace
}  // namespace scrna::train
