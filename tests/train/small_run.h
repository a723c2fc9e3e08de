// A tiny model and a small synthetic file, for tests of whole runs; the file is made once for all tests of a suite.
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "lib/core/signals.h"
#include "lib/data/synthesize.h"
#include "lib/train/train_config.h"
#include "tests/support/temp_dir.h"

namespace scrna::train {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class SmallRun : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new test::TempDir;
    data::synthesize(
        {.cells = 120, .genes = 80, .cell_types = 3, .programs = 6, .median_genes = 30, .num_workers = 1},
        *shared_ / "cells.h5ad");
  }
  static void TearDownTestSuite() { delete shared_; }
  void TearDown() override { clear_stop_signal(); }

  /// A run in folder_ / name.
  [[nodiscard]] TrainConfig small(const std::string& name) const {
    TrainConfig config;
    config.run.dir = (folder_ / name).string();
    config.data.files = {(*shared_ / "cells.h5ad").string()};
    config.data.heldout_fraction = 0.2;
    config.data.tokens_per_micro_batch = 128;  // several micro-batches a step
    config.data.shuffle_block_cells = 16;
    config.data.shuffle_window_cells = 64;
    config.tokenizer.max_tokens = 32;
    config.model = {.num_layers = 2, .width = 16, .num_heads = 2, .feed_forward_width = 32, .dropout = 0.1};
    config.optim.learning_rate = 1e-2;
    config.optim.warmup_steps = 2;
    config.train.steps = 12;  // 12 x 20 cells: two and a half epochs of 96
    config.train.global_batch_cells = 20;
    config.train.device = DeviceChoice::kCpu;
    config.train.num_threads = 1;  // tiny products: threads would wait for each other longer than they compute
    config.heldout.every_steps = 4;
    config.checkpoint.every_steps = 5;
    return config;
  }

  /// Of its metrics.
  static std::vector<Json> lines_of(const fs::path& run) {
    std::vector<Json> lines;
    std::istringstream stream(read_file(run / "metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  test::TempDir folder_;
  inline static test::TempDir* shared_ = nullptr;
};

}  // namespace scrna::train
