// Whole runs on several ranks (threads, Gloo) of a tiny model and file, and the comparison of their curves.
#pragma once

#include "tests/support/ranks.h"

#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/train/trainer.h"
#include "tests/train/small_run.h"

namespace scrna::train {

class RanksTest : public SmallRun {
 protected:
  [[nodiscard]] TrainConfig small(const std::string& name) const {
    TrainConfig config = SmallRun::small(name);
    config.optim.clip_norm = 0.5;          // of the norm of all ranks' gradients
    config.train.global_batch_cells = 22;  // 3 and 4 ranks get unequal parts
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
};

}  // namespace scrna::train
