// Whole runs on several ranks (threads, Gloo) of a tiny model and file, and the comparison of their curves.
#pragma once

#include "tests/support/ranks.h"

#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "lib/core/signals.h"
#include "lib/data/synthesize.h"
#include "lib/train/trainer.h"
#include "tests/support/temp_dir.h"

namespace scrna::train {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class RanksTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new test::TempDir;
    data::synthesize(
        {.cells = 120, .genes = 80, .cell_types = 3, .programs = 6, .median_genes = 30, .num_workers = 1},
        *shared_ / "cells.h5ad");
  }
  static void TearDownTestSuite() { delete shared_; }
  void TearDown() override { clear_stop_signal(); }

  [[nodiscard]] TrainConfig small(const std::string& name) const {
    TrainConfig config;
    config.run.dir = (folder_ / name).string();
    config.data.files = {(*shared_ / "cells.h5ad").string()};
    config.data.heldout_fraction = 0.2;
    config.data.tokens_per_micro_batch = 128;
    config.data.shuffle_block_cells = 16;
    config.data.shuffle_window_cells = 64;
    config.tokenizer.max_tokens = 32;
    config.model = {.num_layers = 2, .width = 16, .num_heads = 2, .feed_forward_width = 32, .dropout = 0.1};
    config.optim.learning_rate = 1e-2;
    config.optim.warmup_steps = 2;
    config.optim.clip_norm = 0.5;  // of the norm of all ranks' gradients
    config.train.steps = 12;
    config.train.global_batch_cells = 22;  // 3 and 4 ranks get unequal parts
    config.train.device = DeviceChoice::kCpu;
    config.train.num_threads = 1;
    config.heldout.every_steps = 4;
    config.checkpoint.every_steps = 5;
    return config;
  }

  static TrainResult train_with(int64_t num_ranks, const TrainConfig& config,
                                const std::optional<ResumePoint>& resume = std::nullopt) {
    TrainResult first;
    test::run_good_ranks(num_ranks, [&](dist::Communicator& communicator) {
      const TrainResult result = train(config, resume, at::kCPU, communicator);
      if (communicator.is_first()) first = result;
    });
    return first;
  }

  static std::vector<Json> lines_of(const fs::path& run) {
    std::vector<Json> lines;
    std::istringstream stream(read_file(run / "metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  // Counts and positions are equal, losses and norms to rounding.
  static void expect_same_curve(const fs::path& run, const fs::path& reference, double tolerance) {
    const std::vector<Json> lines = lines_of(run), expected = lines_of(reference);
    ASSERT_EQ(lines.size(), expected.size());
    for (std::size_t i = 0; i < lines.size(); ++i) {
      for (const char* key : {"step", "epoch", "tokens", "masked_tokens", "cells", "learning_rate",
                              "heldout_cells", "heldout_masked_tokens", "heldout_uniform_loss"}) {
        EXPECT_EQ(lines[i].value(key, -1.0), expected[i].value(key, -1.0)) << key << " in " << lines[i];
      }
      for (const char* key : {"loss", "grad_norm", "heldout_loss", "heldout_gene_frequency_loss"}) {
        const double value = expected[i].value(key, 0.0);
        EXPECT_NEAR(lines[i].value(key, 0.0), value, tolerance * value) << key << " in " << lines[i];
      }
    }
  }

  test::TempDir folder_;
  inline static test::TempDir* shared_ = nullptr;
};

}  // namespace scrna::train
